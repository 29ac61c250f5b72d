"""The source side of a conversion: what comes next, and its bytes."""

from __future__ import annotations

from thinvirt.image.block.abilities import ReadPlanner
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import SECTOR, Status
from thinvirt.image.block.status import skip_filters, status_above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Final

    from thinvirt.image.block.node import BlockNode, Extent
    from thinvirt.image.block.root import Root

MAX_STEP = 1 << 30  # bytes whose status is asked for at a time


class Kind:
    """What is to be done with a piece."""

    DATA: Final = "data"
    ZERO: Final = "zero"
    BACKING: Final = "backing"  # nothing: the target's backing file shows it


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


class Piece:
    """A range of the target's, all of one kind; in bytes.

    Attributes:
        kind: of `Kind`.
        at, length: where.
        steps: the lengths of the requests it was put together from; QEMU looks for zeroes in each
            of them by itself.
        buffer: its bytes, and perhaps others behind them; None as long as they were not read.
        parts: its data and its zeroes, in order, as (is data, start, end) in bytes from `at` on;
            None as long as nobody looked.
    """

    __slots__ = ("at", "buffer", "kind", "length", "parts", "steps")

    def __init__(self, kind: str, at: int, length: int) -> None:
        self.kind = kind
        self.at = at
        self.length = length
        self.steps = [length]
        self.buffer: bytearray | None = None
        self.parts: list[tuple[bool, int, int]] | None = None

    @property
    def view(self) -> memoryview:
        """Its bytes."""
        assert self.buffer is not None
        return memoryview(self.buffer)[: self.length]

    def append(self, piece: Piece) -> None:
        """Take what follows, of the same kind, into this piece."""
        self.length += piece.length
        self.steps += piece.steps


class Reader:
    """Walks over the sources, one after the other.

    Everything here may run in a thread of its own, as long as nobody else uses the sources.

    Args:
        sources: images opened for reading.
        has_backing: only what the first image itself has is copied.
        backing_size: bytes that the target's backing file has; None if that does not matter.
        writes_zeroes: zeroes are copied like data.
        unit: bytes; pieces of data are whole multiples, except the last one. 0 for no unit.
        limit: bytes of data in a piece at most.
        merges: put data that is found in small steps (compressed clusters) together.
        salvage: read around errors.
        warn: told what could not be read.
    """

    def __init__(
        self,
        sources: Sequence[Root],
        *,
        has_backing: bool,
        backing_size: int | None,
        writes_zeroes: bool,
        unit: int,
        limit: int,
        merges: bool,
        salvage: bool,
        warn: Callable[[str], None] | None,
    ) -> None:
        self.sources: list[Source] = []
        end = 0
        for image in sources:
            self.sources.append(Source(image, end))
            end += image.size
        self.size = end
        self.has_backing = has_backing
        self.backing_size = backing_size
        self.writes_zeroes = writes_zeroes
        self.unit = unit
        self.limit = limit
        self.merges = merges
        self.salvage = salvage
        self.warn = warn
        self._kind = Kind.DATA
        self._known_to = 0  # up to where `_kind` holds
        self._free: list[bytearray] = []

    def copies(self, piece: Piece) -> bool:
        """Whether a piece counts for progress."""
        return piece.kind == Kind.DATA or (piece.kind == Kind.ZERO and self.writes_zeroes)

    def steps(self) -> Iterator[Piece]:
        """Yield what is to be done, in order, without its bytes.

        Raises:
            ConvertFailed: the status of an image could not be read.
        """
        at = self._known_to = 0
        while at < self.size:
            length = self._step(at)
            if self._kind == Kind.ZERO and self.writes_zeroes:
                length = min(length, self.limit)
            piece = Piece(self._kind, at, length)
            if self.merges and not self.unit and piece.kind == Kind.DATA:
                self._extend(piece)
            yield piece
            at += piece.length

    def pieces(self) -> Iterator[Piece]:
        """Yield what `steps` yields, data with its bytes.

        Raises:
            ConvertFailed: an image could not be read.
        """
        for piece in self.unread():
            if piece.kind == Kind.DATA:
                yield from self.load(piece)
            else:
                yield piece

    def _extend(self, piece: Piece) -> None:
        """Take steps of one cluster each into a piece, which a driver can count at once."""
        source = self.source_at(piece.at)
        node = source.image.node
        end = piece.at + piece.length
        if end != self._known_to or not isinstance(node, ReadPlanner):
            return
        length = min(self.limit - piece.length, source.end - end)
        try:
            more = node.alike_from(end - source.start, length) if length > 0 else 0
        except BlockError:
            return  # met again at its own step
        piece.length += more
        piece.steps += [source.alignment] * (more // source.alignment)
        self._known_to += more

    def unread(self) -> Iterator[Piece]:
        """Yield what `pieces` yields, without its bytes.

        Raises:
            ConvertFailed: the status of an image could not be read.
        """
        return self._merged() if self.merges else self.steps()

    def _merged(self) -> Iterator[Piece]:
        """Yield steps; data that follows data is put together up to the limit."""
        waiting: Piece | None = None
        try:
            for piece in self.steps():
                is_data = piece.kind == Kind.DATA
                if waiting is not None:
                    if is_data and waiting.length + piece.length <= self.limit:
                        waiting.append(piece)
                        continue
                    yield waiting
                waiting = piece if is_data else None
                if not is_data:
                    yield piece
        except ConvertFailed:
            if waiting is not None:
                yield waiting
            raise
        if waiting is not None:
            yield waiting

    # ---------------------------------------------------------------- what comes next

    def _step(self, at: int) -> int:
        """Return how many bytes from `at` on are of one kind, and note the kind."""
        source = self.source_at(at)
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
                self._kind = Kind.BACKING if past_backing else Kind.ZERO
            elif extent.flags & Status.DATA or not self.has_backing:
                self._kind = Kind.DATA
            else:
                self._kind = Kind.BACKING
            self._known_to = at + length
        length = min(length, self._known_to - at)
        if self._kind == Kind.DATA:
            length = min(length, self.limit)
        if self.unit:
            if length < self.unit:
                length = min(self.unit, self.size - at)
                self._kind = Kind.DATA
            else:
                length -= length % self.unit
        return length

    def source_at(self, at: int) -> Source:
        """Return the image that holds a byte of the target's."""
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

    # ---------------------------------------------------------------- bytes

    def give_back(self, piece: Piece) -> None:
        """Let the memory of a piece be used again: fresh memory costs more than reading into it."""
        if piece.buffer is not None:
            self._free.append(piece.buffer)
            piece.buffer = None

    def load(self, piece: Piece) -> Iterator[Piece]:
        """Yield a piece with its bytes; before an error, in parts, what could be read.

        Raises:
            ConvertFailed: an image could not be read.
        """
        try:
            self._fill(piece)
        except ConvertFailed:
            # In the requests that QEMU makes: so the place told is the one QEMU tells.
            at = piece.at
            for step in piece.steps:
                end = at + step
                while at < end:
                    part = Piece(piece.kind, at, min(self.unit or step, end - at))
                    self._fill(part)
                    yield part
                    at += part.length
            return
        yield piece

    def plan(self, piece: Piece) -> Callable[[memoryview], None] | None:
        """Return what reads a piece in another thread; None if only `load` can."""
        source = self.source_at(piece.at)
        node = source.image.node
        if self.salvage or piece.at + piece.length > source.end:
            return None
        if not isinstance(node, ReadPlanner):
            return None
        try:
            return node.plan_read(piece.at - source.start, piece.length)
        except BlockError:
            return None  # `load` finds it again, in its place

    def give_memory(self, piece: Piece) -> None:
        """Give a piece a buffer, for `give_back` to take."""
        try:
            piece.buffer = self._free.pop()
        except IndexError:
            piece.buffer = bytearray(max(self.limit, piece.length))

    def _fill(self, piece: Piece) -> None:
        self.give_memory(piece)
        self._read(piece.at, piece.view)

    def _read(self, at: int, view: memoryview) -> None:
        """Read a range of the target's, which may lie in several sources."""
        done = 0
        while done < len(view):
            source = self.source_at(at + done)
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


def _unknown(length: int) -> Extent:
    from thinvirt.image.block.node import Extent

    return Extent(length, Status.DATA)
