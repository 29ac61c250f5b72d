"""The look at a qcow2: header, extensions, and every table entry, in bounded time and memory.

Time: each table is read at most once, and only where the file has data, so the work is bounded by
what the file occupies on disk and not by what its header claims. Memory: tables are read in chunks;
what is kept is one number per L2 table.
"""

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping

from thinvirt.errors import CorruptImage, HostileImage, UnsupportedFeature
from thinvirt.image.block.hostfile import data_extents, read_exactly
from thinvirt.image.formats.qcow2 import entries, limits
from thinvirt.image.formats.qcow2.bitmaps import BitmapEntry, BitmapsExtension
from thinvirt.image.formats.qcow2.extensions import (
    ExtensionKind,
    HeaderExtension,
    unpack_extensions,
)
from thinvirt.image.formats.qcow2.features import Autoclear, Compatible, Incompatible
from thinvirt.image.formats.qcow2.geometry import EXTENDED_L2_ENTRY, L1_ENTRY
from thinvirt.image.formats.qcow2.header import FIELD_OFFSET, MAGIC, Header
from thinvirt.image.formats.qcow2.snapshots import SnapshotHeader
from thinvirt.image.formats.qcow2.validate import (
    COMPRESSION_ZSTD,
    CRYPT_LUKS,
    CRYPT_NONE,
    Region,
    check_cluster_bits,
    check_features,
    check_overlaps,
    check_region,
    check_tables,
)

_CHUNK = 1 << 20  # bytes of a table held at a time

type_of_details = Mapping[str, str | int | bool]


def screen_qcow2(fd: int, file_size: int, *, allow_backing: bool) -> tuple[int, type_of_details]:
    """Return virtual size and details of an open qcow2, or refuse it; see `screen`."""
    header, extensions, raw = read_header(fd, file_size)
    check_features(header, extensions)
    backing = _refuse_other_files(header, extensions, raw, allow_backing=allow_backing)
    if header.crypt_method != CRYPT_NONE:
        kind = "LUKS" if header.crypt_method == CRYPT_LUKS else "AES"
        raise UnsupportedFeature(
            f"the image is encrypted ({kind}) and would need its key",
            offset=FIELD_OFFSET["crypt_method"],
            hint="decrypt it first, with qemu-img convert and the key",
        )
    regions = check_tables(header, file_size)
    l1_tables = [next(r for r in regions if r.name == "L1 table")]
    l1_tables += _snapshots(fd, file_size, header, regions)
    bitmaps = _bitmaps(fd, file_size, header, extensions, regions)
    check_overlaps(regions)
    _refcount_table(fd, file_size, header)
    _mapping(fd, file_size, header, l1_tables, regions)
    details: dict[str, str | int | bool] = {
        "version": header.version,
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
    return header.virtual_size, details | backing


def read_header(fd: int, file_size: int) -> tuple[Header, dict[int, HeaderExtension], bytes]:
    """Return header, extensions by kind, and the first cluster of an open qcow2.

    Raises:
        CorruptImage: the header is impossible, or an extension stands twice.
        UnsupportedFeature: an unknown version.
    """
    raw = read_exactly(fd, min(file_size, limits.MAX_HEADER_READ), 0)
    header = Header.unpack(raw)
    check_cluster_bits(header)
    raw = raw[: header.geometry.cluster_size]
    end = header.backing_file_offset or len(raw)
    extensions: dict[int, HeaderExtension] = {}
    for extension in unpack_extensions(raw, start=header.header_length, end=end):
        if extension.kind in extensions:
            raise CorruptImage(
                f"header extension 0x{extension.kind:08x} stands twice", offset=extension.offset
            )
        extensions[extension.kind] = extension
    return header, extensions, raw


def backing_of(
    header: Header, extensions: Mapping[int, HeaderExtension], raw: bytes
) -> tuple[str, str]:
    """Return the backing file's name as stored, and its recorded format; empty where there is none.

    Raises:
        CorruptImage: the name lies outside the first cluster or is too long.
    """
    offset, size = header.backing_file_offset, header.backing_file_size
    if offset == 0:
        return "", ""
    room = min(len(raw), header.geometry.cluster_size) - offset
    if not 0 < size <= min(room, limits.MAX_BACKING_NAME) or offset < header.header_length:
        raise CorruptImage(
            f"a backing file name of {size} bytes at byte {offset} cannot be",
            offset=FIELD_OFFSET["backing_file_offset"],
        )
    recorded = extensions.get(ExtensionKind.BACKING_FORMAT)
    return _text(raw[offset : offset + size]), _text(recorded.data) if recorded else ""


def _text(raw: bytes) -> str:
    """Return bytes of an image as text that is safe to print."""
    return "".join(c if c.isprintable() else "?" for c in raw.decode("utf-8", "replace"))


def _refuse_other_files(
    header: Header,
    extensions: Mapping[int, HeaderExtension],
    raw: bytes,
    *,
    allow_backing: bool,
) -> dict[str, str | int | bool]:
    """Refuse an image through which QEMU would read other files of this host."""
    data_file = extensions.get(ExtensionKind.DATA_FILE)
    if data_file is not None or header.incompatible_features & Incompatible.EXTERNAL_DATA:
        name = f" '{_text(data_file.data)}'" if data_file else ""
        raise HostileImage(
            f"the image keeps its data in another file{name}, which QEMU would open",
            offset=data_file.offset if data_file else FIELD_OFFSET["incompatible_features"],
            hint="if you trust it: qemu-img convert -f qcow2 -O qcow2 FILE NEW.qcow2",
        )
    name, backing_format = backing_of(header, extensions, raw)
    if not name:
        return {}
    if not allow_backing:
        raise HostileImage(
            f"the image names the backing file '{name}', which QEMU would open",
            offset=header.backing_file_offset,
            hint="if you trust it: qemu-img convert -f qcow2 -O qcow2 FILE NEW.qcow2",
        )
    return {"backing_file": name, "backing_format": backing_format}


def _snapshots(fd: int, file_size: int, header: Header, regions: list[Region]) -> list[Region]:
    """Walk the snapshot table; add it to `regions` at its true length; return the L1 tables."""
    table = next((r for r in regions if r.name == "snapshot table"), None)
    if table is None:
        return []
    at, end = table.start, min(file_size, table.start + limits.MAX_SNAPSHOT_TABLE_BYTES)
    tables = []
    cluster_size = header.geometry.cluster_size
    for number in range(1, header.snapshot_count + 1):
        raw = read_exactly(fd, max(0, min(SnapshotHeader.LAYOUT.size, end - at)), at)
        snapshot = SnapshotHeader.unpack(raw, at=at)
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
        check_region(region, cluster_size, file_size)
        tables.append(region)
        at += snapshot.entry_size
    regions.remove(table)
    whole = Region(table.start, at, table.name, table.said_at)
    check_region(whole, cluster_size, end)
    regions += [whole, *tables]
    return tables


def _bitmaps(
    fd: int,
    file_size: int,
    header: Header,
    extensions: Mapping[int, HeaderExtension],
    regions: list[Region],
) -> int:
    """Walk the bitmap directory, adding it and the bitmaps' tables to `regions`; return the count.

    Without the autoclear bit the extension is stale: nobody reads it then, and neither do we.
    """
    extension = extensions.get(ExtensionKind.BITMAPS)
    if extension is None or not header.autoclear_features & Autoclear.BITMAPS:
        return 0
    bitmaps = BitmapsExtension.unpack(extension.data, at=extension.offset)
    if not 0 < bitmaps.count <= limits.MAX_BITMAPS:
        raise CorruptImage(f"{bitmaps.count} bitmaps are impossible", offset=extension.offset)
    if bitmaps.directory_size > limits.MAX_BITMAP_DIRECTORY_BYTES:
        raise CorruptImage(
            f"a bitmap directory of {bitmaps.directory_size} bytes is impossible",
            offset=extension.offset,
        )
    at = bitmaps.directory_offset
    end = at + bitmaps.directory_size
    cluster_size = header.geometry.cluster_size
    directory = Region(at, end, "bitmap directory", extension.offset)
    check_region(directory, cluster_size, file_size)
    regions.append(directory)
    for number in range(1, bitmaps.count + 1):
        raw = read_exactly(fd, max(0, min(BitmapEntry.LAYOUT.size, end - at)), at)
        entry = BitmapEntry.unpack(raw, at=at)
        regions.append(_bitmap_table(entry, number, at, cluster_size, file_size))
        at += entry.entry_size
    if at > end:
        raise CorruptImage("the bitmap directory is longer than it says", offset=extension.offset)
    return bitmaps.count


def _bitmap_table(
    entry: BitmapEntry, number: int, at: int, cluster_size: int, file_size: int
) -> Region:
    if (
        not 0 < entry.name_size <= limits.MAX_BITMAP_NAME
        or entry.table_entries > limits.MAX_BITMAP_TABLE_ENTRIES
        or not limits.MIN_BITMAP_GRANULARITY_BITS
        <= entry.granularity_bits
        <= limits.MAX_BITMAP_GRANULARITY_BITS
    ):
        raise CorruptImage(f"the directory entry of bitmap {number} is impossible", offset=at)
    start = entry.table_offset
    region = Region(start, start + entry.table_entries * 8, f"table of bitmap {number}", at)
    check_region(region, cluster_size, file_size)
    return region


def _chunks(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of what is data of a table, in pieces that whole entries fit into.

    What lies in a hole is zeros: unallocated, nothing to look at. A table is aligned to at least a
    sector, so pieces cut at multiples of 16 bytes never part an entry.
    """
    for data, length in data_extents(fd, start, end):
        first, last = data - data % EXTENDED_L2_ENTRY, data + length
        last = min(last + -last % EXTENDED_L2_ENTRY, end)
        for at in range(first, last, _CHUNK):
            yield at, min(_CHUNK, last - at)


def _numbers(raw: bytes) -> "array[int]":
    """Return big-endian 64-bit numbers as they are meant."""
    numbers = array("Q", raw)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _masked(raw: bytes, mask: int) -> int:
    """Return all entries of `raw` at once, as one number, with `mask` laid over each.

    Big integers make this a hundred times faster than a loop over the entries; and zero means that
    no entry has any of the bits.
    """
    whole = mask.to_bytes(8, "big") * (len(raw) // 8)
    return int.from_bytes(raw, "big") & int.from_bytes(whole, "big")


def _first_with(numbers: "array[int]", at: int, mask: int, step: int = 1) -> int:
    """Return where in the file the first entry with one of the bits of `mask` stands."""
    index = next(i for i in range(0, len(numbers), step) if numbers[i] & mask)
    return at + index * 8


def _refcount_table(fd: int, file_size: int, header: Header) -> None:
    """Check that every refcount block lies on a cluster inside the file."""
    start = header.refcount_table_offset
    end = start + (header.refcount_table_clusters << header.cluster_bits)
    bad = header.geometry.cluster_size - 1
    for at, length in _chunks(fd, start, end):
        numbers = _numbers(read_exactly(fd, length, at))
        for index, block in enumerate(numbers):
            if block & bad or block >= file_size:
                raise CorruptImage(
                    f"a refcount block cannot lie at byte {block}", offset=at + index * 8
                )


def _mapping(
    fd: int, file_size: int, header: Header, l1_tables: list[Region], regions: list[Region]
) -> None:
    """Check every L1 entry and, once each, the L2 tables they name."""
    ordered = sorted(r for r in regions if r.end > r.start)
    starts = [r.start for r in ordered]
    seen: set[int] = set()
    size = header.geometry.cluster_size
    misplaced = entries.OFFSET_MASK & (size - 1)
    for table in l1_tables:
        for at, length in _chunks(fd, table.start, table.end):
            for index, entry in enumerate(_numbers(read_exactly(fd, length, at))):
                if not entry:
                    continue
                offset = entry & entries.OFFSET_MASK
                place = at + index * 8
                if entry & (entries.L1_RESERVED | misplaced):
                    raise CorruptImage(f"0x{entry:016x} is no L1 entry", offset=place)
                if offset in seen or not offset:
                    continue
                _check_l2_place(offset, size, file_size, place, ordered, starts)
                seen.add(offset)
                _l2_table(fd, offset, file_size, header)


def _check_l2_place(
    offset: int,
    size: int,
    file_size: int,
    place: int,
    ordered: list[Region],
    starts: list[int],
) -> None:
    if offset + size > file_size:
        raise CorruptImage(
            f"an L2 table cannot lie at byte {offset}: the file has {file_size}", offset=place
        )
    index = bisect_right(starts, offset + size - 1) - 1
    if index >= 0 and ordered[index].end > offset:
        raise CorruptImage(
            f"an L2 table and the {ordered[index].name} overlap at byte {offset}", offset=place
        )


def _l2_table(fd: int, offset: int, file_size: int, header: Header) -> None:
    """Check that all data clusters of one L2 table begin inside the file."""
    check = _extended_entries if header.extended_l2 else _plain_entries
    for at, length in _chunks(fd, offset, offset + header.geometry.cluster_size):
        check(read_exactly(fd, length, at), at, file_size, header)


def _plain_entries(raw: bytes, at: int, file_size: int, header: Header) -> None:
    if _masked(raw, entries.COMPRESSED):
        _each_entry(_numbers(raw), at, file_size, header)
        return
    bad = entries.L2_RESERVED | (entries.OFFSET_MASK & (header.geometry.cluster_size - 1))
    if _masked(raw, bad):
        place = _first_with(_numbers(raw), at, bad)
        raise CorruptImage("an L2 entry has reserved bits or an unaligned offset", offset=place)
    offsets = _masked(raw, entries.OFFSET_MASK).to_bytes(len(raw), "big")
    largest = max(_numbers(offsets))
    if largest >= file_size:
        place = at + _numbers(offsets).index(largest) * 8
        raise CorruptImage(
            f"a data cluster cannot lie at byte {largest}: the file has {file_size}", offset=place
        )


def _extended_entries(raw: bytes, at: int, file_size: int, header: Header) -> None:
    """The same for entries of 16 bytes: descriptor, then the bitmap of the subclusters."""
    numbers = _numbers(raw)
    bad = (
        entries.L2_RESERVED
        | entries.ZERO
        | (entries.OFFSET_MASK & (header.geometry.cluster_size - 1))
    )
    for index in range(0, len(numbers), 2):
        entry, bitmap = numbers[index], numbers[index + 1]
        if not entry and not bitmap:
            continue
        place = at + index * 8
        if entry & entries.COMPRESSED:
            _check_compressed(entry, place, file_size, header)
            impossible = bitmap != 0
        else:
            allocated = bitmap & entries.SUBCLUSTERS_ALLOCATED
            offset = entry & entries.OFFSET_MASK
            _check_standard(entry, bad, place, file_size)
            impossible = bool(allocated & bitmap >> 32) or (allocated != 0 and offset == 0)
        if impossible:
            raise CorruptImage("the subclusters of an L2 entry contradict each other", offset=place)


def _each_entry(numbers: "array[int]", at: int, file_size: int, header: Header) -> None:
    """Check plain entries one by one: a table with compressed clusters."""
    bad = entries.L2_RESERVED | (entries.OFFSET_MASK & (header.geometry.cluster_size - 1))
    for index, entry in enumerate(numbers):
        if entry & entries.COMPRESSED:
            _check_compressed(entry, at + index * 8, file_size, header)
        elif entry:
            _check_standard(entry, bad, at + index * 8, file_size)


def _check_standard(entry: int, bad: int, place: int, file_size: int) -> None:
    if entry & bad:
        raise CorruptImage(f"0x{entry:016x} is no L2 entry", offset=place)
    if entry & entries.OFFSET_MASK >= file_size:
        raise CorruptImage(
            f"a data cluster cannot lie at byte {entry & entries.OFFSET_MASK}: the file has "
            f"{file_size}",
            offset=place,
        )


def _check_compressed(entry: int, place: int, file_size: int, header: Header) -> None:
    """The length is in sectors and may overshoot; by less than a cluster, as QEMU tolerates."""
    offset, length = entries.compressed_range(entry, header.cluster_bits)
    if offset >= file_size or offset + length >= file_size + header.geometry.cluster_size:
        raise CorruptImage(
            f"compressed data cannot lie at byte {offset}: the file has {file_size}", offset=place
        )


__all__ = ["MAGIC", "backing_of", "read_header", "screen_qcow2"]
