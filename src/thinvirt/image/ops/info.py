"""Facts of an image, and of the chain of images below it."""

from __future__ import annotations

from thinvirt.image.block.abilities import Snapshotable
from thinvirt.image.block.errors import BlockError, NotSupported
from thinvirt.image.block.names import full_backing_filename, refresh_filename

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from thinvirt.image.block.abilities import Snapshot
    from thinvirt.image.block.node import BlockNode


class ImageInfo:
    """What is known of one image.

    Attributes:
        filename: its name, ``json:`` where a plain one would not do.
        format: its driver.
        virtual_size: bytes that a guest sees.
        actual_size: bytes taken on the host, None if it cannot be told.
        encrypted: its content cannot be read without a key.
        cluster_size: bytes, 0 if it has no clusters.
        dirty: it was not closed properly; None where there is no such notion.
        backing_filename: as the image says, "" for none.
        full_backing_filename: as it would be opened; None if that cannot be told.
        backing_format: as the image says, "" if it does not.
        snapshots: internal ones.
        specific: what only this format has, under "type" and "data"; None if nothing.
    """

    __slots__ = (
        "actual_size",
        "backing_filename",
        "backing_format",
        "cluster_size",
        "dirty",
        "encrypted",
        "filename",
        "format",
        "full_backing_filename",
        "snapshots",
        "specific",
        "virtual_size",
    )

    def __init__(self, node: BlockNode) -> None:
        """Ask a node; only its header needs to have been read.

        Raises:
            BlockError: it cannot say.
        """
        self.virtual_size = node.size
        refresh_filename(node)
        self.filename = node.filename
        self.format = node.driver
        self.actual_size = _allocated_size(node)
        self.encrypted = node.is_encrypted
        self.cluster_size = node.cluster_size
        self.dirty = node.is_dirty if _has_facts(node) else None
        self.specific: Mapping[str, Any] | None = node.format_specific()
        self.backing_filename = node.backing_file
        self.full_backing_filename: str | None = None
        self.backing_format = ""
        if self.backing_filename:
            self.full_backing_filename = _full_name(node)
            self.backing_format = node.backing_format
        self.snapshots: Sequence[Snapshot] = ()
        if isinstance(node, Snapshotable):
            self.snapshots = node.list_snapshots()


def _allocated_size(node: BlockNode) -> int | None:
    try:
        return node.allocated_size()
    except NotSupported:
        return None


def _has_facts(node: BlockNode) -> bool:
    """Whether a driver tells of clusters and of being dirty; protocols but files do not."""
    if node.is_protocol and not node.is_filter:
        return node.identity() is not None
    if node.filtered is not None:
        return _has_facts(node.filtered)
    return node.driver != "raw" or _has_facts(node.file)


def _full_name(node: BlockNode) -> str | None:
    try:
        return full_backing_filename(node)
    except BlockError:
        return None
