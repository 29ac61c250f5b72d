"""The look at a qcow2: header, extensions, and every table entry, in bounded time and memory.

Time: each table is read at most once, and only where the file has data, so the work is bounded by
what the file occupies on disk and not by what its header claims. Memory: tables are read in pieces;
what is kept is one number per L2 table.
"""

from bisect import bisect_right
from collections.abc import Iterator

from thinvirt.errors import CorruptImage, HostileImage, UnsupportedFeature
from thinvirt.image.block.hostfile import data_extents, read_exactly
from thinvirt.image.formats.details import Details
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.bitmaps import BitmapEntry, BitmapsExtension
from thinvirt.image.formats.qcow2.extensions import ExtensionKind
from thinvirt.image.formats.qcow2.features import Autoclear, Compatible, Incompatible
from thinvirt.image.formats.qcow2.first_cluster import FirstCluster
from thinvirt.image.formats.qcow2.geometry import EXTENDED_L2_ENTRY
from thinvirt.image.formats.qcow2.header import FIELD_OFFSET, Header
from thinvirt.image.formats.qcow2.snapshots import SnapshotHeader
from thinvirt.image.formats.qcow2.table_checks import (
    check_l2_table,
    check_refcount_table,
    l2_tables,
)
from thinvirt.image.formats.qcow2.validate import (
    COMPRESSION_ZSTD,
    CRYPT_LUKS,
    CRYPT_NONE,
    Region,
    bitmap_directory_region,
    bitmap_table_region,
    check_features,
    check_overlaps,
    check_region,
    check_tables,
    snapshot_l1_region,
)
from thinvirt.image.formats.text import name_of, printable

_PIECE = 1 << 20  # bytes of a table held at a time
_TRUST = "if you trust it: qemu-img convert -f qcow2 -O qcow2 FILE NEW.qcow2"


def screen_qcow2(fd: int, file_size: int, *, allow_backing: bool) -> tuple[int, Details]:
    """Return virtual size and details of an open qcow2, or refuse it; see `screen.screen`."""
    first = FirstCluster.unpack(read_exactly(fd, min(file_size, limits.MAX_HEADER_READ), 0))
    header = first.header
    names = first.extension(ExtensionKind.FEATURE_NAMES)
    check_features(
        header,
        name_table=names.data if names else b"",
        has_encryption_header=first.extension(ExtensionKind.ENCRYPTION) is not None,
    )
    _refuse_other_files(first, allow_backing=allow_backing)
    _refuse_encrypted(header)
    regions = check_tables(header, file_size)
    l1_tables = [region for region in regions if region.name == "L1 table"]
    if header.snapshot_count:
        l1_tables += _snapshots(fd, file_size, header, regions)
    bitmaps = _bitmaps(fd, file_size, first, regions)
    check_overlaps(regions)
    _refcount_table(fd, file_size, header)
    _mapping(fd, file_size, header, l1_tables, regions)
    return header.virtual_size, _details(first, bitmaps)


def _details(first: FirstCluster, bitmaps: int) -> Details:
    header = first.header
    details: dict[str, str | int | bool] = {
        "compat": "1.1" if header.version == 3 else "0.10",
        "cluster_size": header.geometry.cluster_size,
        "refcount_bits": 1 << header.refcount_order,
        "extended_l2": header.extended_l2,
        "lazy_refcounts": bool(header.compatible_features & Compatible.LAZY_REFCOUNTS),
        "compression": "zstd" if header.compression_type == COMPRESSION_ZSTD else "zlib",
        "dirty": bool(header.incompatible_features & Incompatible.DIRTY),
        "snapshots": header.snapshot_count,
        "bitmaps": bitmaps,
    }
    if first.backing_name:
        details["backing_file"] = printable(first.backing_name)
        details["backing_format"] = printable(first.backing_format)
    return details


def _refuse_other_files(first: FirstCluster, *, allow_backing: bool) -> None:
    """Refuse an image through which QEMU would read other files of this host."""
    data_file = first.extension(ExtensionKind.DATA_FILE)
    if data_file is not None or first.header.incompatible_features & Incompatible.EXTERNAL_DATA:
        name = f" '{printable(name_of(data_file.data))}'" if data_file else ""
        raise HostileImage(
            f"the image keeps its data in another file{name}, which QEMU would open",
            offset=data_file.offset if data_file else FIELD_OFFSET["incompatible_features"],
            hint=_TRUST,
        )
    if first.backing_name and not allow_backing:
        raise HostileImage(
            f"the image names the backing file '{printable(first.backing_name)}', which QEMU "
            "would open",
            offset=first.header.backing_file_offset,
            hint=_TRUST,
        )


def _refuse_encrypted(header: Header) -> None:
    if header.crypt_method != CRYPT_NONE:
        kind = "LUKS" if header.crypt_method == CRYPT_LUKS else "AES"
        raise UnsupportedFeature(
            f"the image is encrypted ({kind}) and would need its key",
            offset=FIELD_OFFSET["crypt_method"],
            hint="decrypt it first, with qemu-img convert and the key",
        )


def _snapshots(fd: int, file_size: int, header: Header, regions: list[Region]) -> list[Region]:
    """Walk the snapshot table, put it into `regions` at its true length, return the L1 tables."""
    table = next(region for region in regions if region.name == "snapshot table")
    at, end = table.start, min(file_size, table.start + limits.MAX_SNAPSHOT_TABLE_BYTES)
    l1_tables = []
    for number in range(1, header.snapshot_count + 1):
        raw = read_exactly(fd, max(0, min(SnapshotHeader.LAYOUT.size, end - at)), at)
        snapshot = SnapshotHeader.unpack(raw, at=at)
        l1_tables.append(snapshot_l1_region(snapshot, number, at, header, file_size))
        at += snapshot.entry_size
    whole = Region(table.start, at, table.name, table.said_at)
    check_region(whole, header.geometry.cluster_size, end)
    regions.remove(table)
    regions += [whole, *l1_tables]
    return l1_tables


def _bitmaps(fd: int, file_size: int, first: FirstCluster, regions: list[Region]) -> int:
    """Walk the bitmap directory, put it and the bitmaps' tables into `regions`, return the count.

    Without the autoclear bit the extension is stale: nobody reads it then, and neither do we.
    """
    header = first.header
    extension = first.extension(ExtensionKind.BITMAPS)
    if extension is None or not header.autoclear_features & Autoclear.BITMAPS:
        return 0
    bitmaps = BitmapsExtension.unpack(extension.data, at=extension.offset)
    directory = bitmap_directory_region(bitmaps, extension.offset, header, file_size)
    regions.append(directory)
    at, end = directory.start, directory.end
    for number in range(1, bitmaps.count + 1):
        raw = read_exactly(fd, max(0, min(BitmapEntry.LAYOUT.size, end - at)), at)
        entry = BitmapEntry.unpack(raw, at=at)
        regions.append(bitmap_table_region(entry, number, at, header, file_size))
        at += entry.entry_size
    if at > end:
        raise CorruptImage("the bitmap directory is longer than it says", offset=extension.offset)
    return bitmaps.count


def _pieces(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of what is data of a table, cut so that no entry is parted.

    What lies in a hole is zeros: unallocated, nothing to look at. Tables begin on a sector at
    least, so an entry of 16 bytes begins at a multiple of 16.
    """
    for data, length in data_extents(fd, start, end):
        first, last = data - data % EXTENDED_L2_ENTRY, data + length
        last = min(last + -last % EXTENDED_L2_ENTRY, end)
        for at in range(first, last, _PIECE):
            yield at, min(_PIECE, last - at)


def _refcount_table(fd: int, file_size: int, header: Header) -> None:
    """Check that every refcount block lies on a cluster inside the file."""
    start = header.refcount_table_offset
    end = start + header.refcount_table_clusters * header.geometry.cluster_size
    for at, length in _pieces(fd, start, end):
        raw = read_exactly(fd, length, at)
        check_refcount_table(raw, at=at, header=header, file_size=file_size)


def _mapping(
    fd: int, file_size: int, header: Header, l1_tables: list[Region], regions: list[Region]
) -> None:
    """Check every L1 entry and, once each, the L2 tables they name."""
    ordered = sorted(region for region in regions if region.end > region.start)
    starts = [region.start for region in ordered]
    size = header.geometry.cluster_size
    seen: set[int] = set()
    for table in l1_tables:
        for at, length in _pieces(fd, table.start, table.end):
            raw = read_exactly(fd, length, at)
            for offset, place in l2_tables(raw, at=at, header=header, file_size=file_size):
                if offset in seen:
                    continue
                seen.add(offset)
                below = ordered[bisect_right(starts, offset + size - 1) - 1]
                if below.end > offset:
                    raise CorruptImage(
                        f"an L2 table and the {below.name} overlap at byte {offset}", offset=place
                    )
                for piece_at, piece in _pieces(fd, offset, offset + size):
                    piece_raw = read_exactly(fd, piece, piece_at)
                    check_l2_table(piece_raw, at=piece_at, header=header, file_size=file_size)
