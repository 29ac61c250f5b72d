"""Can this metadata be? Every count, offset and length is hostile until checked here.

Pure: what only the file can tell (what the tables contain) is for those who read it.
"""

from dataclasses import dataclass

from thinvirt.errors import CorruptImage, UnsupportedFeature
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.bitmaps import BitmapEntry, BitmapsExtension
from thinvirt.image.formats.qcow2.features import Incompatible, unknown_incompatible
from thinvirt.image.formats.qcow2.geometry import L1_ENTRY
from thinvirt.image.formats.qcow2.header import FIELD_OFFSET, V3_MIN_LENGTH, Header
from thinvirt.image.formats.qcow2.snapshots import SnapshotHeader
from thinvirt.units import format_size

CRYPT_NONE, CRYPT_AES, CRYPT_LUKS = 0, 1, 2
COMPRESSION_DEFLATE, COMPRESSION_ZSTD = 0, 1


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """A piece of the file that holds one metadata structure."""

    start: int
    end: int
    name: str
    said_at: int  # where in the file its place is written, for messages


def check_cluster_bits(header: Header) -> None:
    """Refuse a cluster size out of range; nothing can be computed from the header before.

    Raises:
        CorruptImage: it is.
    """
    if not limits.MIN_CLUSTER_BITS <= header.cluster_bits <= limits.MAX_CLUSTER_BITS:
        raise CorruptImage(
            f"clusters of 2^{header.cluster_bits} bytes are impossible: the specification has 2^"
            f"{limits.MIN_CLUSTER_BITS} to 2^{limits.MAX_CLUSTER_BITS}",
            offset=FIELD_OFFSET["cluster_bits"],
        )
    if header.header_length > header.geometry.cluster_size:
        raise CorruptImage(
            f"the header of {header.header_length} bytes is longer than a cluster",
            offset=FIELD_OFFSET["header_length"],
        )


def check_features(header: Header, *, name_table: bytes, has_encryption_header: bool) -> None:
    """Refuse what is not known here, what marks the image as damaged, and what contradicts itself.

    Args:
        header: with a checked cluster size.
        name_table: the image's own feature name table, empty if it has none.
        has_encryption_header: whether the image has that extension.

    Raises:
        UnsupportedFeature: an incompatible feature that is not known, named by the image's table.
        CorruptImage: marked corrupt, or fields that exclude each other.
    """
    bits = header.incompatible_features
    unknown = unknown_incompatible(bits, name_table)
    if unknown:
        raise UnsupportedFeature(
            f"the image needs features that are not known here: {', '.join(unknown)}",
            offset=FIELD_OFFSET["incompatible_features"],
            hint="convert it with the program that wrote it, to a qcow2 without them",
        )
    if bits & Incompatible.CORRUPT:
        raise CorruptImage(
            "the image is marked corrupt by the program that last wrote to it",
            offset=FIELD_OFFSET["incompatible_features"],
            hint="work on a copy: qemu-img check -r all FILE",
        )
    if header.crypt_method > CRYPT_LUKS:
        raise CorruptImage(
            f"encryption method {header.crypt_method} does not exist",
            offset=FIELD_OFFSET["crypt_method"],
        )
    if has_encryption_header and header.crypt_method != CRYPT_LUKS:
        raise CorruptImage(
            "an encryption header stands in an image that is not LUKS-encrypted",
            offset=FIELD_OFFSET["crypt_method"],
        )
    if header.refcount_order > limits.MAX_REFCOUNT_ORDER:
        raise CorruptImage(
            f"refcounts of 2^{header.refcount_order} bits are impossible: 64 is the most",
            offset=FIELD_OFFSET["refcount_order"],
        )
    _check_compression(header)
    if header.extended_l2 and header.geometry.cluster_size < limits.MIN_EXTENDED_CLUSTER_SIZE:
        raise CorruptImage(
            f"clusters of {header.geometry.cluster_size} bytes are too small for subclusters",
            offset=FIELD_OFFSET["cluster_bits"],
        )


def _check_compression(header: Header) -> None:
    other = bool(header.incompatible_features & Incompatible.COMPRESSION_TYPE)
    if other != (header.compression_type != COMPRESSION_DEFLATE):
        raise CorruptImage(
            f"compression type {header.compression_type} contradicts the feature bits",
            offset=V3_MIN_LENGTH,
        )
    if header.compression_type > COMPRESSION_ZSTD:
        raise UnsupportedFeature(
            f"compression type {header.compression_type} is not known; deflate and zstd are",
            offset=V3_MIN_LENGTH,
        )


def check_tables(header: Header, file_size: int) -> list[Region]:
    """Refuse tables that are too large, unaligned, outside the file, or on top of each other.

    Returns:
        Where the tables lie that the header names, the header's own cluster first.

    Raises:
        CorruptImage: they cannot lie there.
    """
    size = header.geometry.cluster_size
    regions = [Region(0, size, "header", 0), _l1_region(header), _refcount_region(header)]
    regions += _snapshot_region(header)
    for region in regions[1:]:
        check_region(region, size, file_size)
    check_overlaps(regions)
    return regions


def check_region(region: Region, cluster_size: int, file_size: int) -> None:
    """Refuse a table that is not aligned to a cluster or reaches out of the file.

    Raises:
        CorruptImage: it does.
    """
    if region.start % cluster_size or (region.start == 0 and region.end > 0):
        raise CorruptImage(
            f"the {region.name} cannot begin at byte {region.start}: it needs a cluster of its own",
            offset=region.said_at,
        )
    if region.end > file_size:
        raise CorruptImage(
            f"the {region.name} (bytes {region.start} to {region.end}) reaches beyond the end of "
            f"the file, which has {file_size} bytes",
            offset=region.said_at,
            hint="the file may have been cut short while it was copied",
        )


def check_overlaps(regions: list[Region]) -> None:
    """Refuse two tables in one place.

    Raises:
        CorruptImage: there are such.
    """
    last: Region | None = None
    for region in sorted(r for r in regions if r.end > r.start):
        if last is not None and region.start < last.end:
            raise CorruptImage(
                f"the {last.name} and the {region.name} overlap at byte {region.start}",
                offset=max(region.said_at, last.said_at),
            )
        last = region


def _l1_region(header: Header) -> Region:
    length = header.l1_entries * L1_ENTRY
    if header.virtual_size > limits.MAX_VIRTUAL_SIZE:
        raise CorruptImage(
            f"a disk of {header.virtual_size} bytes is more than any program can address",
            offset=FIELD_OFFSET["virtual_size"],
        )
    if length > limits.MAX_L1_BYTES:
        raise CorruptImage(
            f"an L1 table of {header.l1_entries} entries is larger than the "
            f"{format_size(limits.MAX_L1_BYTES)} that QEMU opens",
            offset=FIELD_OFFSET["l1_entries"],
        )
    needed = header.geometry.l1_entries(header.virtual_size)
    if header.l1_entries < needed:
        raise CorruptImage(
            f"an L1 table of {header.l1_entries} entries is too small for a disk of "
            f"{header.virtual_size} bytes, which needs {needed}",
            offset=FIELD_OFFSET["l1_entries"],
        )
    start = header.l1_table_offset
    return Region(start, start + length, "L1 table", FIELD_OFFSET["l1_table_offset"])


def _refcount_region(header: Header) -> Region:
    length = header.refcount_table_clusters << header.cluster_bits
    if not 0 < length <= limits.MAX_REFCOUNT_TABLE_BYTES:
        raise CorruptImage(
            f"a refcount table of {header.refcount_table_clusters} clusters is impossible",
            offset=FIELD_OFFSET["refcount_table_clusters"],
        )
    start = header.refcount_table_offset
    said_at = FIELD_OFFSET["refcount_table_offset"]
    return Region(start, start + length, "refcount table", said_at)


def _snapshot_region(header: Header) -> list[Region]:
    """Return where the snapshot table begins; how long it is only reading it tells."""
    if header.snapshot_count == 0:
        return []
    if header.snapshot_count > limits.MAX_SNAPSHOTS:
        raise CorruptImage(
            f"{header.snapshot_count} snapshots are more than the {limits.MAX_SNAPSHOTS} possible",
            offset=FIELD_OFFSET["snapshot_count"],
        )
    start = header.snapshots_offset
    said_at = FIELD_OFFSET["snapshots_offset"]
    return [
        Region(
            start,
            start + header.snapshot_count * SnapshotHeader.LAYOUT.size,
            "snapshot table",
            said_at,
        )
    ]


def snapshot_l1_region(
    snapshot: SnapshotHeader, number: int, at: int, header: Header, file_size: int
) -> Region:
    """Return where a snapshot's L1 table lies; `at` is the snapshot's place in the file.

    Raises:
        CorruptImage: it cannot lie there, or the entry is too long.
    """
    if snapshot.extra_data_size > limits.MAX_SNAPSHOT_EXTRA:
        raise CorruptImage(
            f"snapshot {number} has {snapshot.extra_data_size} bytes of extra data", offset=at
        )
    length = snapshot.l1_entries * L1_ENTRY
    if length > limits.MAX_L1_BYTES:
        raise CorruptImage(
            f"snapshot {number} has an L1 table of {snapshot.l1_entries} entries", offset=at
        )
    start = snapshot.l1_table_offset
    region = Region(start, start + length, f"L1 table of snapshot {number}", at)
    check_region(region, header.geometry.cluster_size, file_size)
    return region


def bitmap_directory_region(
    bitmaps: BitmapsExtension, at: int, header: Header, file_size: int
) -> Region:
    """Return where the bitmap directory lies; `at` is the extension's place in the file.

    Raises:
        CorruptImage: it cannot lie there, or counts are out of range.
    """
    if not 0 < bitmaps.count <= limits.MAX_BITMAPS:
        raise CorruptImage(f"{bitmaps.count} bitmaps are impossible", offset=at)
    size = bitmaps.directory_size
    if size > limits.MAX_BITMAP_DIRECTORY_BYTES:
        raise CorruptImage(f"a bitmap directory of {size} bytes is impossible", offset=at)
    start = bitmaps.directory_offset
    region = Region(start, start + size, "bitmap directory", at)
    check_region(region, header.geometry.cluster_size, file_size)
    return region


def bitmap_table_region(
    entry: BitmapEntry, number: int, at: int, header: Header, file_size: int
) -> Region:
    """Return where a bitmap's table lies; `at` is the directory entry's place in the file.

    Raises:
        CorruptImage: it cannot lie there, or the entry's numbers are out of range.
    """
    finest, coarsest = limits.MIN_BITMAP_GRANULARITY_BITS, limits.MAX_BITMAP_GRANULARITY_BITS
    if (
        not 0 < entry.name_size <= limits.MAX_BITMAP_NAME
        or entry.table_entries > limits.MAX_BITMAP_TABLE_ENTRIES
        or not finest <= entry.granularity_bits <= coarsest
    ):
        raise CorruptImage(f"the directory entry of bitmap {number} is impossible", offset=at)
    start = entry.table_offset
    region = Region(start, start + entry.table_entries * 8, f"table of bitmap {number}", at)
    check_region(region, header.geometry.cluster_size, file_size)
    return region
