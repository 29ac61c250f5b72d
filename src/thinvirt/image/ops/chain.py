"""Find one's way in a chain of backing files."""

from __future__ import annotations

import os

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.names import (
    backing_overridden,
    beside,
    full_backing_filename,
    has_protocol,
    refresh_filename,
)
from thinvirt.image.block.status import backing_chain_next, skip_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode


def find_backing(top: BlockNode, name: str) -> BlockNode | None:
    """Return the image below `top` that `name` means, None if none is called so.

    Args:
        top: of the chain.
        name: as an image of the chain names its backing file, or a path to the same file.
    """
    node = skip_filters(top)
    while node is not None:
        below = backing_chain_next(node)
        if below is None:
            return None
        if _is_called(node, below, name):
            return below
        node = below
    return None


def _is_called(node: BlockNode, below: BlockNode, name: str) -> bool:
    """Whether `name` means the backing file of `node`."""
    if backing_overridden(node):
        refresh_filename(below)
        return name == below.filename
    if has_protocol(name) or has_protocol(node.backing_file):
        return name in (node.backing_file, _full_name(node))
    try:
        path = beside(node, name)
    except BlockError:
        return False
    full = _full_name(node)
    if not path or not full:
        return False
    try:
        return os.path.realpath(path, strict=True) == os.path.realpath(full, strict=True)
    except OSError:
        return False


def _full_name(node: BlockNode) -> str | None:
    try:
        return full_backing_filename(node)
    except BlockError:
        return None
