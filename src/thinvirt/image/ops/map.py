"""Where the bytes of an image are: extents of its chain, merged as far as they go on."""

from __future__ import annotations

from thinvirt.image.block.flags import Status
from thinvirt.image.block.names import refresh_filename
from thinvirt.image.block.status import skip_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from thinvirt.image.block.node import BlockNode


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

    def goes_on(self, other: MapEntry) -> bool:
        """Return whether `other`, which follows, is more of the same."""
        return (
            self.data == other.data
            and self.zero == other.zero
            and self.depth == other.depth
            and self.present == other.present
            and self.filename == other.filename
            and (self.offset is None) == (other.offset is None)
            and (self.offset is None or self.offset + self.length == other.offset)
        )


def map_image(node: BlockNode, start: int = 0, end: int | None = None) -> Iterator[MapEntry]:
    """Yield what is where in an image and the images below it, in order.

    Args:
        node: of the image.
        start: first byte.
        end: one past the last byte; None for all.

    Raises:
        BlockError: metadata cannot be read.
    """
    size = node.size if end is None else min(end, node.size)
    present: MapEntry | None = None
    at = start
    names: dict[int, str] = {}  # by identity: a map has millions of entries, a chain few files
    while at < size:
        entry = _entry(node, at, size - at, names)
        at += entry.length
        if present is None:
            present = entry
        elif present.goes_on(entry):
            present.length += entry.length
        else:
            yield present
            present = entry
    if present is not None:
        yield present


def _entry(top: BlockNode, offset: int, length: int, names: dict[int, str]) -> MapEntry:
    """Ask layer by layer until one says data or zeroes."""
    depth = 0
    node: BlockNode | None = skip_filters(top)
    while True:
        assert node is not None
        extent = node.status(offset, length)
        length = extent.length
        if extent.flags & (Status.DATA | Status.ZERO):
            break
        below = skip_filters(node.backing)
        if below is None:
            return MapEntry(offset, length, depth, 0)
        node = below
        depth += 1
    if not extent.flags & Status.OFFSET_VALID:
        return MapEntry(offset, length, depth, extent.flags)
    filename = None
    if extent.node is not None:
        filename = names.get(id(extent.node))
        if filename is None:
            refresh_filename(extent.node)
            filename = names[id(extent.node)] = extent.node.filename
    return MapEntry(
        offset, length, depth, extent.flags, offset=extent.host_offset, filename=filename
    )
