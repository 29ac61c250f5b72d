"""What the numbers in L1, L2 and refcount tables mean (qcow2 spec, "Cluster mapping").

Tables are bulk data: entries stay plain integers, and these are functions on them.
"""

from thinvirt.units import SECTOR

OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00  # host offset in an L1 entry and a standard L2 entry
COPIED = 1 << 63  # refcount is exactly one: may be written in place
COMPRESSED = 1 << 62
ZERO = 1 << 0  # reads as zeros (version 3, plain L2 entries)

L1_RESERVED = ~(OFFSET_MASK | COPIED) & (1 << 64) - 1
L2_RESERVED = ~(OFFSET_MASK | COPIED | COMPRESSED | ZERO) & (1 << 64) - 1
REFCOUNT_TABLE_RESERVED = SECTOR - 1  # the lower nine bits

SUBCLUSTERS_ALLOCATED = (1 << 32) - 1  # lower half of an extended entry's bitmap
SUBCLUSTERS_ZERO = SUBCLUSTERS_ALLOCATED << 32  # upper half


def compressed_range(entry: int, cluster_bits: int) -> tuple[int, int]:
    """Return (host offset, length in bytes) of a compressed cluster's data.

    The length is counted in whole sectors, so it may reach a little beyond the data.
    """
    offset_bits = 62 - (cluster_bits - 8)
    offset = entry & (1 << offset_bits) - 1
    sectors = (entry & COMPRESSED - 1) >> offset_bits
    return offset, (sectors + 1) * SECTOR - offset % SECTOR
