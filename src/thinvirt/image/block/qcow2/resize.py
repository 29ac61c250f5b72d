"""Change the size of the guest's disk, with preallocation; empty an image entirely."""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import BlockError, NotSupported, failed, failing_as
from thinvirt.image.block.flags import SECTOR, Preallocation, WriteFlags
from thinvirt.image.block.qcow2.core import Freed
from thinvirt.image.block.qcow2.header import CRYPT_LUKS
from thinvirt.image.block.qcow2.writing import Placement, Writer
from thinvirt.image.block.qcow2.zeroing import discard_clusters, zero_range
from thinvirt.image.formats.qcow2.entries import OFFSET_MASK
from thinvirt.image.formats.qcow2.layout import FIELD_OFFSET, align_up, divide_up
from thinvirt.image.formats.qcow2.refcounts import unpack_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.qcow2.core import Image

_LARGEST_STEP = 0x7FFFFFFF  # QEMU handles whole clusters below this at once


def resize(image: Image, size: int, *, exact: bool, preallocation: str, flags: int) -> None:
    """Change the virtual size; see `BlockNode.truncate`.

    Raises:
        BlockError: not possible, with QEMU's message.
    """
    if size % SECTOR:
        raise BlockError(f"The new size must be a multiple of {SECTOR}")
    header = image.header
    if image.snapshots and header.version < 3:
        raise NotSupported("Can't resize a v2 image which has snapshots")
    if image.bitmaps is not None:
        image.bitmaps.check_resizable()
    old = header.virtual_size
    if size < old:
        if preallocation != Preallocation.OFF:
            raise BlockError("Preallocation can't be used for shrinking an image")
        _shrink(image, old, size)
    else:
        with failing_as("Failed to grow the L1 table"):
            image.grow_l1(header.l1_entries_for(size), exact=True)
        if not flags & WriteFlags.ZERO:
            _forget_rest(image, old, size)
        if header.data_file_is_raw and preallocation == Preallocation.OFF:
            preallocation = Preallocation.METADATA
    flags = _preallocate(image, old, size, exact=exact, mode=preallocation, flags=flags)
    if flags & WriteFlags.ZERO and size > old:
        _zero_new(image, old, size)
    if preallocation != Preallocation.OFF:
        with failing_as("Failed to flush the preallocated area to disk"):
            image.write_caches()
    with failing_as("Failed to update the image size"):
        image.write_durably(FIELD_OFFSET["virtual_size"], size.to_bytes(8, "big"))
    header.virtual_size = size
    if image.bitmaps is not None:
        image.bitmaps.resized(size)


def _forget_rest(image: Image, old: int, size: int) -> None:
    """Zero what a larger disk once had in the last cluster, which a shrunken one still holds."""
    end = min(align_up(old, image.cluster_size), size)
    with failing_as("Failed to zero out the new area"):
        if old < end and any(image.read_guest(old, end - old)):
            Writer(image).write(old, bytes(end - old))


def _zero_new(image: Image, old: int, size: int) -> None:
    start = align_up(old, image.subcluster_size)
    if size > start:
        with failing_as("Failed to zero out new clusters"):
            # The last cluster may reach beyond the end: all of it is to be zero.
            zero_range(image, start, align_up(size, image.subcluster_size) - start, 0)
    if start > old:
        with failing_as("Failed to zero out the new area"):
            Writer(image).write(old, bytes(min(start, size) - old))


# ---------------------------------------------------------------- smaller


def _shrink(image: Image, old: int, size: int) -> None:
    start = align_up(size, image.cluster_size)
    with failing_as("Failed to discard cropped clusters"):
        if old > start:
            discard_clusters(image, start, old - start, Freed.ALWAYS, entirely=True)
    with failing_as("Failed to reduce the number of L2 tables"):
        _shrink_l1(image, image.header.l1_entries_for(size))
    with failing_as("Failed to discard unused refblocks"):
        image.refcounts.drop_empty_blocks()
    end = image.file.size
    with failing_as("Failed to find the last cluster"):
        last = image.refcounts.last_used(end)
    if (last + 1) * image.cluster_size < end:
        try:
            image.file.truncate((last + 1) * image.cluster_size)
        except BlockError as error:
            image.graph.warn(f"warning: Failed to truncate the tail of the image: {error.message}")


def _shrink_l1(image: Image, entries: int) -> None:
    """Free the L2 tables behind `entries`; the table itself stays as long as it is."""
    if entries >= len(image.l1):
        return
    image.l2_tables.flush()
    image.file.debug_event("l1_shrink_write_table")
    place = image.header.l1_table_offset + entries * 8
    image.file.write_zeroes(place, (len(image.l1) - entries) * 8)
    image.file.flush()
    image.file.debug_event("l1_shrink_free_l2_clusters")
    for index in range(len(image.l1) - 1, entries - 1, -1):
        offset = image.l1[index] & OFFSET_MASK
        if offset:
            image.set_l1(index, 0)
            image.refcounts.free(offset, image.cluster_size, Freed.ALWAYS)


# ---------------------------------------------------------------- preallocation


def _preallocate(image: Image, old: int, size: int, *, exact: bool, mode: str, flags: int) -> int:
    """Reserve space for what is added; return the flags still to be honoured."""
    if mode == Preallocation.OFF:
        if image.header.has_data_file:
            image.data_file.truncate(size, exact=exact)
        return flags
    if mode == Preallocation.METADATA or image.header.has_data_file:
        _map_new(image, old, size, mode)
        return flags
    return _reserve_new(image, old, size, mode, flags)


def _map_new(image: Image, old: int, size: int, mode: str) -> None:
    """Give every new cluster a place; the file is made long enough before any table names it."""
    below = Preallocation.OFF if mode == Preallocation.METADATA else mode
    at = old
    while at < size:
        step = min(size - at, _LARGEST_STEP // image.cluster_size * image.cluster_size)
        with failing_as("Allocating clusters failed"):
            host, done, placements = Writer(image).place(at, step)
        for placement in placements:
            placement.is_reserved = True
        try:
            if host + done > image.data_file.size:
                image.data_file.truncate(host + done, preallocation=below)
            with failing_as("Mapping clusters failed"):
                for placement in reversed(placements):
                    if placement.copies:
                        Writer(image).copy_edges(placement)
                Writer(image).link(placements)
        except BlockError:
            Writer(image).abort(placements)
            raise
        at += done


def _reserve_new(image: Image, old: int, size: int, mode: str, flags: int) -> int:
    """Reserve one stretch of the file for all new clusters, and map them to it."""
    unit = image.cluster_size
    end = image.file.size
    with failing_as("Failed to find the last cluster"):
        end = (image.refcounts.last_used(end) + 1) * unit
    clusters = (align_up(size, unit) - old // unit * unit) // unit
    tables = divide_up(clusters, image.l2_size) + 1
    with failing_as("Failed to resize refcount structures"):
        start = image.refcounts.make_area(end, clusters + tables, exact=True)
    with failing_as("Failed to allocate data clusters"):
        if image.refcounts.allocate_at(start, clusters) != clusters:
            raise failed(errno.EIO)
    needs_subclusters = False
    try:
        file_end = start + clusters * unit
        if flags & WriteFlags.ZERO and image.file.truncate_flags & WriteFlags.ZERO:
            image.file.truncate(file_end, preallocation=mode, flags=WriteFlags.ZERO)
            flags &= ~WriteFlags.ZERO
            needs_subclusters = True
        else:
            image.file.truncate(file_end, preallocation=mode)
    except BlockError as error:
        error.prepend("Failed to resize underlying file: ")
        image.refcounts.free(start, clusters * unit, Freed.OTHER)
        raise
    with failing_as("Failed to update L2 tables"):
        _map_reserved(image, old, start, clusters, needs_subclusters=needs_subclusters)
    return flags


def _map_reserved(
    image: Image, old: int, start: int, clusters: int, *, needs_subclusters: bool
) -> None:
    unit = image.cluster_size
    guest, host = old // unit * unit, start
    head = old - guest
    try:
        while clusters:
            index = guest >> image.cluster_bits & image.l2_size - 1
            count = min(clusters, image.l2_size - index)
            placement = Placement(guest, host, count)
            placement.copy_to, head = head, 0
            placement.tail_from = placement.tail_to = count * unit
            placement.is_reserved = not needs_subclusters
            if placement.copies:
                Writer(image).copy_edges(placement)
            Writer(image).link([placement])
            guest += count * unit
            host += count * unit
            clusters -= count
    except BlockError:
        image.refcounts.free(host, clusters * unit, Freed.OTHER)
        raise


# ---------------------------------------------------------------- emptying


def make_empty(image: Image) -> None:
    """Give up all data of this layer.

    Raises:
        BlockError: it failed; a crash meanwhile leaves the image dirty, to be repaired.
    """
    header = image.header
    l1_clusters = divide_up(len(image.l1) * 8, image.cluster_size)
    if (
        header.version >= 3
        and not image.snapshots
        and not header.bitmap_count
        and 3 + l1_clusters <= image.refcounts_per_block
        and header.crypt_method != CRYPT_LUKS
        and not header.has_data_file
    ):
        _start_over(image, l1_clusters)
        return
    step = _LARGEST_STEP // image.cluster_size * image.cluster_size
    for offset in range(0, image.size, step):
        length = min(step, image.size - offset)
        discard_clusters(image, offset, length, Freed.SNAPSHOT, entirely=True)


def _start_over(image: Image, l1_clusters: int) -> None:
    """Write the structures of an empty image over the beginning of the file."""
    header, unit = image.header, image.cluster_size
    image.l2_tables.clear()
    image.refcounts.cache.clear()
    image.mark_dirty()
    image.file.debug_event("l1_update")
    try:
        image.file.write_zeroes(header.l1_table_offset, l1_clusters * unit)
        image.l1 = unpack_table(bytes(len(image.l1) * 8))
        image.file.debug_event("empty_image_prepare")
        image.file.write_zeroes(unit, (2 + l1_clusters) * unit)
        image.file.debug_event("l1_update")
        image.file.debug_event("reftable_update")
        places = (3 * unit).to_bytes(8, "big") + unit.to_bytes(8, "big") + (1).to_bytes(4, "big")
        image.write_durably(FIELD_OFFSET["l1_table_offset"], places)
        header.l1_table_offset = 3 * unit
        header.refcount_table_offset, header.refcount_table_clusters = unit, 1
        table = unpack_table(bytes(unit))
        image.file.debug_event("refblock_alloc")
        image.write_durably(unit, (2 * unit).to_bytes(8, "big"))
        table[0] = 2 * unit
        image.refcounts.set_table(table)
        image.refcounts.free_index = image.refcounts.free_byte = 0
        image.refcounts.allocate_header(3 * unit + len(image.l1) * 8)
    except BlockError:
        image.is_dead = True  # what is in memory and what is in the file differ now
        raise
    image.mark_clean()
    image.file.truncate((3 + l1_clusters) * unit)
