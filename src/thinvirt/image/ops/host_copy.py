"""Copies that the host makes between its own files, sharing blocks where the file system can."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.file import FileNode
from thinvirt.image.block.flags import Status
from thinvirt.image.block.raw import RawNode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode


def copy_between(
    source: BlockNode, source_offset: int, target: BlockNode, target_offset: int, length: int
) -> bool:
    """Copy a range if both nodes show host files there; return whether all was copied.

    A copy that fails on the way is to be made again from its beginning by reading and writing.
    """
    if not isinstance(target, RawNode) or not isinstance(target.file, FileNode):
        return False
    at = target_offset + target.offset
    copied = 0
    try:
        while copied < length:
            extent = source.status(source_offset + copied, length - copied)
            if not extent.flags & Status.OFFSET_VALID or not isinstance(extent.node, FileNode):
                return False
            target.file.copy_from(extent.node.fd, extent.host_offset, at + copied, extent.length)
            copied += extent.length
    except BlockError:
        return False
    return True
