"""Write what an image changed back into an image below it."""

from __future__ import annotations

from thinvirt.image.block import permissions
from thinvirt.image.block.abilities import BackingChangeable
from thinvirt.image.block.buffers import ReadBuffer
from thinvirt.image.block.errors import BlockError, with_reason
from thinvirt.image.block.flags import Permission, Role, Status, WriteFlags
from thinvirt.image.block.root import Root
from thinvirt.image.block.status import status_above
from thinvirt.image.block.walk import Ascending, runs_above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.node import BlockNode

_GRAIN = 4 << 10, 64 << 10  # bytes copied as a whole: a cluster of the base, within these
_CHUNK = 1 << 20  # bytes of data moved at a time: they stay in the processor's cache
_STEP = 10 << 20  # bytes whose status is asked for at a time


def commit_image(
    graph: BlockGraph,
    top: BlockNode,
    base: BlockNode,
    *,
    watch: Callable[[int, int], None] | None = None,
    pace: Callable[[int], None] | None = None,
) -> None:
    """Bring `base` to show what `top` shows.

    The layers above `base` stay as they are: until the end, and if this fails, `top` shows what it
    did.

    Args:
        graph: both are open in.
        top: the image.
        base: an image below it; it is opened for writing, and grows if it is smaller.
        watch: told bytes done and bytes in all; may raise to cancel.
        pace: told each number of bytes written; may wait.

    Raises:
        BlockError: `base` cannot be written, or the copy failed.
    """
    was_read_only = base.read_only
    if was_read_only:
        graph.set_read_only(base, read_only=False)
    target = _hold(graph, base, grows=base.size < top.size)
    try:
        _copy(top, target, watch or _nobody, pace)
        target.flush()
    except BlockError as error:
        raise with_reason("Block job failed", error.errno) from error
    finally:
        target.close()
        if was_read_only:
            graph.set_read_only(base, read_only=True)


def empty_image(top: BlockNode) -> None:
    """Give up what is in an image after a commit: its backing file shows the same.

    A format that cannot is left as it is.

    Raises:
        BlockError: it failed.
    """
    if not isinstance(top, BackingChangeable):
        return
    try:
        top.make_empty()
    except BlockError as error:
        raise with_reason(f"Failed to empty {top.filename}", error.errno) from error


def _hold(graph: BlockGraph, node: BlockNode, *, grows: bool) -> Root:
    """Become a user of a node that writes to it."""
    root = Root(graph, node)
    perm = Permission.WRITE | (Permission.RESIZE if grows else 0)
    shared = Permission.WRITE_UNCHANGED | Permission.CONSISTENT_READ | Permission.WRITE
    role = Role.FILTERED | Role.PRIMARY
    root.hold(permissions.attach(root, node, "target", role, perm=perm, shared=shared))
    return root


def _copy(
    top: BlockNode,
    target: Root,
    watch: Callable[[int, int], None],
    pace: Callable[[int], None] | None,
) -> None:
    size = top.size
    if size > target.size:
        target.truncate(size)
    smallest, largest = _GRAIN
    grain = min(max(target.node.cluster_size or largest, smallest), largest)
    runs = list(_changed(top, target.node, size, grain))
    total = sum(end - start for start, end in runs)
    mover = _Mover(top, target, grain)
    done = 0
    for start, end in runs:
        at = start
        while at < end:
            length = mover.move(at, end)
            if pace is not None:
                pace(length)
            at += length
            done += length
            watch(done, total)


def _changed(top: BlockNode, base: BlockNode, size: int, grain: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what any layer above `base` has, rounded to whole grains, merged."""
    start = end = 0
    for at, length, flags, _, _, _ in runs_above(top, base, 0, size, want_zero=False):
        if flags & Status.ALLOCATED:
            first = at // grain * grain
            if first > end:
                if end > start:
                    yield start, end
                start = first
            end = min(-(-(at + length) // grain) * grain, size)
    if end > start:
        yield start, end


class _Mover:
    """Brings what `top` shows into an image below it, at offsets that only grow."""

    def __init__(self, top: BlockNode, target: Root, grain: int) -> None:
        self.top = top
        self.target = target
        self.grain = grain
        self._buffer = ReadBuffer(_CHUNK)
        # Writing changes where things are, but never what the layers above show.
        alike = Status.ALLOCATED | Status.DATA | Status.ZERO
        self._above = Ascending(top, target.node, alike=alike)

    def move(self, at: int, end: int) -> int:
        """Copy, zero or discard the beginning of a range; return how many bytes."""
        flags, length = self._above.at(at)
        if not flags & Status.ALLOCATED:
            extent = status_above(self.top, None, at, min(length, end - at))
            flags, length = extent.flags, extent.length
        is_data = flags & Status.DATA
        length = min(length, end - at, _CHUNK if is_data else _STEP)
        whole = length // self.grain * self.grain
        if whole and not is_data:
            if flags & Status.ZERO:
                self.target.write_zeroes(at, whole, WriteFlags.MAY_UNMAP)
            else:
                self.target.discard(at, whole)
            return whole
        length = min(max(whole, self.grain), end - at)
        view = self._buffer.view[:length]
        self.top.read_into(at, view)
        self.target.write(at, view)
        return length


def _nobody(done: int, total: int) -> None:
    """Nobody watches."""
