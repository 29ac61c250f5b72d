"""Reading and writing of compressed clusters."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import Effort
from thinvirt.image.block.errors import BlockError, NotSupported, failed
from thinvirt.image.block.qcow2.codecs import compress, decompress
from thinvirt.image.block.qcow2.core import Freed
from thinvirt.image.block.qcow2.mapping import find_run
from thinvirt.image.formats.qcow2.entries import (
    COMPRESSED,
    OFFSET_MASK,
    Kind,
    compressed_entry,
    compressed_range,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.node import Buffer
    from thinvirt.image.block.qcow2.core import Image

_MAX_READ = 4 << 20  # host bytes read at once
_WORTH_READING = 16 << 10  # bytes between two clusters: less than another call costs
_PLAIN_FILES = frozenset({"file", "host_device"})  # several threads may read them at a time


def read_cluster(image: Image, entry: int, start: int, length: int) -> Buffer:
    """Return a part of one compressed cluster.

    Args:
        image: whose cluster it is.
        entry: its L2 entry.
        start: first byte within the cluster.
        length: bytes, all in it.

    Raises:
        BlockError: it cannot be read, or is damaged.
    """
    place, size = compressed_range(entry, image.cluster_bits)
    image.file.debug_event("read_compressed")
    packed = image.file.read(place, size)
    cluster = decompress(packed, image.cluster_size, image.header.compression_type)
    return cluster if length == len(cluster) else memoryview(cluster)[start : start + length]


def read_clusters(image: Image, offset: int, entry: int, view: memoryview) -> int:
    """Read compressed clusters that follow one another, in the threads that the graph has.

    Args:
        image: whose clusters they are.
        offset: guest offset of the first byte wanted.
        entry: the L2 entry there.
        view: where the bytes go; other clusters may be behind the compressed ones.

    Returns:
        The bytes read.

    Raises:
        BlockError: as `read_cluster`.
    """
    size = image.cluster_size
    workers = image.graph.workers
    start = offset % size
    if workers is None or start + len(view) <= size:
        length = min(size - start, len(view))
        view[:length] = read_cluster(image, entry, start, length)
        return length
    ranges = _gather(image, offset, entry, start + len(view))
    packed = _read_packed(image, ranges)
    compression_type = image.header.compression_type
    end = min(len(ranges) * size - start, len(view))

    def unpack(number: int) -> None:
        """Put one cluster where it belongs."""
        cluster = decompress(packed[number], size, compression_type)
        at = number * size - start
        if at >= 0 and at + size <= end:
            view[at : at + size] = cluster
        else:
            first, last = max(at, 0), min(at + size, end)
            view[first:last] = memoryview(cluster)[first - at : last - at]

    workers.map(unpack, range(len(ranges)))
    return end


def plan_clusters(image: Image, offset: int, length: int) -> Callable[[memoryview], None] | None:
    """Return what reads a range, in any thread; see `ReadPlanner.plan_read`.

    None where nothing in it is compressed, where there is anything but compressed clusters and
    plain data, and where the file below is no plain one.
    """
    size = image.cluster_size
    if offset % size or image.data_file.driver not in _PLAIN_FILES or image.is_encrypted:
        return None
    fills: list[Callable[[memoryview], None]] = []
    packs = 0
    at = 0
    while at < length:
        kind, run, place = find_run(image, offset + at, length - at)
        if kind == Kind.COMPRESSED:
            ranges = _gather(image, offset + at, place, length - at)
            run = min(len(ranges) * size, length - at)
            fills.append(_unpacking(image, ranges, at, at + run))
            packs += 1
        elif kind == Kind.NORMAL:
            fills.append(_reading(image, place, at, at + run))
        else:
            return None
        at += run
    if not packs:
        return None

    def fill(view: memoryview) -> None:
        """Read all of it."""
        for part in fills:
            part(view)

    return fill


def _unpacking(
    image: Image, ranges: list[tuple[int, int]], start: int, end: int
) -> Callable[[memoryview], None]:
    """Return what puts clusters into a part of a buffer."""
    size = image.cluster_size
    compression_type = image.header.compression_type

    def fill(view: memoryview) -> None:
        """Read the clusters together, and unpack one after the other."""
        at = start
        for packed in _read_packed(image, ranges):
            cluster = decompress(packed, size, compression_type)
            rest = end - at
            if rest >= size:
                view[at : at + size] = cluster
            else:
                view[at:end] = memoryview(cluster)[:rest]
            at += size

    return fill


def _reading(image: Image, place: int, start: int, end: int) -> Callable[[memoryview], None]:
    """Return what puts plain data into a part of a buffer."""
    return lambda view: image.data_file.read_into(place, view[start:end])


def _gather(image: Image, offset: int, entry: int, length: int) -> list[tuple[int, int]]:
    """Return (host offset, bytes) of compressed clusters as long as they follow one another.

    `length` bytes from the first one's start on are of interest.
    """
    size, bits = image.cluster_size, image.cluster_bits
    start = offset - offset % size
    ranges = [compressed_range(entry, bits)]
    total = ranges[0][1]
    while len(ranges) * size < length and total < _MAX_READ:
        at = start + len(ranges) * size
        kind, _, _ = find_run(image, at, size)
        if kind != Kind.COMPRESSED:
            break
        for following in _entries(image, at, length - len(ranges) * size):
            ranges.append(compressed_range(following, bits))
            total += ranges[-1][1]
            if total >= _MAX_READ:
                break
    return ranges


def count_clusters(image: Image, offset: int, length: int) -> int:
    """Return how many bytes from a cluster's start on are compressed clusters, all whole.

    It may be more than is said: only the clusters of one L2 table are looked at.

    Raises:
        BlockError: the table cannot be read, or is damaged there.
    """
    if length < image.cluster_size or find_run(image, offset, length)[0] != Kind.COMPRESSED:
        return 0
    return len(_entries(image, offset, length - length % image.cluster_size)) << image.cluster_bits


def _entries(image: Image, offset: int, length: int) -> list[int]:
    """Return the L2 entries of compressed clusters that follow one another in one table.

    Args:
        image: whose they are.
        offset: within the first of them, which is known to be compressed.
        length: bytes of interest.
    """
    l2_offset = image.l1[offset >> image.cluster_bits + image.l2_bits] & OFFSET_MASK
    values = image.l2_tables.load(l2_offset).values
    step = 2 if image.extended else 1
    first = offset >> image.cluster_bits & image.l2_size - 1
    last = min(first + (length + image.cluster_size - 1 >> image.cluster_bits), image.l2_size)
    entries = list(values[first * step : last * step : step])
    for number, entry in enumerate(entries):
        if not entry & COMPRESSED:
            return entries[:number]
    return entries


def _read_packed(image: Image, ranges: list[tuple[int, int]]) -> list[Buffer]:
    """Return the content of host ranges; those that lie close together are read together.

    Writers of several threads (`qemu-img convert -W`) leave clusters that are neighbours in the
    guest a little apart.
    """
    packed: list[Buffer] = [b""] * len(ranges)
    order = sorted(range(len(ranges)), key=ranges.__getitem__)
    gap = min(_WORTH_READING, image.cluster_size)  # so that memory stays in proportion
    first = 0
    while first < len(order):
        start, size = ranges[order[first]]
        end = start + size
        last = first + 1
        while last < len(order) and ranges[order[last]][0] <= end + gap:
            end = max(end, sum(ranges[order[last]]))
            last += 1
        for _ in range(first, last):
            image.file.debug_event("read_compressed")
        data = memoryview(image.file.read(start, end - start))
        for number in order[first:last]:
            place, size = ranges[number]
            packed[number] = data[place - start : place - start + size]
        first = last
    return packed


# -------------------------------------------------------------------- writing


def write_clusters(image: Image, offset: int, data: Buffer) -> None:
    """Store whole clusters, the last of the image excepted, compressed.

    Nothing at all rounds the end of the file up to a sector.

    Raises:
        BlockError: it failed, or a cluster holds data already (``errno.EIO``).
    """
    _check(image, offset, len(data))
    if not data:
        _round_up(image)
    size = image.cluster_size
    view = memoryview(data)
    for at in range(0, len(data), size):
        cluster = view[at : at + size]
        store(image, offset + at, cluster, pack(image, cluster, Effort.FAST))


def write_packed(image: Image, offset: int, data: Buffer, packed: bytes | None) -> None:
    """Store one cluster that `pack` made smaller, or as it is; see `write_clusters`."""
    _check(image, offset, len(data))
    store(image, offset, data, packed)


def _check(image: Image, offset: int, length: int) -> None:
    if image.header.has_data_file:
        raise NotSupported
    size = image.cluster_size
    end = offset + length
    if offset % size or (end % size and end != image.size):
        raise failed(errno.EINVAL, offset=offset)


def _round_up(image: Image) -> None:
    try:
        image.file.truncate(image.file.size)  # which is whole sectors, while a file may end within
    except NotSupported:
        return  # a device ends where it ends


def pack(image: Image, data: Buffer, effort: str) -> bytes | None:
    """Return a cluster's data compressed, None if that saves nothing; may run in any thread."""
    size = image.cluster_size
    whole: Buffer = data if len(data) == size else bytes(data).ljust(size, b"\0")
    return compress(whole, image.header.compression_type, effort)


def store(image: Image, offset: int, data: Buffer, packed: bytes | None) -> None:
    """Store what `pack` made of a cluster; None stores `data` plainly."""
    if packed is None:
        image.writer.write(offset, data)
        return
    table, index = image.table_for(offset)
    step = 2 if image.extended else 1
    if table.values[index * step] & OFFSET_MASK:
        raise failed(errno.EIO, offset=offset)
    place = image.refcounts.allocate_bytes(len(packed))
    image.file.debug_event("l2_update_compressed")
    try:
        image.guard.check_data(place, len(packed))
        image.file.debug_event("write_compressed")
        image.file.write(place, packed)
    except BlockError:
        if not image.is_dead:
            image.refcounts.free(place, len(packed), Freed.NEVER)
        raise
    table, index = image.table_for(offset)
    table.values[index * step] = compressed_entry(place, len(packed), image.cluster_bits)
    if image.extended:
        table.values[index * step + 1] = 0
    table.touch(index * step, step)
