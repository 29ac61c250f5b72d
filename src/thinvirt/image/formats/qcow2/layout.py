"""The fixed header's fields, each declared once, in file order (qcow2 spec, "Header").

Plain tuples and numbers: this much is read of every image that is opened, and must import fast.
"""

from __future__ import annotations

from struct import Struct


def divide_up(number: int, divisor: int) -> int:
    """Return `number` / `divisor`, rounded up."""
    return -(-number // divisor)


def align_up(number: int, alignment: int) -> int:
    """Return the smallest multiple of `alignment` that is not below `number`."""
    return -(-number // alignment) * alignment


MAGIC = b"QFI\xfb"

V2_FIELDS = (
    ("magic", "4s"),
    ("version", "I"),
    ("backing_file_offset", "Q"),
    ("backing_file_size", "I"),
    ("cluster_bits", "I"),
    ("virtual_size", "Q"),
    ("crypt_method", "I"),
    ("l1_entries", "I"),
    ("l1_table_offset", "Q"),
    ("refcount_table_offset", "Q"),
    ("refcount_table_clusters", "I"),
    ("snapshot_count", "I"),
    ("snapshots_offset", "Q"),
)
V3_FIELDS = (
    ("incompatible_features", "Q"),
    ("compatible_features", "Q"),
    ("autoclear_features", "Q"),
    ("refcount_order", "I"),
    ("header_length", "I"),
)

V2 = Struct(">" + "".join(code for _, code in V2_FIELDS))
V3 = Struct(">" + "".join(code for _, code in V3_FIELDS))
COMPRESSION = Struct(">B7x")

V2_LENGTH = V2.size  # 72
V3_MIN_LENGTH = V2.size + V3.size  # 104
V3_LENGTH = V3_MIN_LENGTH + COMPRESSION.size  # 112, what QEMU writes since 5.1


def _offsets() -> dict[str, int]:
    at, offsets = 0, {}
    for name, code in (*V2_FIELDS, *V3_FIELDS):
        offsets[name] = at
        at += Struct(">" + code).size
    return offsets | {"compression_type": at}


FIELD_OFFSET = _offsets()  # bytes from the start of the file, for messages and for patching

INCOMPATIBLE, COMPATIBLE, AUTOCLEAR = 0, 1, 2  # the three fields of feature bits

# Feature names as every QEMU writes them, in its order, so that images compare equal byte by byte.
FEATURE_NAMES = (
    (INCOMPATIBLE, 0, "dirty bit"),
    (INCOMPATIBLE, 1, "corrupt bit"),
    (INCOMPATIBLE, 2, "external data file"),
    (INCOMPATIBLE, 3, "compression type"),
    (INCOMPATIBLE, 4, "extended L2 entries"),
    (COMPATIBLE, 0, "lazy refcounts"),
    (AUTOCLEAR, 0, "bitmaps"),
    (AUTOCLEAR, 1, "raw external data"),
)
FEATURE_ROW = Struct(">BB46s")


def pack_feature_names() -> bytes:
    """Return the feature name table's bytes."""
    return b"".join(FEATURE_ROW.pack(kind, bit, name.encode()) for kind, bit, name in FEATURE_NAMES)
