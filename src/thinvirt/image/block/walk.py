"""Whole images, run after run: what `status` tells of a range, for operations that want all of it.

The answers are those of `status`, one after the other; only where a run ends may differ. Runs are
plain tuples: an image has millions.
"""

from __future__ import annotations

from thinvirt.image.block.abilities import StatusRuns
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Status
from thinvirt.image.block.status import node_status, overlaid

_ENOUGH = 4 << 20  # bytes: runs are not put together to longer ones

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from thinvirt.image.block.abilities import StatusRun
    from thinvirt.image.block.node import BlockNode

    # (offset, bytes, flags of `Status` but for EOF, host offset, node of the host offset, depth)
    ChainRun: TypeAlias = tuple[int, int, int, int, BlockNode | None, int]


def node_runs(
    node: BlockNode, start: int, end: int, *, want_zero: bool = True
) -> Iterator[StatusRun]:
    """Return the status of a range in one node, in order; it stops where the node ends.

    Args:
        node: filters are asked as they are.
        start: first byte.
        end: one past the last byte.
        want_zero: see `BlockNode.status`.

    Raises:
        BlockError: as `BlockNode.status`; also while it is iterated.
    """
    end = min(end, node.size)
    if start < end and isinstance(node, StatusRuns):
        runs = node.status_runs(start, end, want_zero=want_zero)
        if runs is not None:
            return runs
    return _asked(node, start, end, want_zero=want_zero)


def _asked(node: BlockNode, start: int, end: int, *, want_zero: bool) -> Iterator[StatusRun]:
    at = start
    while at < end:
        extent = node_status(node, at, end - at, want_zero=want_zero)
        if not extent.length:
            return
        yield extent.length, extent.flags & ~Status.EOF, extent.host_offset, extent.node
        at += extent.length


def runs_above(
    top: BlockNode,
    base: BlockNode | None,
    start: int,
    end: int,
    *,
    want_zero: bool = True,
) -> Iterator[ChainRun]:
    """Return the status of a range as it is seen at `top`; see `status.status_above`.

    Args:
        top: the range is within it.
        base: the first node that is not looked at; None looks at the whole chain.
        start: first byte.
        end: one past the last byte.
        want_zero: see `BlockNode.status`.

    Raises:
        BlockError: as `BlockNode.status`.
    """
    if top is base:
        return iter([(start, end - start, 0, 0, None, 0)])
    return _layer((top, base), start, min(end, top.size), 1, want_zero=want_zero)


def _layer(
    part: tuple[BlockNode, BlockNode | None], start: int, end: int, depth: int, *, want_zero: bool
) -> Iterator[ChainRun]:
    """Look at the part of a chain that begins at one node and ends before another."""
    node, base = part
    below = overlaid(node)
    if below is base:
        below = None
    at = start
    for length, flags, host, where in node_runs(node, start, end, want_zero=want_zero):
        if flags & Status.ALLOCATED or below is None:
            yield at, length, flags, host, where, depth
        else:
            yield from _layer((below, base), at, at + length, depth + 1, want_zero=want_zero)
        at += length
    if at < end:
        # This layer is shorter than the one above: the zeroes past its end are its own.
        yield at, end - at, Status.ZERO | Status.ALLOCATED, 0, node, depth


class Ascending:
    """The status of a chain at offsets that only grow; see `runs_above`.

    What is written to the image meanwhile, behind the last offset asked for, does not matter.

    Args:
        top: the image.
        base: the first node that is not looked at; None looks at the whole chain.
        want_zero: see `BlockNode.status`.
        alike: flags of `Status` that matter to the caller; runs that differ in others, or that only
            lie elsewhere, are put together.
    """

    def __init__(
        self,
        top: BlockNode,
        base: BlockNode | None = None,
        *,
        want_zero: bool = True,
        alike: int,
    ) -> None:
        self._runs = runs_above(top, base, 0, top.size, want_zero=want_zero)
        self._alike = alike
        self._end = self._flags = 0
        self._next: ChainRun | None = None
        self._error: BlockError | None = None

    def at(self, offset: int) -> tuple[int, int]:
        """Return those flags of a byte of the image, and how many bytes from there on have them.

        Raises:
            BlockError: as `BlockNode.status`.
        """
        while offset >= self._end:
            self._advance()
        return self._flags, self._end - offset

    def _advance(self) -> None:
        if self._error is not None:
            raise self._error
        start, length, flags, _, _, _ = self._next or next(self._runs)
        self._next = None
        self._flags = flags & self._alike
        end, enough = start + length, start + _ENOUGH
        while end < enough:
            try:
                run = next(self._runs, None)
            except BlockError as error:
                self._error = error  # what comes before it is whole
                break
            if run is None:
                break
            if run[2] & self._alike != self._flags:
                self._next = run
                break
            end += run[1]
        self._end = end
