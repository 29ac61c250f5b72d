"""Copy what images show into another image, leaving out what need not be written."""

from __future__ import annotations

from thinvirt.image.block.base import is_zero
from thinvirt.image.block.errors import BlockError, NotSupported
from thinvirt.image.block.flags import SECTOR, Status, WriteFlags
from thinvirt.image.block.status import backing_chain_next, skip_filters, status_above
from thinvirt.image.ops.sparse import pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thinvirt.image.block.node import BlockNode, Extent
    from thinvirt.image.block.root import Root

BUFFER = 2 << 20  # bytes copied at a time; a target may ask for more
MAX_BUFFER = 16 << 20
MAX_STEP = 1 << 30  # bytes whose status is asked for at a time
MINIMUM_HOLE = 4096

_DATA, _ZERO, _BACKING = "data", "zero", "backing"


class ConvertFailed(Exception):
    """The copy stopped.

    Attributes:
        action: "reading block status at offset", "reading at byte" or "writing at byte".
        offset: where, in bytes of the target.
        cause: why.
    """

    def __init__(self, action: str, offset: int, cause: BlockError) -> None:
        super().__init__(f"error while {action} {offset}: {cause.reason}")
        self.action = action
        self.offset = offset
        self.cause = cause


class Source:
    """One of the images that are put together; all in bytes.

    Attributes:
        image: opened for reading.
        start, end: its place in the target.
        alignment: reads begin and end at multiples of this, where that costs nothing.
    """

    __slots__ = ("alignment", "end", "image", "start")

    def __init__(self, image: Root, start: int) -> None:
        self.image = image
        self.start = start
        self.end = start + image.size
        alignment = -(-image.node.request_alignment // SECTOR) * SECTOR
        self.alignment = max(alignment, image.node.cluster_size // SECTOR * SECTOR)


class Conversion:
    """A copy from one or more images, one after the other, into one.

    Args:
        sources: images opened for reading.
        target: opened for writing, at least as large as all of them together.
        is_new: the target was made for this, nobody has written to it.
        reads_zero: the target is known to read as zeroes all over.
        has_backing: the target has a backing file, which shows what the first image's shows: only
            what the image itself has is copied.
        minimum_hole: bytes of zeroes in a row that are left out; 0 writes everything.
        compressed: store compressed.
        copy_range: let the host copy within its file systems, sharing blocks where it can.
        salvage: read around errors; told each in `warn`.
        warn: told what could not be read.
        watch: told bytes copied and bytes to copy.
        count_first: ask for the status of everything beforehand, so that `watch` knows the total.
        pace: told each number of bytes written; may wait.
    """

    def __init__(
        self,
        sources: Sequence[Root],
        target: Root,
        *,
        is_new: bool,
        reads_zero: bool = False,
        has_backing: bool = False,
        minimum_hole: int = MINIMUM_HOLE,
        compressed: bool = False,
        copy_range: bool = False,
        salvage: bool = False,
        warn: Callable[[str], None] | None = None,
        watch: Callable[[int, int], None] | None = None,
        count_first: bool = False,
        pace: Callable[[int], None] | None = None,
    ) -> None:
        self.sources: list[Source] = []
        end = 0
        for image in sources:
            self.sources.append(Source(image, end))
            end += image.size
        self.size = end
        self.target = target
        self.has_backing = has_backing
        self.minimum_hole = minimum_hole
        self.compressed = compressed
        self.copy_range = copy_range
        self.salvage = salvage
        self.warn = warn
        self.watch = watch
        self.count_first = count_first
        self.pace = pace
        node = target.node
        self.reads_zero = reads_zero or (
            is_new and bool(minimum_hole) and not has_backing and node.has_zero_init()
        )
        self.backing_size: int | None = None
        if has_backing and is_new:
            backing = backing_chain_next(node)
            self.backing_size = backing.size if backing is not None else None
        self.buffer_size = min(MAX_BUFFER, max(BUFFER, node.opt_transfer, node.discard_alignment))
        self.alignment = max(
            _power_below(minimum_hole // SECTOR) * SECTOR,
            -(-node.request_alignment // SECTOR) * SECTOR,
        )
        self.cluster = node.cluster_size // SECTOR * SECTOR
        if compressed:
            if not SECTOR <= self.cluster <= self.buffer_size:
                raise BlockError("invalid cluster size")
            self.buffer_size = self.cluster
        self._kind = _DATA
        self._known_to = 0  # up to where `_kind` holds
        self._buffer = bytearray(0)

    def run(self) -> None:
        """Copy.

        Raises:
            ConvertFailed: an image could not be read or written.
        """
        total = self._count() if self.count_first else 0
        self._known_to = 0
        self._buffer = bytearray(self.buffer_size)
        at = done = 0
        while at < self.size:
            length = self._step(at)
            kind = self._kind
            writes_zeroes = kind == _ZERO and not self.minimum_hole
            if writes_zeroes:
                length = min(length, self.buffer_size)
            if kind == _DATA or writes_zeroes:
                done += length
                if self.watch is not None and total:
                    self.watch(done, total)
            self._copy(kind, at, length)
            at += length
        if self.compressed:
            self._write(self.target.write_compressed, 0, b"")  # the end of the file is rounded up

    def _count(self) -> int:
        """Return how many bytes will be copied."""
        at = total = 0
        while at < self.size:
            length = self._step(at)
            if self._kind == _DATA or (self._kind == _ZERO and not self.minimum_hole):
                total += length
            at += length
        return total

    # ---------------------------------------------------------------- what comes next

    def _step(self, at: int) -> int:
        """Return how many bytes from `at` on are of one kind, and note the kind."""
        source = self._source(at)
        past_backing = False
        length = min(self.size - at, MAX_STEP)
        if self.backing_size is not None:
            if at >= self.backing_size:
                past_backing = True
            else:
                length = min(length, self.backing_size - at)
        if self._known_to <= at:
            extent, length = self._status(source, at, length)
            if extent.flags & Status.ZERO:
                self._kind = _BACKING if past_backing else _ZERO
            elif extent.flags & Status.DATA or not self.has_backing:
                self._kind = _DATA
            else:
                self._kind = _BACKING
            self._known_to = at + length
        length = min(length, self._known_to - at)
        if self._kind == _DATA:
            length = min(length, self.buffer_size)
        if self.compressed:
            if length < self.cluster:
                length = min(self.cluster, self.size - at)
                self._kind = _DATA
            else:
                length -= length % self.cluster
        return length

    def _source(self, at: int) -> Source:
        for source in self.sources:
            if at < source.end:
                return source
        raise AssertionError(at)

    def _status(self, source: Source, at: int, length: int) -> tuple[Extent, int]:
        """Return what the source has there, and for how long, rounded to its alignment."""
        node = source.image.node
        base: BlockNode | None = None
        if self.has_backing:
            top = skip_filters(node)
            base = top.backing if top is not None else None
        offset = at - source.start
        while True:
            try:
                extent = status_above(node, base, offset, length)
                break
            except BlockError as error:
                if not self.salvage:
                    action = "reading block status at offset"
                    raise ConvertFailed(action, offset, error) from error
                if length > SECTOR:
                    length = -(-(length // SECTOR) // 4) * SECTOR
                    continue
                self._warn("block status at offset", offset, error)
                extent = _unknown(SECTOR)
                break
        length = -(-extent.length // SECTOR) * SECTOR
        tail = (offset + length) % source.alignment
        if length > tail:
            length -= tail
        return extent, length

    # ---------------------------------------------------------------- moving bytes

    def _copy(self, kind: str, at: int, length: int) -> None:
        if kind == _BACKING:
            return
        if kind == _ZERO:
            if self.minimum_hole:
                self._write_zeroes(at, length)
            else:
                self._write_data(at, memoryview(bytes(length)))
            return
        if self.copy_range and self._copied_by_host(at, length):
            return
        view = memoryview(self._buffer)[:length]
        self._read(at, view)
        if not self.minimum_hole or (self.compressed and not is_zero(view)):
            self._write_data(at, view)
        elif self.compressed:
            self._write_zeroes(at, length)
        else:
            self._write_pieces(at, view)

    def _write_pieces(self, at: int, view: memoryview) -> None:
        for is_data, start, end in pieces(
            self._buffer, len(view), at, minimum=self.minimum_hole, alignment=self.alignment
        ):
            if is_data:
                self._write_data(at + start, view[start:end])
            else:
                self._write_zeroes(at + start, end - start)

    def _write_zeroes(self, at: int, length: int) -> None:
        if self.reads_zero:
            return
        try:
            self.target.write_zeroes(at, length, WriteFlags.MAY_UNMAP)
        except BlockError as error:
            raise ConvertFailed("writing at byte", at, error) from error

    def _write_data(self, at: int, data: memoryview) -> None:
        self._write(
            self.target.write_compressed if self.compressed else self.target.write, at, data
        )
        if self.pace is not None:
            self.pace(len(data))

    @staticmethod
    def _write(
        write: Callable[[int, memoryview | bytes], None], at: int, data: memoryview | bytes
    ) -> None:
        try:
            write(at, data)
        except BlockError as error:
            raise ConvertFailed("writing at byte", at, error) from error

    def _read(self, at: int, view: memoryview) -> None:
        """Read a range of the target's, which may lie in several sources."""
        done = 0
        while done < len(view):
            source = self._source(at + done)
            length = min(len(view) - done, source.end - at - done)
            offset = at + done - source.start
            part = view[done : done + length]
            try:
                source.image.read_into(offset, part)
            except BlockError as error:
                if not self.salvage:
                    raise ConvertFailed("reading at byte", at, error) from error
                self._salvage(source, offset, part)
            done += length

    def _salvage(self, source: Source, offset: int, view: memoryview) -> None:
        """Read sector by sector; what cannot be read becomes zeroes."""
        for start in range(0, len(view), SECTOR):
            part = view[start : start + SECTOR]
            try:
                source.image.read_into(offset + start, part)
            except BlockError as error:
                self._warn("offset", offset + start, error)
                part[:] = bytes(len(part))

    def _warn(self, what: str, offset: int, error: BlockError) -> None:
        if self.warn is not None:
            self.warn(f"error while reading {what} {offset}: {error.reason}")

    def _copied_by_host(self, at: int, length: int) -> bool:
        """Let the host copy between its files; return whether it did. The first no is for good.

        A copy that fails on the way is made again, from its beginning, by reading and writing.
        """
        source = self._source(at)
        if at + length > source.end:
            return False
        done = 0
        try:
            while done < length:
                extent = source.image.node.status(at - source.start + done, length - done)
                if not extent.flags & Status.OFFSET_VALID or extent.node is None:
                    raise NotSupported
                self.target.node.copy_from_file(
                    extent.node, extent.host_offset, at + done, extent.length
                )
                done += extent.length
        except BlockError:
            self.copy_range = False
        return self.copy_range


def _power_below(number: int) -> int:
    """Return the largest power of two that is not above `number`, 1 for 0."""
    return 1 << max(number.bit_length() - 1, 0)


def _unknown(length: int) -> Extent:
    from thinvirt.image.block.node import Extent

    return Extent(length, Status.DATA)
