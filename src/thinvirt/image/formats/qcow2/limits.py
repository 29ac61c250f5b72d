"""The largest table, name and count accepted in a qcow2 image, each with its reason.

Where QEMU has a limit, ours is the same: an image that QEMU opens is not refused for its size, and
what QEMU refuses is not written.
"""

KIB, MIB, SECTOR = 1 << 10, 1 << 20, 512

MIN_CLUSTER_BITS = 9  # one sector
MAX_CLUSTER_BITS = 21  # 2 MiB: larger ones cost more in copy-on-write than they save in tables
MIN_EXTENDED_CLUSTER_SIZE = (
    32 * SECTOR
)  # a subcluster is a 32nd of a cluster, and a sector at least

MAX_REFCOUNT_ORDER = 6  # refcounts of 64 bits

MAX_L1_BYTES = 32 * MIB  # QEMU keeps the whole table in memory
MAX_REFCOUNT_TABLE_BYTES = 8 * MIB  # likewise
MAX_VIRTUAL_SIZE = (1 << 63) - SECTOR  # offsets are signed 64-bit numbers in QEMU

MAX_BACKING_NAME = 1023  # the specification's
MAX_SNAPSHOTS = 65536
MAX_SNAPSHOT_TABLE_BYTES = 1024 * MAX_SNAPSHOTS
MAX_SNAPSHOT_EXTRA = 1024  # 24 bytes are specified; the rest is room for what may come

MAX_BITMAPS = 65535
MAX_BITMAP_DIRECTORY_BYTES = 64 * MIB  # every entry at its longest name
MAX_BITMAP_TABLE_ENTRIES = 0x8000000  # QEMU's
MIN_BITMAP_GRANULARITY_BITS, MAX_BITMAP_GRANULARITY_BITS = 9, 31
MAX_BITMAP_NAME = 1023

MAX_HEADER_READ = 2 * MIB  # the header and its extensions stay within the first cluster
MAX_CHAIN_DEPTH = 200  # no person builds one this deep; a loop of links does

DEFAULT_CLUSTER_SIZE = 64 * KIB
