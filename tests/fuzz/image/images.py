"""Valid images of random shape, and where their fields are."""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.qcow2_images import Guest, make, opened

from thinvirt.image.block.errors import BlockError
from thinvirt.image.formats.qcow2.layout import COMPRESSION, FIELD_OFFSET, V2_FIELDS, V3_FIELDS

_OFFSET = 0x00FF_FFFF_FFFF_FE00
_MOST_ENTRIES = 64  # of each table that are known as fields


@dataclass(frozen=True)
class Field:
    """A number in the file, big-endian."""

    name: str
    offset: int
    width: int


def grow(path: Path, chance: random.Random) -> None:
    """Make a valid qcow2 image of random shape, at most about a megabyte long."""
    cluster_bits = chance.choice((9, 9, 10, 12, 12, 14, 16))
    version = chance.choice(("0.10", "1.1", "1.1", "1.1"))
    options = [f"cluster_size={1 << cluster_bits}", f"compat={version}"]
    compresses = True
    if version == "1.1":
        options.append(f"refcount_bits={1 << chance.randrange(7)}")
        if cluster_bits >= 14 and chance.random() < 0.5:
            options.append("extended_l2=on")
        if chance.random() < 0.2:
            options.append("lazy_refcounts=on")
        if chance.random() < 0.2:
            options.append("compression_type=zstd")
        if chance.random() < 0.15:
            options.append(f"data_file={path}.data")
            compresses = False
            if chance.random() < 0.5:
                options.append("data_file_raw=on")
    size = chance.choice((1 << 16, 300 << 10, 1 << 20, 3 << 20))
    path.unlink(missing_ok=True)
    make(path, f"size={size},{','.join(options)}")
    guest = Guest(
        chance.randrange(1 << 30), min(size, 300 << 10), 1 << cluster_bits, compresses=compresses
    )
    with opened(path) as (disk, node):
        for number in range(chance.randrange(3)):
            _run(guest, disk, chance.randrange(6))
            try:
                node.create_snapshot(f"snapshot {number}", date_ns=number)
            except BlockError:
                break  # refcounts of one bit, or a data file
        if version == "1.1" and chance.random() < 0.5:
            for number in range(chance.randrange(1, 3)):
                node.add_bitmap(f"bitmap {number}", 1 << chance.randrange(9, 20), enabled=True)
        _run(guest, disk, chance.randrange(8))


def _run(guest: Guest, disk: object, steps: int) -> None:
    try:
        guest.run(disk, steps)  # type: ignore[arg-type]
    except BlockError:
        return  # a refcount of one bit is soon at its end


# ---------------------------------------------------------------- fields


def fields(raw: bytes) -> list[Field]:
    """Return the fields of an image: header, extensions and the first entries of every table."""
    found = list(_header(raw))
    places = {
        field.name: int.from_bytes(raw[field.offset :][: field.width], "big") for field in found
    }
    cluster = 1 << places["cluster_bits"]
    found += _table(raw, "refcount table", places["refcount_table_offset"], 8)
    for entry in _entries(raw, places["refcount_table_offset"], 4):
        found += _table(raw, "refcounts", entry & _OFFSET, 2)
    found += _l1(raw, "L1", places["l1_table_offset"], places["l1_entries"])
    at = places["snapshots_offset"]
    for number in range(places["snapshot_count"]):
        one = list(_snapshot(f"snapshot {number}", at))
        found += one
        l1_at, entries, id_size, name_size = struct.unpack_from(">QIHH", raw, at)
        (extra,) = struct.unpack_from(">I", raw, at + 36)
        found += _l1(raw, f"snapshot {number}'s L1", l1_at, entries)
        at = (at + 40 + extra + id_size + name_size + 7) & ~7
    found += _extensions(raw, places.get("header_length", 72), cluster)
    return [field for field in found if field.offset + field.width <= len(raw)]


def _header(raw: bytes) -> Iterator[Field]:
    version = int.from_bytes(raw[4:8], "big")
    for name, code in V2_FIELDS + (V3_FIELDS if version > 2 else ()):
        yield Field(name, FIELD_OFFSET[name], struct.calcsize(">" + code))
    if version > 2:
        yield Field("compression_type", FIELD_OFFSET["compression_type"], COMPRESSION.size)


def _table(raw: bytes, name: str, at: int, width: int) -> list[Field]:
    if not at:
        return []
    return [Field(f"{name} {n}", at + n * width, width) for n in range(_MOST_ENTRIES)]


def _entries(raw: bytes, at: int, count: int) -> list[int]:
    return list(struct.unpack(f">{count}Q", raw[at : at + 8 * count].ljust(8 * count, b"\0")))


def _l1(raw: bytes, name: str, at: int, entries: int) -> list[Field]:
    found = _table(raw, name, at, 8)[:entries]
    for entry in _entries(raw, at, min(entries, 8)):
        found += _table(raw, f"{name}: L2", entry & _OFFSET, 8)
    return found


def _snapshot(name: str, at: int) -> Iterator[Field]:
    widths = (
        ("l1_table_offset", 8), ("l1_entries", 4), ("id_size", 2), ("name_size", 2), ("date_s", 4),
        ("date_ns", 4), ("vm_clock", 8), ("vm_state_size", 4), ("extra_data_size", 4),
        ("extra vm_state_size", 8), ("extra disk_size", 8), ("extra icount", 8),
    )  # fmt: skip
    for field, width in widths:
        yield Field(f"{name}: {field}", at, width)
        at += width


def _extensions(raw: bytes, at: int, end: int) -> Iterator[Field]:
    while at + 8 <= min(end, len(raw)):
        kind, length = struct.unpack_from(">II", raw, at)
        yield Field(f"extension {kind:#x}: type", at, 4)
        yield Field(f"extension {kind:#x}: length", at + 4, 4)
        if not kind:
            return
        for part in range(0, min(length, 32), 8):
            yield Field(f"extension {kind:#x}: {part}", at + 8 + part, 8)
        if kind == 0x23852875:
            yield from _bitmaps(raw, *struct.unpack_from(">I4xQQ", raw, at + 8))
        at += 8 + (length + 7 & ~7)


_BITMAP_FIELDS = (
    ("table_offset", 8), ("table_entries", 4), ("flags", 4), ("type", 1), ("granularity_bits", 1),
    ("name_size", 2), ("extra_data_size", 4),
)  # fmt: skip


def _bitmaps(raw: bytes, count: int, size: int, at: int) -> Iterator[Field]:
    for number in range(count):
        name = f"bitmap {number}"
        if at + 24 > len(raw):
            return
        table, entries, _, _, _, name_size, extra = struct.unpack_from(">QIIBBHI", raw, at)
        place = at
        for field, width in _BITMAP_FIELDS:
            yield Field(f"{name}: {field}", place, width)
            place += width
        yield from _table(raw, f"{name}'s table", table, 8)[:entries]
        at += (24 + name_size + extra + 7) & ~7


# ---------------------------------------------------------------- hostility

_VALUES = (
    0, 1, 2, 3, 7, 8, 9, 15, 16, 21, 22, 31, 32, 63, 64, 72, 104, 112, 255, 256, 511, 512, 513,
    1023, 1024, 4095, 4096, 65535, 65536, 1 << 20, (1 << 20) + 512, 1 << 21, 1 << 30, (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 55), 1 << 56, (1 << 61), 1 << 62, (1 << 63) - 1, 1 << 63,
    (1 << 63) | 512, (1 << 62) | 512, (1 << 64) - 512, (1 << 64) - 1,
)  # fmt: skip


def spoil(raw: bytearray, chance: random.Random) -> list[str]:
    """Put hostile values into a few fields, or cut the file; return what was done."""
    known = fields(bytes(raw))
    header = [field for field in known if field.offset < 112]
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        field = chance.choice(known if chance.random() < 0.7 else header)
        value = _value(raw, known, chance) & (1 << 8 * field.width) - 1
        raw[field.offset : field.offset + field.width] = value.to_bytes(field.width, "big")
        done.append(f"{field.name} = {value:#x}")
    if chance.random() < 0.1:
        length = chance.choice([chance.choice(known).offset, chance.randrange(len(raw))])
        del raw[length:]
        done.append(f"cut at {length}")
    return done


def _value(raw: bytearray, known: list[Field], chance: random.Random) -> int:
    """Return a number: a notable one, another field's, a place in the file, or a flipped bit."""
    which = chance.random()
    if which < 0.4:
        return chance.choice(_VALUES)
    other = chance.choice(known)
    there = int.from_bytes(raw[other.offset : other.offset + other.width], "big")
    if which < 0.6:
        return there ^ 1 << chance.randrange(64)
    if which < 0.8:
        flags = chance.choice((0, 1 << 63, 1 << 62, 1))
        return other.offset & ~511 | flags
    return there if which < 0.9 else chance.randrange(1 << 64)
