"""What the numbers in L1, L2 and refcount tables mean (qcow2 spec, "Cluster mapping").

Tables are bulk data: entries stay plain integers, and these are functions on them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00  # host offset in an L1 entry and a standard L2 entry
COPIED = 1 << 63  # refcount is exactly one: may be written in place
COMPRESSED = 1 << 62
ZERO = 1 << 0  # reads as zeros (version 3, plain L2 entries)

L1_RESERVED = ~(OFFSET_MASK | COPIED) & (1 << 64) - 1
L2_RESERVED = ~(OFFSET_MASK | COPIED | COMPRESSED | ZERO) & (1 << 64) - 1
REFCOUNT_TABLE_RESERVED = 511  # the lower nine bits
REFCOUNT_TABLE_OFFSET = ~REFCOUNT_TABLE_RESERVED & (1 << 64) - 1

SUBCLUSTERS = 32  # per cluster of an image with extended L2 entries
SUBCLUSTERS_ALLOCATED = (1 << 32) - 1  # lower half of an extended entry's bitmap
SUBCLUSTERS_ZERO = SUBCLUSTERS_ALLOCATED << 32  # upper half

_COMPRESSED_UNIT = 512  # compressed lengths are counted in these


class Kind:
    """What a cluster or subcluster is. "Plain" ones have no host cluster, "reserved" ones have."""

    UNALLOCATED: Final = 0  # the backing file decides
    UNALLOCATED_RESERVED: Final = 1  # so too, although the cluster around it has a place
    ZERO_PLAIN: Final = 2
    ZERO_RESERVED: Final = 3
    NORMAL: Final = 4
    COMPRESSED: Final = 5
    INVALID: Final = 6  # bits that contradict each other

    PLACED: Final = frozenset({1, 3, 4})  # has a host cluster of its own


def cluster_kind(entry: int, *, extended: bool = False, data_file: bool = False) -> int:
    """Return the `Kind` of a whole cluster: never one that only a subcluster can be.

    Args:
        entry: the (first half of the) L2 entry.
        extended: whether the image has subclusters; zeroes are in their bitmap then.
        data_file: whether guest data lies in a file of its own, where offset 0 is a place too.
    """
    if entry & COMPRESSED:
        return Kind.COMPRESSED
    if entry & OFFSET_MASK:
        return Kind.ZERO_RESERVED if entry & ZERO and not extended else Kind.NORMAL
    if entry & ZERO and not extended:
        return Kind.ZERO_PLAIN
    return Kind.NORMAL if data_file and entry & COPIED else Kind.UNALLOCATED


def subcluster_kind(cluster: int, bitmap: int, index: int) -> int:
    """Return the `Kind` of a subcluster of a cluster of kind `cluster`."""
    if cluster == Kind.COMPRESSED:
        return cluster
    allocated, zero = bitmap >> index & 1, bitmap >> index + 32 & 1
    if cluster == Kind.NORMAL:
        if bitmap & bitmap >> 32:
            return Kind.INVALID
        if zero:
            return Kind.ZERO_RESERVED
        return Kind.NORMAL if allocated else Kind.UNALLOCATED_RESERVED
    if bitmap & SUBCLUSTERS_ALLOCATED:
        return Kind.INVALID
    return Kind.ZERO_PLAIN if zero else Kind.UNALLOCATED


def subcluster_run(cluster: int, bitmap: int, index: int) -> tuple[int, int]:
    """Return the kind of a subcluster, and how many from there on are of it."""
    kind = subcluster_kind(cluster, bitmap, index)
    if kind in (Kind.COMPRESSED, Kind.INVALID):
        return kind, SUBCLUSTERS - index
    if kind == Kind.NORMAL:
        differing = ~bitmap
    elif kind in (Kind.ZERO_PLAIN, Kind.ZERO_RESERVED):
        differing = ~(bitmap >> 32)
    else:
        differing = bitmap | bitmap >> 32
    differing = (differing & SUBCLUSTERS_ALLOCATED) >> index
    end = (differing & -differing).bit_length() - 1 if differing else SUBCLUSTERS - index
    return kind, end


def subcluster_mask(first: int, end: int) -> int:
    """Return the bits of subclusters `first` to before `end`, in the lower half of a bitmap."""
    return (1 << end) - (1 << first)


def compressed_range(entry: int, cluster_bits: int) -> tuple[int, int]:
    """Return (host offset, length in bytes) of a compressed cluster's data.

    The length is counted in whole sectors, so it may reach a little beyond the data.
    """
    offset_bits = 62 - (cluster_bits - 8)
    offset = entry & (1 << offset_bits) - 1
    sectors = (entry & COMPRESSED - 1) >> offset_bits
    return offset, (sectors + 1) * _COMPRESSED_UNIT - offset % _COMPRESSED_UNIT


def compressed_entry(offset: int, length: int, cluster_bits: int) -> int:
    """Return the L2 entry of compressed data at a host offset."""
    sectors = (offset + length - 1) // _COMPRESSED_UNIT - offset // _COMPRESSED_UNIT
    return offset | COMPRESSED | sectors << 62 - (cluster_bits - 8)
