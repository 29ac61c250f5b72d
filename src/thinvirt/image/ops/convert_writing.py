"""The target side of a conversion: plain, compressed, or copied by the host."""

from __future__ import annotations

from thinvirt.image.block.base import is_zero
from thinvirt.image.block.errors import BlockError, NotSupported
from thinvirt.image.block.flags import Status, WriteFlags
from thinvirt.image.ops.convert_reading import ConvertFailed, Kind
from thinvirt.image.ops.sparse import pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.abilities import ClusterPacker
    from thinvirt.image.block.root import Root
    from thinvirt.image.block.workers import Job, Workers
    from thinvirt.image.ops.convert_reading import Piece, Reader


class Places:
    """Which zeroes need not be written.

    Attributes:
        minimum_hole: bytes of zeroes in a row that are left out; 0 writes everything.
        alignment: bytes that the ends of data are rounded to.
        reads_zero: the target is known to read as zeroes where nothing was written.
        joins: neighbours are written together: the target allocates nothing, so that it does not
            matter to what is where in its file.
    """

    __slots__ = ("alignment", "joins", "minimum_hole", "reads_zero")

    def __init__(self, *, minimum_hole: int, alignment: int, reads_zero: bool, joins: bool) -> None:
        self.joins = joins
        self.minimum_hole = minimum_hole
        self.alignment = alignment
        self.reads_zero = reads_zero

    def scan(self, piece: Piece) -> None:
        """Note what of a piece is data, and what zeroes, as qemu-img finds them."""
        assert piece.buffer is not None
        parts: list[tuple[bool, int, int]] = []
        begin = 0
        for step in piece.steps:
            for is_data, start, end in pieces(
                piece.buffer,
                begin + step,
                piece.at,
                minimum=self.minimum_hole,
                alignment=self.alignment,
                start=begin,
            ):
                if self.joins and parts and parts[-1][0] == is_data:
                    parts[-1] = is_data, parts[-1][1], end
                else:
                    parts.append((is_data, start, end))
            begin += step
        piece.parts = parts


class Writer:
    """Writes pieces in the order in which they come.

    Args:
        target: opened for writing.
        reader: whose pieces these are; gets their memory back.
        places: which zeroes need not be written.
        pace: told each number of bytes written; may wait.
    """

    def __init__(
        self,
        target: Root,
        reader: Reader,
        places: Places,
        pace: Callable[[int], None] | None = None,
    ) -> None:
        self.target = target
        self.reader = reader
        self.places = places
        self.minimum_hole = places.minimum_hole
        self.reads_zero = places.reads_zero
        self.pace = pace

    def put(self, piece: Piece) -> None:
        """Write a piece.

        Raises:
            ConvertFailed: it, or one before it, could not be written.
        """
        if piece.kind == Kind.ZERO and self.minimum_hole:
            self._write_zeroes(piece.at, piece.length)
        elif piece.kind == Kind.ZERO:
            self._write_data(piece.at, memoryview(bytes(piece.length)))
        elif piece.kind == Kind.DATA:
            self._write_piece(piece)
            self.reader.give_back(piece)

    def finish(self) -> None:
        """Write what is still to be written.

        Raises:
            ConvertFailed: it could not be written.
        """

    def _write_piece(self, piece: Piece) -> None:
        assert piece.buffer is not None
        view = piece.view
        if not self.minimum_hole:
            self._write_data(piece.at, view)
            return
        if piece.parts is None:
            self.places.scan(piece)
            assert piece.parts is not None
        for is_data, start, end in piece.parts:
            if is_data:
                self._write_data(piece.at + start, view[start:end])
            else:
                self._write_zeroes(piece.at + start, end - start)

    def _write_zeroes(self, at: int, length: int) -> None:
        if self.reads_zero:
            return
        try:
            self.target.write_zeroes(at, length, WriteFlags.MAY_UNMAP)
        except BlockError as error:
            raise ConvertFailed("writing at byte", at, error) from error

    def _write_data(self, at: int, data: memoryview) -> None:
        try:
            self._store(at, data)
        except BlockError as error:
            raise ConvertFailed("writing at byte", at, error) from error
        if self.pace is not None:
            self.pace(len(data))

    def _store(self, at: int, data: memoryview) -> None:
        self.target.write(at, data)


class CompressingWriter(Writer):
    """Stores every cluster compressed, the target doing one after the other."""

    def _write_piece(self, piece: Piece) -> None:
        for at in range(0, piece.length, self.reader.unit):
            view = piece.view[at : at + self.reader.unit]
            if self.minimum_hole and is_zero(view):
                self._write_zeroes(piece.at + at, len(view))
            else:
                self._write_data(piece.at + at, view)

    def _store(self, at: int, data: memoryview) -> None:
        self.target.write_compressed(at, data)

    def finish(self) -> None:
        """Round the end of the file up."""
        self._write_data(0, memoryview(b""))


class Packing:
    """How clusters are compressed.

    Attributes:
        node: the target.
        effort: how hard to try; see `ClusterPacker`.
        workers: the threads that do it; None for none.
    """

    __slots__ = ("effort", "node", "workers")

    def __init__(self, node: ClusterPacker, effort: str, workers: Workers | None) -> None:
        self.node = node
        self.effort = effort
        self.workers = workers

    @property
    def depth(self) -> int:
        """How many pieces may wait."""
        return 2 * self.workers.count if self.workers is not None else 0


class PackingWriter(CompressingWriter):
    """Compresses clusters, in several threads perhaps, and stores them in order.

    What comes out does not depend on the number of threads.
    """

    def __init__(
        self,
        target: Root,
        reader: Reader,
        places: Places,
        pace: Callable[[int], None] | None,
        packing: Packing,
    ) -> None:
        super().__init__(target, reader, places, pace)
        self._packing = packing
        self._waiting: list[tuple[Piece, Callable[[], list[bytes | None]] | None]] = []

    def put(self, piece: Piece) -> None:
        """Take a piece, and write one taken before if enough are waiting."""
        if piece.kind == Kind.BACKING:
            return
        found = None
        if piece.kind == Kind.DATA:
            found = self._packer(piece)
            if self._packing.workers is not None:
                found = self._packing.workers.submit(found).result
        self._waiting.append((piece, found))
        while len(self._waiting) > self._packing.depth:
            self._write_oldest()

    def finish(self) -> None:
        """Write what is waiting."""
        while self._waiting:
            self._write_oldest()
        super().finish()

    def _packer(self, piece: Piece) -> Callable[[], list[bytes | None]]:
        unit, skips_zeroes = self.reader.unit, bool(self.minimum_hole)
        pack, effort = self._packing.node.pack_cluster, self._packing.effort
        view = piece.view

        def work() -> list[bytes | None]:
            """Return for each cluster: its bytes packed; empty for zeroes; None: as they are."""
            found: list[bytes | None] = []
            for at in range(0, len(view), unit):
                cluster = view[at : at + unit]
                is_hole = skips_zeroes and is_zero(cluster)
                found.append(b"" if is_hole else pack(cluster, effort))
            return found

        return work

    def _write_oldest(self) -> None:
        piece, found = self._waiting.pop(0)
        if found is None:
            super().put(piece)
            return
        unit = self.reader.unit
        try:
            clusters = found()
        except BlockError as error:
            raise ConvertFailed("writing at byte", piece.at, error) from error
        for number, packed in enumerate(clusters):
            at = piece.at + number * unit
            cluster = piece.view[number * unit : (number + 1) * unit]
            if packed == b"":
                self._write_zeroes(at, len(cluster))
                continue
            try:
                self._packing.node.write_packed(at, cluster, packed)
            except BlockError as error:
                raise ConvertFailed("writing at byte", at, error) from error
            if self.pace is not None:
                self.pace(len(cluster))
        self.reader.give_back(piece)


class UnorderedWriter(Writer):
    """Writes several pieces at a time, in any order: for targets that allocate nothing.

    Args:
        target, reader, places: as for `Writer`.
        workers: the threads.
    """

    def __init__(self, target: Root, reader: Reader, places: Places, workers: Workers) -> None:
        super().__init__(target, reader, places)
        self._workers = workers
        self._waiting: list[Job] = []

    def put(self, piece: Piece) -> None:
        """Let a thread write a piece, once not too many are waiting."""
        call = super().put
        self._waiting.append(self._workers.submit(lambda: call(piece)))
        while len(self._waiting) > 2 * self._workers.count:
            self._waiting.pop(0).result()

    def finish(self) -> None:
        """Wait for what is being written."""
        while self._waiting:
            self._waiting.pop(0).result()


class HostCopier:
    """Lets the host copy between its files, sharing blocks where it can.

    Attributes:
        works: False as soon as the host refused: then everything else is read and written.
    """

    def __init__(self, target: Root, reader: Reader) -> None:
        self.target = target
        self.reader = reader
        self.works = True

    def copied(self, piece: Piece) -> bool:
        """Whether the host copied a piece.

        A copy that fails on the way is made again, from its beginning, by reading and writing.
        """
        source = self.reader.source_at(piece.at)
        if not self.works or piece.at + piece.length > source.end:
            return False
        done = 0
        try:
            while done < piece.length:
                at = piece.at + done
                extent = source.image.node.status(at - source.start, piece.length - done)
                if not extent.flags & Status.OFFSET_VALID or extent.node is None:
                    raise NotSupported
                self.target.node.copy_from_file(extent.node, extent.host_offset, at, extent.length)
                done += extent.length
        except BlockError:
            self.works = False
        return self.works
