"""Memory that files are read into again and again."""

from __future__ import annotations

# A large bytearray begins 16 bytes into a page: the allocator's own. What a file holds begins where
# a page does, and the kernel's copy takes twice as long to a place a few bytes further into a page
# than it comes from: the processor takes the two for one.
_TO_NEXT_PAGE = 4096 - 16


class ReadBuffer:
    """Memory where a page begins, as long as the allocator does what it usually does.

    Attributes:
        memory: all of it.
        start: where in `memory` the buffer begins.
        view: the buffer.
    """

    __slots__ = ("memory", "start", "view")

    def __init__(self, length: int) -> None:
        self.memory = bytearray(_TO_NEXT_PAGE + length)
        self.start = _TO_NEXT_PAGE
        self.view = memoryview(self.memory)[self.start :]

    def is_same(self, other: ReadBuffer, start: int, end: int) -> bool:
        """Return whether two buffers hold the same between two offsets."""
        # Two memoryviews would be compared byte by byte.
        return self.memory.startswith(other.view[start:end], self.start + start)
