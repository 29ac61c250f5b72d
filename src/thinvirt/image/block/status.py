"""Where bytes come from: the status of a range in one node, and down a chain of backing files.

Map, convert, commit, rebase, compare and measure all walk an image with `status_above`.
"""

from __future__ import annotations

from thinvirt.image.block.flags import Status
from thinvirt.image.block.node import Extent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from thinvirt.image.block.node import BlockNode

_SAYS = Status.DATA | Status.ZERO


def node_status(node: BlockNode, offset: int, length: int, *, want_zero: bool) -> Extent:
    """Return the status of the beginning of a range in one node; see `BlockNode.status`."""
    size = node.size
    if offset >= size:
        return Extent(0, Status.EOF)
    if not length:
        return Extent(0, 0)
    length = min(length, size - offset)
    extent = _ask_driver(node, offset, length, want_zero=want_zero)
    flags = extent.flags
    if flags & Status.RAW:
        below = extent.node
        assert below is not None
        extent = node_status(below, extent.host_offset, extent.length, want_zero=want_zero)
        # What ends there need not end here.
        extent.flags &= ~Status.EOF
    elif flags & _SAYS:
        extent.flags |= Status.ALLOCATED
    elif node.supports_backing:
        backing = node.backing
        if backing is None or (want_zero and offset >= backing.size):
            extent.flags |= Status.ZERO
    if extent.flags & Status.RECURSE:
        if want_zero:
            _look_below(node, extent)
        extent.flags &= ~Status.RECURSE
    if offset + extent.length == size:
        extent.flags |= Status.EOF
    return extent


def _ask_driver(node: BlockNode, offset: int, length: int, *, want_zero: bool) -> Extent:
    """Return the driver's answer, with its alignment undone and cut to `length`."""
    if not node.can_report_status:
        if node.filtered is not None:
            return Extent(length, Status.RAW | Status.OFFSET_VALID, offset, node.filtered)
        flags = Status.DATA
        if node.is_protocol:
            flags |= Status.OFFSET_VALID
        return Extent(length, flags, offset, node if node.is_protocol else None)
    mask = node.request_alignment - 1
    start = offset & ~mask
    end = (offset + length + mask) & ~mask
    extent = node._status(start, end - start, want_zero=want_zero)
    skipped = offset - start
    extent.length = min(extent.length - skipped, length)
    if skipped and extent.flags & Status.OFFSET_VALID:
        extent.host_offset += skipped
    return extent


def _look_below(node: BlockNode, extent: Extent) -> None:
    """Let the file below tell of holes in what its format calls data."""
    below = extent.node
    flags = extent.flags
    if below is None or below is node or not flags & Status.OFFSET_VALID:
        return
    if not flags & Status.DATA or flags & Status.ZERO:
        return
    found = node_status(below, extent.host_offset, extent.length, want_zero=True)
    if found.flags & Status.EOF and (not found.length or found.flags & Status.ZERO):
        # A format may point past the end of its file: that reads as zeroes, all of it.
        extent.flags |= Status.ZERO
    else:
        extent.length = found.length
        extent.flags |= found.flags & Status.ZERO


# ---------------------------------------------------------------- chains


def overlaid(node: BlockNode) -> BlockNode | None:
    """Return what `node` lets shine through: a filter's child, or a format's backing file."""
    return node.filtered if node.filtered is not None else node.backing


def skip_filters(node: BlockNode | None) -> BlockNode | None:
    """Return the first node from `node` down that is no filter."""
    while node is not None and node.is_filter and node.filtered is not None:
        node = node.filtered
    return node


def backing_chain_next(node: BlockNode) -> BlockNode | None:
    """Return the backing file below `node`, filters around it left out."""
    top = skip_filters(node)
    return skip_filters(top.backing) if top is not None else None


def chain(node: BlockNode) -> Iterator[BlockNode]:
    """Yield `node` and the backing files below it, filters left out."""
    at = skip_filters(node)
    while at is not None:
        yield at
        at = skip_filters(at.backing)


def status_above(
    top: BlockNode,
    base: BlockNode | None,
    offset: int,
    length: int,
    *,
    want_zero: bool = True,
    include_base: bool = False,
) -> Extent:
    """Return the status of the beginning of a range as it is seen at `top`, down to `base`.

    Args:
        top: where the range is.
        base: the first node that is not looked at; None looks at the whole chain.
        offset: where.
        length: bytes, above zero.
        want_zero: see `BlockNode.status`.
        include_base: look at `base` too.

    Returns:
        The extent of the first layer that decides; its `depth` counts the layers asked, `top` is 1.
        Where none does, an extent that is not `ALLOCATED`.
    """
    if top is base and not include_base:
        return Extent(length, 0, depth=0)
    extent = node_status(top, offset, length, want_zero=want_zero)
    if not extent.length or extent.flags & Status.ALLOCATED or top is base:
        return extent
    end = offset + extent.length if extent.flags & Status.EOF else 0
    length = extent.length
    depth = 1
    node = overlaid(top)
    while node is not None and (include_base or node is not base):
        extent = node_status(node, offset, length, want_zero=want_zero)
        depth += 1
        if not extent.length:
            # This layer is shorter than the one above: the zeroes past its end are its own.
            extent = Extent(length, Status.ZERO | Status.ALLOCATED, node=node)
            break
        if extent.flags & Status.ALLOCATED:
            extent.flags &= ~Status.EOF
            break
        if node is base:
            break
        length = extent.length
        node = overlaid(node)
    extent.depth = depth
    if offset + extent.length == end:
        extent.flags |= Status.EOF
    return extent


def is_allocated(node: BlockNode, offset: int, length: int) -> tuple[bool, int]:
    """Return whether the beginning of a range is decided in `node` itself, and for how many bytes.

    Filters are looked through; 0 bytes means the end.
    """
    extent = status_above(node, node, offset, length, want_zero=False, include_base=True)
    return bool(extent.flags & Status.ALLOCATED), extent.length


def is_allocated_above(
    top: BlockNode, base: BlockNode | None, offset: int, length: int, *, include_base: bool = False
) -> tuple[bool, int]:
    """Return whether the beginning of a range is decided above `base`, and for how many bytes."""
    extent = status_above(top, base, offset, length, want_zero=False, include_base=include_base)
    return bool(extent.flags & Status.ALLOCATED), extent.length


def extents(
    node: BlockNode, start: int = 0, end: int | None = None, *, base: BlockNode | None = None
) -> Iterator[tuple[int, Extent]]:
    """Yield (offset, extent) over a range of `node`, in order, as seen through its whole chain.

    Args:
        node: the top of the chain.
        start: first byte.
        end: one past the last byte; None is the node's size.
        base: stop looking above this node.
    """
    stop = node.size if end is None else min(end, node.size)
    at = start
    while at < stop:
        extent = status_above(node, base, at, stop - at)
        if not extent.length:
            return
        yield at, extent
        at += extent.length
