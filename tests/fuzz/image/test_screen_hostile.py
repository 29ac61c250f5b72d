"""Images made to harm: refused by name of the reason, or taken, always quickly and within bounds.

The named cases follow the classes of qcow2 vulnerabilities: disclosure through backing files and
external data files, tables of impossible size, offsets that wrap, structures that lead in circles.
"""

import os
import random
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from thinvirt.errors import CorruptImage, HostileImage, ImageError, UnsupportedFeature
from thinvirt.image.formats.qcow2.empty import empty_image
from thinvirt.image.formats.qcow2.extensions import (
    ExtensionKind,
    HeaderExtension,
    pack_extensions,
)
from thinvirt.image.formats.qcow2.features import Feature, pack_names
from thinvirt.image.formats.qcow2.geometry import Geometry
from thinvirt.image.formats.qcow2.header import FIELD_OFFSET
from thinvirt.image.ops.screen import screen

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
WIDTH = {"version": 4, "backing_file_size": 4, "cluster_bits": 4, "crypt_method": 4}
WIDTH |= {"l1_entries": 4, "refcount_table_clusters": 4, "snapshot_count": 4}
WIDTH |= {"refcount_order": 4, "header_length": 4, "compression_type": 1}

Edit = Callable[[bytearray], None]


def image_bytes(
    *, cluster_size: int = 64 * KIB, extended: bool = False, size: int = GIB
) -> bytearray:
    image = empty_image(virtual_size=size, geometry=Geometry.of(cluster_size, extended_l2=extended))
    raw = bytearray(image.length + -image.length % cluster_size)
    for offset, data in image.writes:
        raw[offset : offset + len(data)] = data
    return raw


def put(raw: bytearray, field: str, value: int) -> None:
    width = WIDTH.get(field, 8)
    at = FIELD_OFFSET[field]
    raw[at : at + width] = value.to_bytes(width, "big")


def fields(**values: int) -> Edit:
    def edit(raw: bytearray) -> None:
        for field, value in values.items():
            put(raw, field, value)

    return edit


def extension(kind: int, data: bytes) -> Edit:
    def edit(raw: bytearray) -> None:
        area = pack_extensions([HeaderExtension(kind, data)])
        raw[112 : 112 + len(area)] = area

    return edit


def entry(at: int, value: int) -> Edit:
    def edit(raw: bytearray) -> None:
        if len(raw) < at + 8:
            raw.extend(bytes(at + 8 - len(raw)))
        raw[at : at + 8] = value.to_bytes(8, "big")

    return edit


def both(*edits: Edit) -> Edit:
    def edit(raw: bytearray) -> None:
        for one in edits:
            one(raw)

    return edit


L1_AT, L2_AT = 3 * 64 * KIB, 4 * 64 * KIB
with_l2 = both(entry(L1_AT, 1 << 63 | L2_AT), entry(5 * 64 * KIB - 8, 0))


def with_name(name: bytes) -> Edit:
    def edit(raw: bytearray) -> None:
        raw[1000 : 1000 + len(name)] = name
        put(raw, "backing_file_offset", 1000)
        put(raw, "backing_file_size", len(name))

    return edit


SNAPSHOT = struct.Struct(">QIHHIIQII")


def with_snapshot(**values: int) -> Edit:
    names = ("l1", "entries", "id", "name", "date", "ns", "clock", "state", "extra")
    record = dict.fromkeys(names, 0) | {"l1": 5 * 64 * KIB, "entries": 2} | values

    def edit(raw: bytearray) -> None:
        raw.extend(bytes(3 * 64 * KIB))
        put(raw, "snapshot_count", 1)
        put(raw, "snapshots_offset", L2_AT)
        raw[L2_AT : L2_AT + SNAPSHOT.size] = SNAPSHOT.pack(*record.values())

    return edit


CASES: dict[str, tuple[Edit, type[ImageError], str]] = {
    "backing file": (with_name(b"/etc/shadow"), HostileImage, "'/etc/shadow'"),
    "backing file as json": (with_name(b'json:{"driver":"file"}'), HostileImage, "json:"),
    "backing name with terminal codes": (with_name(b"\x1b[2Jx"), HostileImage, r"'\?\[2Jx'"),
    "backing name outside": (
        fields(backing_file_offset=1 << 40, backing_file_size=5), CorruptImage, "backing file name"
    ),
    "backing name too long": (
        fields(backing_file_offset=1000, backing_file_size=1024), CorruptImage, "backing file name"
    ),
    "backing name in the header": (
        fields(backing_file_offset=8, backing_file_size=8), CorruptImage, "backing file name"
    ),
    "data file": (fields(incompatible_features=1 << 2), HostileImage, "another file"),
    "data file named": (extension(ExtensionKind.DATA_FILE, b"/etc/shadow"), HostileImage, "shadow"),
    "data file of version 2": (
        both(
            fields(version=2),
            lambda raw: raw.__setitem__(
                slice(72, 104), pack_extensions([HeaderExtension(0x44415441, b"/etc/shadow")])
            ),
        ),
        HostileImage,
        "shadow",
    ),
    "encrypted": (fields(crypt_method=2), UnsupportedFeature, "LUKS"),
    "encryption unknown": (fields(crypt_method=3), CorruptImage, "method 3"),
    "encryption header alone": (
        extension(ExtensionKind.ENCRYPTION, bytes(16)), CorruptImage, "encryption header"
    ),
    "unknown feature": (fields(incompatible_features=1 << 63), UnsupportedFeature, "bit 63"),
    "unknown feature with a name": (
        both(
            fields(incompatible_features=1 << 40),
            extension(ExtensionKind.FEATURE_NAMES, pack_names((Feature(0, 40, "time travel"),))),
        ),
        UnsupportedFeature,
        "'time travel'",
    ),
    "marked corrupt": (fields(incompatible_features=2), CorruptImage, "marked corrupt"),
    "compression unknown": (
        fields(incompatible_features=8, compression_type=9), UnsupportedFeature, "type 9"
    ),
    "compression contradicts": (fields(compression_type=1), CorruptImage, "compression type 1"),
    "cluster bits 8": (fields(cluster_bits=8), CorruptImage, r"2\^8"),
    "cluster bits 22": (fields(cluster_bits=22), CorruptImage, r"2\^22"),
    "cluster bits huge": (fields(cluster_bits=2**32 - 1), CorruptImage, "clusters of"),
    "refcount order": (fields(refcount_order=7), CorruptImage, "refcounts"),
    "virtual size wraps": (fields(virtual_size=2**64 - 1), CorruptImage, "address"),
    "virtual size beyond L1": (fields(virtual_size=1 << 50), CorruptImage, "too small"),
    "L1 huge": (fields(l1_entries=2**32 - 1), CorruptImage, "L1 table"),
    "L1 beyond the end": (fields(l1_table_offset=1 << 40), CorruptImage, "beyond the end"),
    "L1 wraps": (fields(l1_table_offset=2**64 - 64 * KIB), CorruptImage, "beyond the end"),
    "L1 unaligned": (fields(l1_table_offset=L1_AT + 512), CorruptImage, "cluster of its own"),
    "L1 on the header": (fields(l1_table_offset=0), CorruptImage, "L1 table"),
    "L1 on the refcount table": (fields(l1_table_offset=64 * KIB), CorruptImage, "overlap"),
    "refcount table none": (fields(refcount_table_clusters=0), CorruptImage, "refcount table"),
    "refcount table huge": (
        fields(refcount_table_clusters=2**32 - 1), CorruptImage, "refcount table"
    ),
    "refcount table outside": (
        fields(refcount_table_offset=1 << 62), CorruptImage, "refcount table"
    ),
    "refcount block outside": (entry(64 * KIB, 1 << 40), CorruptImage, "refcount block"),
    "refcount block unaligned": (entry(64 * KIB, 513), CorruptImage, "refcount block"),
    "snapshots too many": (fields(snapshot_count=65537), CorruptImage, "65537"),
    "snapshot table outside": (
        fields(snapshot_count=1, snapshots_offset=1 << 40), CorruptImage, "snapshot table"
    ),
    "snapshot with a huge L1": (with_snapshot(entries=2**32 - 1), CorruptImage, "snapshot 1"),
    "snapshot with an L1 outside": (with_snapshot(l1=1 << 40), CorruptImage, "snapshot 1"),
    "snapshot with the header as L1": (with_snapshot(l1=0), CorruptImage, "snapshot 1"),
    "snapshot with the disk's own L1": (with_snapshot(l1=L1_AT), CorruptImage, "overlap"),
    "snapshot with huge extra data": (with_snapshot(extra=2**32 - 1), CorruptImage, "extra data"),
    "bitmaps none": (
        both(
            fields(autoclear_features=1),
            extension(ExtensionKind.BITMAPS, struct.pack(">IIQQ", 0, 0, 64, L1_AT)),
        ),
        CorruptImage,
        "0 bitmaps",
    ),
    "bitmap directory huge": (
        both(
            fields(autoclear_features=1),
            extension(ExtensionKind.BITMAPS, struct.pack(">IIQQ", 1, 0, 2**64 - 1, L1_AT)),
        ),
        CorruptImage,
        "bitmap directory",
    ),
    "bitmaps extension short": (
        both(fields(autoclear_features=1), extension(ExtensionKind.BITMAPS, bytes(8))),
        CorruptImage,
        "bitmaps extension",
    ),
    "extension too long": (
        lambda raw: raw.__setitem__(slice(112, 120), b"\1\2\3\4\xff\xff\xff\xff"),
        CorruptImage,
        "0x01020304",
    ),
    "L2 outside": (entry(L1_AT, 1 << 40), CorruptImage, "L2 table"),
    "L2 unaligned": (both(with_l2, entry(L1_AT, L2_AT + 512)), CorruptImage, "no L1 entry"),
    "L2 reserved bits": (both(with_l2, entry(L1_AT, L2_AT | 2)), CorruptImage, "no L1 entry"),
    "L2 is the L1": (both(with_l2, entry(L1_AT, L1_AT)), CorruptImage, "overlap"),
    "L2 is the refcount table": (entry(L1_AT, 64 * KIB), CorruptImage, "overlap"),
    "data outside": (both(with_l2, entry(L2_AT, 1 << 50)), CorruptImage, "data cluster"),
    "data unaligned": (both(with_l2, entry(L2_AT, 512)), CorruptImage, "no L2 entry"),
    "data reserved bits": (both(with_l2, entry(L2_AT, 1 << 60)), CorruptImage, "no L2 entry"),
    "compressed outside": (
        both(with_l2, entry(L2_AT, 1 << 62 | 1 << 40)), CorruptImage, "compressed data"
    ),
    "header length": (fields(header_length=1 << 31), CorruptImage, "header length"),
    "version 4": (fields(version=4), UnsupportedFeature, "version 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_named_cases(tmp_path: Path, name: str) -> None:
    edit, refusal, words = CASES[name]
    raw = image_bytes()
    edit(raw)
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(refusal, match=words) as caught:
        screen(tmp_path / "a")
    assert caught.value.path == tmp_path / "a"


def test_the_untouched_images_are_accepted(tmp_path: Path) -> None:
    for edit in (fields(), with_l2, both(with_l2, entry(L2_AT, 1 << 63 | L1_AT)), with_snapshot()):
        raw = image_bytes()
        edit(raw)
        (tmp_path / "a").write_bytes(raw)
        assert screen(tmp_path / "a").virtual_size == GIB


@pytest.mark.parametrize(
    ("entry_words", "accepted"),
    [
        ((1 << 63 | 64 * KIB, 0xFFFFFFFF), True),
        ((64 * KIB, 0x0000FFFF_FFFF0000), True),
        ((0, 0xFFFFFFFF_00000000), True),
        ((0, 1), False),  # allocated, but nowhere
        ((64 * KIB, 1 << 32 | 1), False),  # allocated and zero
        ((64 * KIB | 1, 0), False),  # the zero flag of plain entries
        ((1 << 62 | 64 * KIB, 1), False),  # compressed clusters have no subclusters
    ],
)
def test_extended_entries(tmp_path: Path, entry_words: tuple[int, int], accepted: bool) -> None:
    raw = image_bytes(extended=True)
    with_l2(raw)
    raw[L2_AT : L2_AT + 16] = struct.pack(">QQ", *entry_words)
    (tmp_path / "a").write_bytes(raw)
    if accepted:
        screen(tmp_path / "a")
    else:
        with pytest.raises(CorruptImage):
            screen(tmp_path / "a")


def test_truncation_at_every_structure(tmp_path: Path) -> None:
    raw = image_bytes()
    with_l2(raw)
    path = tmp_path / "a"
    for length in (
        1,
        3,
        4,
        8,
        71,
        72,
        103,
        104,
        111,
        65535,
        65536,
        131072,
        196608,
        L2_AT,
        L2_AT + 8,
    ):
        path.write_bytes(raw[:length])
        if length < 4:
            assert screen(path).format == "raw"
        else:
            with pytest.raises(ImageError):
                screen(path)
    path.write_bytes(b"")
    with pytest.raises(CorruptImage, match="empty"):
        screen(path)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\x1f\x8b\x08\0", "gunzip"),
        (b"\xfd7zXZ\0", "unxz"),
        (b"PK\x03\x04", "unpack it first"),
        (b"LUKS\xba\xbe\0\1", "decrypt it first"),
        (b"QED\0", "qemu-img convert"),
    ],
)
def test_what_is_no_disk_image_says_what_to_do(tmp_path: Path, head: bytes, words: str) -> None:
    (tmp_path / "a").write_bytes(head + bytes(4096))
    with pytest.raises(UnsupportedFeature) as caught:
        screen(tmp_path / "a")
    assert words in caught.value.hint


@pytest.mark.parametrize("seed", range(4))
def test_mutated_images(tmp_path: Path, seed: int) -> None:
    """Interesting values into fields and entries of valid images: an image error, or facts."""
    chance = random.Random(seed)
    extended = bool(seed % 2)
    original = image_bytes(extended=extended, cluster_size=64 * KIB, size=4 * GIB)
    with_l2(original)
    values = [0, 1, 2, 511, 512, 65535, 65536, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
    places = [*range(4, 112, 4), 112, 116, 64 * KIB, 128 * KIB, L1_AT, L1_AT + 8, L2_AT, L2_AT + 8]
    path = tmp_path / "a"
    for _ in range(400):
        raw = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            at, width = chance.choice(places), chance.choice([4, 8])
            value = chance.choice([*values, chance.randrange(2**64)]) & (1 << 8 * width) - 1
            raw[at : at + width] = value.to_bytes(width, "big")
        path.write_bytes(raw[: chance.choice([len(raw), len(raw), chance.randrange(len(raw))])])
        with suppress(ImageError):
            screen(path)


def amplified(path: Path, *, cluster_bits: int, extended: bool) -> None:
    """A file of a megabyte on disk whose L1 names as many L2 tables as it can, all in holes."""
    size = 1 << cluster_bits
    entries = (MIB - 16 * KIB) // 8
    raw = image_bytes(cluster_size=size, extended=extended, size=MIB)
    l1_at = 1 << 24
    put(raw, "l1_entries", entries)
    put(raw, "l1_table_offset", l1_at)
    end = (1 << 25) + entries * size
    with path.open("wb") as file:
        os.pwrite(file.fileno(), raw[: 3 * 512], 0)
        for at in (size, 2 * size):
            os.pwrite(file.fileno(), raw[at : at + 16], at)
        first = 1 << 25
        l1 = b"".join((first + index * size).to_bytes(8, "big") for index in range(entries))
        os.pwrite(file.fileno(), l1, l1_at)
        file.truncate(end)


def many_snapshots(path: Path) -> None:
    raw = image_bytes(cluster_size=512, size=MIB)
    put(raw, "snapshot_count", 65536)
    put(raw, "snapshots_offset", 1 << 24)
    path.write_bytes(raw)
    with path.open("r+b") as file:
        file.truncate(1 << 32)


def dense_l2(path: Path) -> None:
    """Every cluster of a full megabyte is an L2 table of entries that must be looked at."""
    raw = image_bytes(cluster_size=512, size=MIB)
    tables = (MIB - len(raw) - 16 * KIB) // 512
    l1_at = len(raw) + -len(raw) % 512
    raw.extend(bytes(l1_at + 16 * KIB - len(raw)))
    put(raw, "l1_entries", tables)
    put(raw, "l1_table_offset", l1_at)
    for index in range(tables):
        raw[l1_at + 8 * index : l1_at + 8 * index + 8] = (len(raw)).to_bytes(8, "big")
        raw.extend((1 << 62 | 512).to_bytes(8, "big") * 64)
    path.write_bytes(raw)


_MEASURE = """
import resource, sys, time
from pathlib import Path
from thinvirt.errors import ImageError
from thinvirt.image.ops.screen import screen
try:
    screen(Path(sys.argv[1]))
except ImageError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["amplified", "amplified extended", "snapshots", "dense"])
def test_time_and_memory_are_bounded(tmp_path: Path, kind: str) -> None:
    """256 MiB of address space beyond the interpreter's, and 2 s of processor, are enough."""
    path = tmp_path / "a"
    match kind:
        case "amplified":
            amplified(path, cluster_bits=21, extended=False)
        case "amplified extended":
            amplified(path, cluster_bits=21, extended=True)
        case "snapshots":
            many_snapshots(path)
        case _:
            dense_l2(path)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (3, 3))  # with the start of the interpreter
        resource.setrlimit(resource.RLIMIT_AS, (300 * MIB, 300 * MIB))

    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, path],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
