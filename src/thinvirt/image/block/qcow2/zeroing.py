"""Discards and zeroes: changes of the tables alone, wherever that is possible."""

from __future__ import annotations

from thinvirt.image.block.errors import NotSupported
from thinvirt.image.block.flags import WriteFlags
from thinvirt.image.block.qcow2.core import Freed
from thinvirt.image.block.qcow2.mapping import find_run
from thinvirt.image.block.status import status_above
from thinvirt.image.formats.qcow2.entries import (
    SUBCLUSTERS_ZERO,
    ZERO,
    Kind,
    cluster_kind,
    subcluster_mask,
)
from thinvirt.image.formats.qcow2.layout import align_up, divide_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.qcow2.core import Image

_EMPTY_KINDS = (
    Kind.UNALLOCATED,
    Kind.UNALLOCATED_RESERVED,
    Kind.ZERO_PLAIN,
    Kind.ZERO_RESERVED,
)


class Gathering:
    """Freed clusters are told to the file below when all is done, or not at all."""

    def __init__(self, image: Image) -> None:
        self.refcounts = image.refcounts

    def __enter__(self) -> None:
        self.refcounts.gathers_discards = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.refcounts.gathers_discards = False
        if kind is None:
            self.refcounts.pass_on_discards()
        else:
            self.refcounts.drop_discards()


def discard_clusters(
    image: Image, offset: int, length: int, freed: int, *, entirely: bool = False
) -> None:
    """Give up guest clusters.

    Args:
        image: the image.
        offset: guest offset, whole clusters.
        length: bytes, whole clusters or up to the end.
        freed: of `Freed`.
        entirely: let the backing file show; else they read as zeroes from now on.

    Raises:
        BlockError: the tables cannot be read or made.
    """
    with Gathering(image):
        left = divide_up(length, image.cluster_size)
        while left > 0:
            done = _discard_in_table(image, offset, left, freed, entirely=entirely)
            left -= done
            offset += done * image.cluster_size


def _discard_in_table(
    image: Image, offset: int, clusters: int, freed: int, *, entirely: bool
) -> int:
    table, index = image.table_for(offset)
    clusters = min(clusters, image.l2_size - index)
    values, step = table.values, 2 if image.extended else 1
    has_data_file = image.header.has_data_file
    for at in range(index * step, (index + clusters) * step, step):
        entry = new = values[at]
        bitmap = new_bitmap = values[at + 1] if image.extended else 0
        kind = cluster_kind(entry, extended=image.extended, data_file=has_data_file)
        allocated = kind in Kind.PLACED or kind == Kind.COMPRESSED
        if entirely:
            new = new_bitmap = 0
        elif image.backing is not None or allocated:
            if image.extended:
                new, new_bitmap = 0, SUBCLUSTERS_ZERO
            else:
                new = ZERO if image.header.version >= 3 else 0
        if (entry, bitmap) == (new, new_bitmap):
            continue
        values[at] = new
        if image.extended:
            values[at + 1] = new_bitmap
        table.touch(at, step)
        image.refcounts.free_entry(entry, freed)
    return clusters


def write_zeroes(image: Image, offset: int, length: int, flags: int) -> None:
    """Make a guest range read as zeroes without writing any.

    Raises:
        NotSupported: ends of it share a subcluster with data, or the version has no zero clusters.
        BlockError: the tables cannot be read or made.
    """
    unit = image.subcluster_size
    head = offset % unit
    end = offset + length
    tail = 0 if end == image.size else -end % unit
    if head or tail:
        if not (_is_zero(image, offset - head, head) and _is_zero(image, end, tail)):
            raise NotSupported
        offset -= head
        length = unit
        kind, _, _ = find_run(image, offset, unit)
        if kind not in _EMPTY_KINDS:
            raise NotSupported
    zero_range(image, offset, length, flags)


def _is_zero(image: Image, offset: int, length: int) -> bool:
    """Whether a range reads as zeroes, as far as can be told from the chain's tables."""
    end = min(offset + length, image.size)
    while offset < end:
        extent = status_above(image, None, offset, end - offset)
        if not extent.is_zero or not extent.length:
            return False
        offset += extent.length
    return True


def zero_range(image: Image, offset: int, length: int, flags: int) -> None:
    """Make whole subclusters read as zeroes; see `write_zeroes`."""
    header = image.header
    if header.data_file_is_raw:
        image.data_file.write_zeroes(offset, length, flags)
    if header.version < 3:
        if image.backing is not None:
            raise NotSupported
        discard_clusters(image, offset, length, Freed.REQUEST)
        return
    size = image.cluster_size
    end = offset + length
    first = min(end, align_up(offset, size))
    last = end if end >= image.size else max(first, end // size * size)
    with Gathering(image):
        if offset < first:
            _zero_subclusters(image, offset, first)
        at, left = first, divide_up(last - first, size)
        while left > 0:
            done = _zero_in_table(image, at, left, flags)
            left -= done
            at += done * size
        if last < end:
            _zero_subclusters(image, last, end)


def _zero_in_table(image: Image, offset: int, clusters: int, flags: int) -> int:
    table, index = image.table_for(offset)
    clusters = min(clusters, image.l2_size - index)
    values, step = table.values, 2 if image.extended else 1
    has_data_file = image.header.has_data_file
    for at in range(index * step, (index + clusters) * step, step):
        entry = values[at]
        bitmap = values[at + 1] if image.extended else 0
        kind = cluster_kind(entry, extended=image.extended, data_file=has_data_file)
        unmap = kind == Kind.COMPRESSED or bool(
            flags & WriteFlags.MAY_UNMAP and kind in Kind.PLACED
        )
        new = 0 if unmap else entry
        if not image.extended:
            new |= ZERO
        new_bitmap = SUBCLUSTERS_ZERO if image.extended else 0
        if (entry, bitmap) == (new, new_bitmap):
            continue
        values[at] = new
        if image.extended:
            values[at + 1] = new_bitmap
        table.touch(at, step)
        if unmap:
            image.refcounts.free_entry(entry, Freed.REQUEST)
    return clusters


def _zero_subclusters(image: Image, offset: int, end: int) -> None:
    """Zero some subclusters of one cluster."""
    table, index = image.table_for(offset)
    entry, bitmap = table.values[2 * index], table.values[2 * index + 1]
    kind = cluster_kind(entry, extended=True, data_file=image.header.has_data_file)
    if kind == Kind.COMPRESSED:
        raise NotSupported
    first = offset % image.cluster_size >> image.subcluster_bits
    mask = subcluster_mask(first, first + divide_up(end - offset, image.subcluster_size))
    new = (bitmap | mask << 32) & ~mask
    if new != bitmap:
        table.values[2 * index + 1] = new
        table.touch(2 * index + 1)
