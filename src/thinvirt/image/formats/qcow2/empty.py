"""The bytes of a new, empty image, laid out as QEMU lays it out.

Header in the first cluster, then the refcount table, the refcount blocks, and the L1 table. The L1
table of an empty image is all zeros, so the file is only made long enough for it: a hole.
"""

from dataclasses import dataclass, replace

from thinvirt.errors import UsageError
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.extensions import (
    ExtensionKind,
    HeaderExtension,
    pack_extensions,
)
from thinvirt.image.formats.qcow2.features import Incompatible, pack_names
from thinvirt.image.formats.qcow2.geometry import (
    L1_ENTRY,
    REFCOUNT_TABLE_ENTRY,
    Geometry,
    align_up,
    divide_up,
)
from thinvirt.image.formats.qcow2.header import Header
from thinvirt.units import SECTOR, format_size

_NO_FEATURE_NAMES = 4096  # up to this cluster size QEMU leaves the room to the backing name
_REFCOUNT_ONE = (1).to_bytes(2, "big")  # of the default width, 16 bits


@dataclass(frozen=True, slots=True)
class EmptyImage:
    """What to write where; everything else up to `length` is a hole."""

    writes: tuple[tuple[int, bytes], ...]  # (offset, bytes)
    length: int


def empty_image(
    *, virtual_size: int, geometry: Geometry, backing_name: bytes = b"", backing_format: str = ""
) -> EmptyImage:
    """Return the file of a new image that holds no data of its own.

    Args:
        virtual_size: bytes of the guest's disk, rounded up to whole sectors as QEMU does.
        geometry: cluster size and kind of L2 entries.
        backing_name: the backing file as it is stored in the image; empty for none.
        backing_format: its format, recorded so that nobody has to guess it.

    Raises:
        UsageError: the disk needs a larger L1 table than QEMU opens, or the name is too long.
    """
    virtual_size = align_up(virtual_size, SECTOR)
    l1_entries = geometry.l1_entries(virtual_size)
    if l1_entries * L1_ENTRY > limits.MAX_L1_BYTES:
        largest = limits.MAX_L1_BYTES // L1_ENTRY * geometry.bytes_per_l2
        raise UsageError(
            f"a disk of {format_size(virtual_size)} is too large for clusters of "
            f"{format_size(geometry.cluster_size)}: the largest is {format_size(largest)}",
            hint="take larger clusters",
        )
    size = geometry.cluster_size
    l1_clusters = geometry.clusters(l1_entries * L1_ENTRY)
    table_clusters, blocks = _refcount_clusters(geometry, l1_clusters)
    blocks_at = size * (1 + table_clusters)
    l1_at = blocks_at + size * blocks
    header = Header(
        cluster_bits=geometry.cluster_bits,
        virtual_size=virtual_size,
        l1_entries=l1_entries,
        l1_table_offset=l1_at,
        refcount_table_offset=size,
        refcount_table_clusters=table_clusters,
        incompatible_features=Incompatible.EXTENDED_L2 if geometry.extended_l2 else 0,
    )
    offsets = (blocks_at + size * block for block in range(blocks))
    writes = (
        (0, _first_cluster(header, backing_name, backing_format)),
        (size, b"".join(offset.to_bytes(REFCOUNT_TABLE_ENTRY, "big") for offset in offsets)),
        (blocks_at, _REFCOUNT_ONE * (1 + table_clusters + blocks + l1_clusters)),
    )
    return EmptyImage(writes, l1_at + l1_entries * L1_ENTRY)


def _refcount_clusters(geometry: Geometry, l1_clusters: int) -> tuple[int, int]:
    """Return how many clusters refcount table and blocks take, counting themselves."""
    table, blocks = 1, 1
    while True:
        total = 1 + table + blocks + l1_clusters
        needed_blocks = divide_up(total, geometry.refcounts_per_block)
        needed_table = geometry.clusters(needed_blocks * REFCOUNT_TABLE_ENTRY)
        if (needed_table, needed_blocks) == (table, blocks):
            return table, blocks
        table, blocks = needed_table, needed_blocks


def _first_cluster(header: Header, backing_name: bytes, backing_format: str) -> bytes:
    """Return header, extensions and backing name."""
    extensions = []
    if backing_format:
        extensions.append(HeaderExtension(ExtensionKind.BACKING_FORMAT, backing_format.encode()))
    if header.geometry.cluster_size > _NO_FEATURE_NAMES:
        extensions.append(HeaderExtension(ExtensionKind.FEATURE_NAMES, pack_names()))
    area = pack_extensions(extensions)
    name_at = header.header_length + len(area)
    if name_at + len(backing_name) > header.geometry.cluster_size:
        raise UsageError(
            f"a backing file name of {len(backing_name)} bytes does not fit into the first cluster "
            f"of {header.geometry.cluster_size} bytes",
            hint="take a shorter name or larger clusters",
        )
    if backing_name:
        header = replace(header, backing_file_offset=name_at, backing_file_size=len(backing_name))
    return header.pack() + area + backing_name
