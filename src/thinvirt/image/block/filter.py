"""What filters have in common: they show their child as it is."""

from __future__ import annotations

from thinvirt.image.block.base import BaseNode
from thinvirt.image.block.flags import WriteFlags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode, Buffer

_ZERO_FLAGS = WriteFlags.FUA | WriteFlags.MAY_UNMAP | WriteFlags.NO_FALLBACK


class FilterNode(BaseNode):
    """Base of filters; every request goes to the primary child."""

    is_filter = True
    can_write_zeroes = True
    can_discard = True

    def _take_flags(self, below: BlockNode) -> None:
        """What the child can do, a filter can do."""
        self.write_flags = WriteFlags.UNCHANGED | WriteFlags.FUA & below.write_flags
        self.zero_flags = WriteFlags.UNCHANGED | _ZERO_FLAGS & below.zero_flags

    def _length(self) -> int:
        return self.file.size

    def _read(self, offset: int, length: int) -> bytes:
        return self.file.read(offset, length)

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        self.file.write(offset, data, flags)

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        self.file.write_zeroes(offset, length, flags)

    def _write_compressed(self, offset: int, data: Buffer) -> None:
        self.file.write_compressed(offset, data)

    def _discard(self, offset: int, length: int) -> None:
        self.file.discard(offset, length)
