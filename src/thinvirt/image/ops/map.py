"""Where the bytes of an image are: extents of its chain, merged as far as they go on."""

from __future__ import annotations

from thinvirt.image.block.flags import Status
from thinvirt.image.block.names import refresh_filename
from thinvirt.image.block.status import skip_filters
from thinvirt.image.block.walk import node_runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from thinvirt.image.block.node import BlockNode

    # (start, bytes, depth, flags of `Status`, host offset, file name); see `MapEntry`
    MapRow: TypeAlias = tuple[int, int, int, int, int, str | None]

_SAYS = Status.DATA | Status.ZERO
_PLACED = Status.OFFSET_VALID
_TOLD = _SAYS | Status.ALLOCATED | _PLACED


class MapEntry:
    """A run of bytes that are all alike.

    Attributes:
        start, length: of the run, in bytes.
        depth: layers down that were asked until one knew.
        present: that layer decides, not one below it.
        zero: reads as zeroes.
        data: must be read to be known.
        offset: where it is in the file `filename`, None if there is no such place.
        filename: None where the file is not known.
    """

    __slots__ = ("data", "depth", "filename", "length", "offset", "present", "start", "zero")

    def __init__(
        self,
        start: int,
        length: int,
        depth: int,
        flags: int,
        *,
        offset: int | None = None,
        filename: str | None = None,
    ) -> None:
        self.start = start
        self.length = length
        self.depth = depth
        self.present = bool(flags & Status.ALLOCATED)
        self.zero = bool(flags & Status.ZERO)
        self.data = bool(flags & Status.DATA)
        self.offset = offset
        self.filename = filename


def map_image(node: BlockNode, start: int = 0, end: int | None = None) -> Iterator[MapEntry]:
    """Yield what is where in an image and the images below it, in order.

    Args:
        node: of the image.
        start: first byte.
        end: one past the last byte; None for all.

    Raises:
        BlockError: metadata cannot be read.
    """
    for at, length, depth, flags, host, name in map_rows(node, start, end):
        offset = host if flags & Status.OFFSET_VALID else None
        yield MapEntry(at, length, depth, flags, offset=offset, filename=name)


def map_rows(node: BlockNode, start: int = 0, end: int | None = None) -> Iterator[MapRow]:
    """Yield the same as plain tuples: an image may have millions."""
    top = skip_filters(node)
    assert top is not None
    stop = node.size if end is None else min(end, node.size)
    names: dict[int, str] = {}  # by identity: a chain has few files
    begin = start
    length = depth = flags = host = 0
    below: BlockNode | None = None
    name: str | None = None
    for run in _layer_runs(top, start, stop, 0):
        more, more_flags, more_host, more_below, more_depth = run
        if (
            more_flags == flags
            and more_below is below
            and more_depth == depth
            and (not flags & _PLACED or more_host == host + length)
        ):
            length += more
            continue
        if length:
            yield begin, length, depth, flags, host, name
            begin += length
        if more_below is not below:
            name = _name(more_below, names)
        length, flags, host, below, depth = run
    if length:
        yield begin, length, depth, flags, host, name


def _layer_runs(
    node: BlockNode, start: int, end: int, depth: int
) -> Iterator[tuple[int, int, int, BlockNode | None, int]]:
    """Ask layer by layer until one says data or zeroes."""
    below = skip_filters(node.backing)
    at = start
    for length, flags, host, where in node_runs(node, start, end):
        if flags & _SAYS:
            yield length, flags & _TOLD, host, where if flags & _PLACED else None, depth
        elif below is None:
            yield length, 0, 0, None, depth
        else:
            inside = max(min(length, below.size - at), 0)
            yield from _layer_runs(below, at, at + inside, depth + 1)
            if inside < length:  # the file below is shorter: zeroes show, which nobody holds
                yield length - inside, Status.ZERO, 0, None, depth
        at += length


def _name(node: BlockNode | None, names: dict[int, str]) -> str | None:
    if node is None:
        return None
    name = names.get(id(node))
    if name is None:
        refresh_filename(node)
        name = names[id(node)] = node.filename
    return name
