"""Compare what two images show."""

from __future__ import annotations

from thinvirt.image.block.base import is_zero
from thinvirt.image.block.buffers import ReadBuffer
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import SECTOR, Status
from thinvirt.image.block.status import status_above
from thinvirt.image.block.walk import Ascending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.root import Root

# Bytes read at a time, so that both buffers stay in the processor's cache. Two threads that read at
# once take more of the processor's time for it, and hardly less of the clock's.
CHUNK = 1 << 20


class Difference:
    """What is different: `kind` is "size", "status" or "content", at byte `offset`."""

    __slots__ = ("kind", "offset")

    def __init__(self, kind: str, offset: int = 0) -> None:
        self.kind = kind
        self.offset = offset


class CompareFailed(Exception):
    """One of the images could not be looked at.

    Attributes:
        index: 0 or 1, which of them.
        offset: in bytes; None if its metadata is what could not be read.
        cause: why.
    """

    def __init__(self, index: int, offset: int | None, cause: BlockError) -> None:
        super().__init__(cause.message)
        self.index = index
        self.offset = offset
        self.cause = cause


class Comparison:
    """Two images side by side.

    Args:
        images: the two.
        strict: sizes and allocation must be alike too.
        watch: told bytes done and bytes in all; may raise to cancel.
    """

    def __init__(
        self,
        images: tuple[Root, Root],
        *,
        strict: bool = False,
        watch: Callable[[int, int], None] | None = None,
    ) -> None:
        self.images = images
        self.sizes = images[0].size, images[1].size
        self.strict = strict
        self.watch = watch or _nobody
        self._buffers = ReadBuffer(CHUNK), ReadBuffer(CHUNK)
        alike = Status.ALLOCATED | Status.ZERO
        self._walks = tuple(Ascending(image.node, alike=alike) for image in images)

    def run(self, on_size: Callable[[], None] | None = None) -> Difference | None:
        """Return the first difference, None if there is none.

        Args:
            on_size: called when all that both have is alike but one of them goes on.

        Raises:
            CompareFailed: one cannot be read.
        """
        if self.strict and self.sizes[0] != self.sizes[1]:
            return Difference("size")
        difference = self._common_part()
        if difference is None and self.sizes[0] != self.sizes[1]:
            if on_size is not None:
                on_size()
            difference = self._rest()
        return difference

    def _common_part(self) -> Difference | None:
        offset, end, total = 0, min(self.sizes), max(self.sizes)
        while offset < end:
            one, one_length = self._status(0, offset)
            other, other_length = self._status(1, offset)
            if self.strict and one != other:
                return Difference("status", offset)
            chunk = min(one_length, other_length)
            if not one & other & Status.ZERO:
                chunk, difference = self._look(offset, chunk, one, other)
                if difference is not None:
                    return difference
            offset += chunk
            self.watch(offset, total)
        return None

    def _look(self, offset: int, chunk: int, one: int, other: int) -> tuple[int, Difference | None]:
        """Compare the beginning of a range with these flags; return how much of it."""
        if one & other & Status.ALLOCATED:
            chunk = min(chunk, CHUNK)
            self._read(0, offset, chunk)
            self._read(1, offset, chunk)
            at = first_difference(*self._buffers, chunk)
            return chunk, None if at is None else Difference("content", offset + at)
        if (one | other) & Status.ALLOCATED:
            chunk = min(chunk, CHUNK)
            return chunk, self._must_be_zero(0 if one & Status.ALLOCATED else 1, offset, chunk)
        return chunk, None

    def _rest(self) -> Difference | None:
        """The longer image must end in zeroes."""
        index = 0 if self.sizes[0] > self.sizes[1] else 1
        offset, end = min(self.sizes), max(self.sizes)
        while offset < end:
            flags, chunk = self._status(index, offset)
            if flags & Status.ALLOCATED and not flags & Status.ZERO:
                chunk = min(chunk, CHUNK)
                difference = self._must_be_zero(index, offset, chunk)
                if difference is not None:
                    return difference
            offset += chunk
            self.watch(offset, end)
        return None

    def _must_be_zero(self, index: int, offset: int, length: int) -> Difference | None:
        self._read(index, offset, length)
        view = self._buffers[index].view[:length]
        if is_zero(view):
            return None
        at = 0
        while is_zero(view[at : at + SECTOR]):
            at += SECTOR
        return Difference("content", offset + at)

    def _status(self, index: int, offset: int) -> tuple[int, int]:
        """Return the flags of the beginning of a range, and for how many bytes they hold."""
        node, size = self.images[index].node, self.sizes[index]
        try:
            if self.strict:  # the end of an image counts too
                extent = status_above(node, None, offset, size - offset)
                return extent.flags, extent.length
            return self._walks[index].at(offset)
        except BlockError as error:
            raise CompareFailed(index, None, error) from error

    def _read(self, index: int, offset: int, length: int) -> None:
        try:
            self.images[index].read_into(offset, self._buffers[index].view[:length])
        except BlockError as error:
            raise CompareFailed(index, offset, error) from error


def first_difference(one: ReadBuffer, other: ReadBuffer, length: int) -> int | None:
    """Return the offset of the first sector that differs within `length`, None if there is none."""
    if one.is_same(other, 0, length):
        return None
    low, high = 0, -(-length // SECTOR)  # sectors: alike before `low`, not all before `high`
    while high - low > 1:
        middle = (low + high) // 2
        if one.is_same(other, low * SECTOR, middle * SECTOR):
            low = middle
        else:
            high = middle
    return low * SECTOR


def _nobody(done: int, total: int) -> None:
    """Nobody watches."""
