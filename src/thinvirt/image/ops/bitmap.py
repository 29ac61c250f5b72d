"""Persistent dirty bitmaps of an image: what changed since when."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import BitmapHolder
from thinvirt.image.block.errors import BlockError, prefixed, with_reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.node import BlockNode


def bitmap_holder(node: BlockNode) -> BitmapHolder | None:
    """Return the node as one that can hold bitmaps, None if this image cannot."""
    if isinstance(node, BitmapHolder) and node.supports_bitmaps:
        return node
    return None


def add_bitmap(node: BlockNode, name: str, granularity: int | None) -> None:
    """Add an empty bitmap.

    Args:
        node: of the image, writable.
        name: not taken yet.
        granularity: bytes that a bit stands for, a power of two; None takes the default.

    Raises:
        BlockError: not possible.
    """
    if not name:
        raise BlockError("Bitmap name cannot be empty")
    if granularity is not None and (granularity < 512 or granularity & (granularity - 1)):
        raise BlockError("Granularity must be power of 2 and at least 512")
    if not isinstance(node, BitmapHolder):
        text = f"Can't store persistent bitmaps to {node.node_name}"
        raise with_reason(text, errno.ENOTSUP)
    node.add_bitmap(name, granularity)


def holder_of(node: BlockNode, name: str) -> BitmapHolder:
    """Return the node that holds the bitmap.

    Raises:
        BlockError: there is no such bitmap.
    """
    if isinstance(node, BitmapHolder):
        return node
    raise BlockError(f"Dirty bitmap '{name}' not found")


def check_copyable(node: BlockNode, *, skip_broken: bool) -> None:
    """See whether all bitmaps of an image can be copied.

    Args:
        node: of the image.
        skip_broken: inconsistent ones are to be left out.

    Raises:
        BlockError: the format has none, or one is inconsistent.
    """
    holder = bitmap_holder(node)
    if holder is None:
        raise BlockError("Source lacks bitmap support")
    for bitmap in reversed(holder.list_bitmaps()):
        if bitmap.inconsistent and not skip_broken:
            raise BlockError(f"Cannot copy inconsistent bitmap '{bitmap.name}'")


def copy_bitmaps(source: BlockNode, target: BlockNode, warn: Callable[[str], None]) -> None:
    """Copy all bitmaps but inconsistent ones, of which `warn` is told.

    Raises:
        BlockError: one could not be copied.
    """
    assert isinstance(source, BitmapHolder)
    assert isinstance(target, BitmapHolder)
    # The last first, as QEMU goes through them, which also keeps their order in the directory.
    for bitmap in reversed(source.list_bitmaps()):
        name = bitmap.name
        if bitmap.inconsistent:
            warn(f"Skipping inconsistent bitmap '{name}'")
            continue
        with prefixed(f"Failed to create bitmap {name}: "):
            target.add_bitmap(name, bitmap.granularity, enabled=bitmap.enabled)
        try:
            with prefixed(f"Failed to populate bitmap {name}: "):
                target.merge_bitmap(name, source, name)
        except BlockError:
            target.remove_bitmap(name)
            raise
