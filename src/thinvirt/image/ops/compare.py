"""Compare what two images show."""

from __future__ import annotations

from thinvirt.image.block.base import is_zero
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import SECTOR, Status
from thinvirt.image.block.status import status_above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.node import Extent
    from thinvirt.image.block.root import Root

CHUNK = 2 << 20  # bytes read at a time


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
        self._buffers = bytearray(CHUNK), bytearray(CHUNK)

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
            one, other = self._status(0, offset), self._status(1, offset)
            if self.strict and one.flags != other.flags:
                return Difference("status", offset)
            chunk = min(one.length, other.length)
            if not one.flags & other.flags & Status.ZERO:
                chunk, difference = self._look(offset, chunk, one, other)
                if difference is not None:
                    return difference
            offset += chunk
            self.watch(offset, total)
        return None

    def _look(
        self, offset: int, chunk: int, one: Extent, other: Extent
    ) -> tuple[int, Difference | None]:
        if one.is_allocated and other.is_allocated:
            chunk = min(chunk, CHUNK)
            self._read(0, offset, chunk)
            self._read(1, offset, chunk)
            at = first_difference(*self._buffers, chunk)
            return chunk, None if at is None else Difference("content", offset + at)
        if one.is_allocated or other.is_allocated:
            chunk = min(chunk, CHUNK)
            return chunk, self._must_be_zero(0 if one.is_allocated else 1, offset, chunk)
        return chunk, None

    def _rest(self) -> Difference | None:
        """The longer image must end in zeroes."""
        index = 0 if self.sizes[0] > self.sizes[1] else 1
        offset, end = min(self.sizes), max(self.sizes)
        while offset < end:
            extent = self._status(index, offset)
            chunk = extent.length
            if extent.is_allocated and not extent.is_zero:
                chunk = min(chunk, CHUNK)
                difference = self._must_be_zero(index, offset, chunk)
                if difference is not None:
                    return difference
            offset += chunk
            self.watch(offset, end)
        return None

    def _must_be_zero(self, index: int, offset: int, length: int) -> Difference | None:
        self._read(index, offset, length)
        view = memoryview(self._buffers[index])[:length]
        if is_zero(view):
            return None
        at = 0
        while is_zero(view[at : at + SECTOR]):
            at += SECTOR
        return Difference("content", offset + at)

    def _status(self, index: int, offset: int) -> Extent:
        try:
            return status_above(self.images[index].node, None, offset, self.sizes[index] - offset)
        except BlockError as error:
            raise CompareFailed(index, None, error) from error

    def _read(self, index: int, offset: int, length: int) -> None:
        try:
            self.images[index].read_into(offset, memoryview(self._buffers[index])[:length])
        except BlockError as error:
            raise CompareFailed(index, offset, error) from error


def first_difference(one: bytearray, other: bytearray, length: int) -> int | None:
    """Return the offset of the first sector that differs within `length`, None if there is none."""
    view = memoryview(other)
    if one.startswith(view[:length]):
        return None
    low, high = 0, -(-length // SECTOR)  # sectors: alike before `low`, not all before `high`
    while high - low > 1:
        middle = (low + high) // 2
        if one.startswith(view[low * SECTOR : middle * SECTOR], low * SECTOR):
            low = middle
        else:
            high = middle
    return low * SECTOR


def _nobody(done: int, total: int) -> None:
    """Nobody watches."""
