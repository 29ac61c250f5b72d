"""From guest offsets to what is there: runs of clusters or subclusters of one kind."""

from __future__ import annotations

from thinvirt.image.formats.qcow2.entries import (
    COMPRESSED,
    OFFSET_MASK,
    SUBCLUSTERS,
    ZERO,
    Kind,
    cluster_kind,
    subcluster_run,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from thinvirt.image.block.qcow2.core import Image, TableLike

    # (kind, length in bytes, host offset; the L2 entry itself for a compressed cluster)
    Run: TypeAlias = tuple[int, int, int]

_SAME = OFFSET_MASK | ZERO | COMPRESSED  # what makes two standard entries alike


def find_run(image: Image, offset: int, length: int) -> Run:
    """Return the run that begins at a guest offset, at most `length` bytes long.

    Raises:
        BlockError: the tables cannot be read, or are damaged there.
    """
    bits = image.cluster_bits
    in_cluster = offset & image.cluster_size - 1
    index = offset >> bits & image.l2_size - 1
    length = min(length, (image.l2_size - index << bits) - in_cluster)
    l1_index = offset >> bits + image.l2_bits
    l2_offset = image.l1[l1_index] & OFFSET_MASK if l1_index < len(image.l1) else 0
    if not l2_offset:
        return Kind.UNALLOCATED, length, 0
    if l2_offset & image.cluster_size - 1:
        raise image.guard.damaged(
            f"L2 table offset {l2_offset:#x} unaligned (L1 index: {_hex(l1_index)})"
        )
    table = image.l2_tables.load(l2_offset)
    clusters = (in_cluster + length + image.cluster_size - 1) >> bits
    if image.extended:
        kind, host, found = _extended_run(image, table, index, in_cluster, clusters)
    else:
        kind, host, found = _standard_run(image, table, index, clusters)
    if kind == Kind.INVALID:
        raise image.guard.damaged(
            f"Invalid cluster entry found  (L2 offset: {l2_offset:#x}, L2 index: {_hex(found)})"
        )
    is_placed = kind in Kind.PLACED
    header = image.header
    if header.version < 3 or header.has_data_file or (is_placed and host & image.cluster_size - 1):
        place = f"(L2 offset: {l2_offset:#x}, L2 index: {_hex(index)})"
        _check(image, kind, host, place, offset)
    if is_placed:
        host += in_cluster
    return kind, min(length, found - in_cluster), host


def _check(image: Image, kind: int, host: int, place: str, offset: int) -> None:
    """Refuse what the version, the data file or the alignment forbid."""
    header = image.header
    if header.version < 3 and kind in (Kind.ZERO_PLAIN, Kind.ZERO_RESERVED):
        raise image.guard.damaged(f"Zero cluster entry found in pre-v3 image {place}")
    if kind == Kind.COMPRESSED and header.has_data_file:
        raise image.guard.damaged(
            f"Compressed cluster entry found in image with external data file {place}"
        )
    if kind in Kind.PLACED:
        if host & image.cluster_size - 1:
            raise image.guard.damaged(f"Cluster allocation offset {host:#x} unaligned {place}")
        start = offset & -image.cluster_size
        if header.has_data_file and host != start:
            raise image.guard.damaged(
                f"External data file host cluster offset {_hex(host)} does not match guest "
                f"cluster offset: {_hex(start)}, {place.partition(', ')[2]}"
            )


def _standard_run(
    image: Image, table: TableLike, index: int, clusters: int
) -> tuple[int, int, int]:
    """Return (kind, host offset or entry, bytes from the cluster's start)."""
    entries = table.values
    entry = entries[index]
    size = image.cluster_size
    has_data_file = image.header.has_data_file
    kind = cluster_kind(entry, data_file=has_data_file)
    if kind == Kind.COMPRESSED:
        return kind, entry, size
    host = entry & OFFSET_MASK
    end = index + clusters
    at = index + 1
    if has_data_file:
        # Offset 0 may be a place: the flags decide.
        while at < end and cluster_kind(entries[at], data_file=True) == kind:
            if kind in Kind.PLACED and entries[at] & OFFSET_MASK != host + (at - index) * size:
                break
            at += 1
    else:
        step = size if kind in Kind.PLACED else 0
        expected = (entry & _SAME) + step
        while at < end and entries[at] & _SAME == expected:
            expected += step
            at += 1
    return kind, host, (at - index) * size


def _extended_run(
    image: Image, table: TableLike, index: int, in_cluster: int, clusters: int
) -> tuple[int, int, int]:
    """Return (kind, host offset or entry, bytes from the cluster's start).

    For an invalid entry the last is its index instead.
    """
    values = table.values
    has_data_file = image.header.has_data_file
    first = in_cluster >> image.subcluster_bits
    entry = values[2 * index]
    cluster = cluster_kind(entry, extended=True, data_file=has_data_file)
    kind, count = subcluster_run(cluster, values[2 * index + 1], first)
    if kind == Kind.INVALID:
        return kind, 0, index
    if kind == Kind.COMPRESSED:
        return kind, entry, image.cluster_size
    host = entry & OFFSET_MASK
    count += first
    at = 1
    while count == at * SUBCLUSTERS and at < clusters:
        entry = values[2 * (index + at)]
        cluster = cluster_kind(entry, extended=True, data_file=has_data_file)
        other, more = subcluster_run(cluster, values[2 * (index + at) + 1], 0)
        if other == Kind.INVALID:
            return other, 0, index + at
        if other != kind:
            break
        if kind in Kind.PLACED and entry & OFFSET_MASK != host + (at << image.cluster_bits):
            break
        count += more
        at += 1
    return kind, host, count << image.subcluster_bits


def _hex(number: int) -> str:
    from thinvirt.image.block.qcow2.guard import c_hex  # only where something is damaged

    return c_hex(number)
