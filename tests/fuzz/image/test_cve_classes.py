"""What made qcow2 readers fail over the years, one test for each class, by its CVE numbers.

The images are refused with a message that names the field; nothing outside them is read.
"""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.qcow2_images import make

from thinvirt.errors import HostileImage, ThinvirtError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.formats.qcow2.layout import FIELD_OFFSET
from thinvirt.image.ops.screen import screen
from thinvirt.image.qemu_img.main import main

Edit = Callable[[bytearray], None]
_WIDTHS = {"incompatible_features": 8, "virtual_size": 8, "l1_table_offset": 8,
           "backing_file_offset": 8, "refcount_table_offset": 8, "snapshots_offset": 8,
           "compression_type": 1}  # fmt: skip
_L1_AT = 0x30000


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    make(path, "size=1G")
    return path


def put(path: Path, **values: int) -> None:
    """Set header fields."""
    with path.open("r+b") as file:
        for name, value in values.items():
            width = _WIDTHS.get(name, 4)
            os.pwrite(file.fileno(), value.to_bytes(width, "big"), FIELD_OFFSET[name])


def patch(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), data, at)


def u64(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}Q", *numbers)


def extend(path: Path, kind: int, data: bytes) -> None:
    """Put a header extension in front of those there are."""
    raw = path.read_bytes()
    one = struct.pack(">II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")
    patch(path, 112, one + raw[112 : 65536 - len(one)])


def refused(path: Path, words: str, flags: int = 0) -> None:
    """Opening fails, and the message says why."""
    with pytest.raises(ThinvirtError, match=words):
        BlockGraph().open_root(str(path), {"driver": "qcow2"}, flags)


def thin(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run the drop-in; return its status and all that it said."""
    status = main(["thin-img", *words])
    said = capfd.readouterr()
    return status, said.out + said.err


# ---------------------------------------------------------------- sizes and wraps


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("cluster_bits", 63, "cluster size: 2\\^63"),
        ("cluster_bits", 0, "cluster size: 2\\^0"),
        ("header_length", 8, "header too short"),
        ("header_length", 1 << 31, "header exceeds cluster size"),
        ("refcount_table_clusters", 0x7FFFFFFF, "Reference count table too large"),
        ("refcount_table_clusters", 0, "reference count table"),
        ("backing_file_offset", 1 << 63, "Invalid backing file offset"),
        ("refcount_order", 63, "Reference count entry width too large"),
    ],
)
def test_cve_2014_0144_missing_input_validation(
    image: Path, field: str, value: int, words: str
) -> None:
    put(image, **{field: value})
    refused(image, words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"l1_entries": 0xFFFFFFFF}, "Active L1 table too large"),
        ({"l1_entries": 0x02000000}, "Active L1 table too large"),
        ({"l1_table_offset": (1 << 64) - 65536}, "Active L1 table offset invalid"),
        ({"l1_table_offset": 1 << 63}, "Active L1 table offset invalid"),
        ({"snapshot_count": 0xFFFFFFFF}, "Snapshot table too large"),
        ({"snapshot_count": 1, "snapshots_offset": (1 << 64) - 65536}, "Snapshot table offset"),
        ({"refcount_table_offset": (1 << 63) - 65536}, "Reference count table offset invalid"),
    ],
)
def test_cve_2014_0143_integer_overflows(image: Path, fields: dict[str, int], words: str) -> None:
    put(image, **fields)
    refused(image, words)


def test_cve_2014_0142_a_size_of_nothing_divides_nothing(
    image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(image, virtual_size=0, l1_entries=0)
    for command in ("info", "check", "map", "measure -O qcow2"):
        assert thin(capfd, *command.split(), "-f", "qcow2", str(image))[0] in (0, 3)


def with_snapshot(path: Path, *, l1_at: int, entries: int, extra: int = 16, names: int = 1) -> None:
    """Add a snapshot table with one entry."""
    at = 0x50000
    entry = struct.pack(">QIHHIIQII", l1_at, entries, names, names, 0, 0, 0, 0, extra)
    patch(path, at, entry + bytes(16) + b"1s" + bytes(6))
    put(path, snapshot_count=1, snapshots_offset=at)


@pytest.mark.parametrize(
    ("l1_at", "entries", "words"),
    [
        (0x60000, 0xFFFFFFFF, "L1 table too large"),
        (0x60000, 0x02000000, "L1 table too large"),
        (0x60001, 1, "L1 table offset invalid"),
        ((1 << 64) - 65536, 16, "L1 table offset invalid"),
    ],
)
def test_cve_2014_0145_a_snapshot_with_a_huge_l1_table(
    image: Path, capfd: pytest.CaptureFixture[str], l1_at: int, entries: int, words: str
) -> None:
    with_snapshot(image, l1_at=l1_at, entries=entries)
    for command in (("snapshot", "-a", "1"), ("snapshot", "-d", "s")):
        status, said = thin(capfd, *command, str(image))
        assert status == 1
        assert words in said
    target = str(image) + ".raw"
    arguments = ["convert", "-O", "raw", "-l", "snapshot.id=1", str(image), target]
    status, said = thin(capfd, *arguments)
    assert status == 1
    assert words in said


def test_cve_2014_0145_an_extension_longer_than_its_cluster(image: Path) -> None:
    for length in (0xFFFFFFFF, 0x7FFFFFFF, 65536):
        patch(image, 112, struct.pack(">II", 0xE2792ACA, length))
        refused(image, "Header extension too large")


def test_cve_2014_0146_tables_that_cannot_be_read_leave_nothing_half_open(image: Path) -> None:
    put(image, l1_table_offset=0x30001)
    for _ in range(3):
        refused(image, "Active L1 table offset invalid", Open.RDWR)
    put(image, l1_table_offset=_L1_AT)
    BlockGraph().open_root(str(image), {"driver": "qcow2"}, Open.RDWR).close()  # no lock stayed


def test_cve_2014_0147_a_snapshot_of_an_image_whose_l1_table_is_its_header(
    image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(image, l1_table_offset=0)
    before = image.read_bytes()
    status, said = thin(capfd, "snapshot", "-c", "one", str(image))
    assert status == 1
    assert said.strip()
    assert image.read_bytes()[:72] == before[:72] or b"corrupt" in said.lower().encode()


def test_cve_2014_0148_tables_that_point_to_themselves(
    image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    patch(image, _L1_AT, u64(_L1_AT | 1 << 63, _L1_AT | 1 << 63))  # the L1 table is its own L2
    patch(image, 0x10000, u64(0x10000))  # the refcount table is its own block
    for command in ("check", "map", "info"):
        thin(capfd, command, "-f", "qcow2", str(image))
    status, said = thin(capfd, "check", "-f", "qcow2", str(image))
    assert status == 2
    assert "ERROR" in said


@pytest.mark.parametrize("number", ["0222", "0223"])
def test_cve_2014_0222_and_0223_qcow_version_1(image: Path, number: str) -> None:
    """Its L2 bits and its size were not checked; the format is not read here at all."""
    put(image, version=1)
    if number == "0223":
        put(image, virtual_size=(1 << 64) - 1)
    refused(image, "Unsupported qcow2 version 1")


def test_cve_2014_3461_a_virtual_size_beyond_all_tables(image: Path) -> None:
    put(image, virtual_size=1 << 62)
    refused(image, "Image is too big|L1 table is too small")
    put(image, virtual_size=(1 << 63) + 512)
    refused(image, "Image is too big|L1 table is too small")


# ---------------------------------------------------------------- bitmaps, of QEMU 2.9 and later


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack(">IIQQ", 65536, 0, 64, 0x50000), "65536 bitmaps"),
        (struct.pack(">IIQQ", 0, 0, 64, 0x50000), "zero bitmaps"),
        (struct.pack(">IIQQ", 1, 1, 64, 0x50000), "Reserved field"),
        (struct.pack(">IIQQ", 1, 0, (1 << 64) - 1, 0x50000), "bitmap directory size"),
        (struct.pack(">IIQQ", 1, 0, 64, 0x50001), "invalid bitmap directory offset"),
        (bytes(8), "extension length"),
    ],
)
def test_oversized_bitmap_directories(image: Path, data: bytes, words: str) -> None:
    extend(image, 0x23852875, data)
    patch(image, FIELD_OFFSET["autoclear_features"], u64(1))
    refused(image, words)


@pytest.mark.parametrize(
    ("table_at", "entries", "granularity", "name_size", "extra", "words"),
    [
        (0x60000, 0xFFFFFFFF, 16, 4, 0, "doesn't satisfy the constraints"),
        (0x60001, 1, 16, 4, 0, "doesn't satisfy the constraints"),
        ((1 << 64) - 65536, 0x8000000, 16, 4, 0, "doesn't satisfy the constraints"),
        (0x60000, 1, 255, 4, 0, "doesn't satisfy the constraints"),
        (0x60000, 1, 16, 4, 0xFFFFFFFF, "Broken bitmap directory|extra data"),
        (0x60000, 1, 16, 0xFFFF, 0, "Broken bitmap directory"),
    ],
)
def test_oversized_bitmap_tables(
    image: Path,
    table_at: int,
    entries: int,
    granularity: int,
    name_size: int,
    extra: int,
    words: str,
) -> None:
    entry = struct.pack(">QIIBBHI", table_at, entries, 0, 1, granularity, name_size, extra)
    patch(image, 0x50000, entry + b"name" + bytes(4))
    extend(image, 0x23852875, struct.pack(">IIQQ", 1, 0, 32, 0x50000))
    patch(image, FIELD_OFFSET["autoclear_features"], u64(1))
    refused(image, words)


# ---------------------------------------------------------------- disclosure


def _secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"the host's secret".ljust(65536, b"."))
    return path


@pytest.mark.parametrize("cve", ["2008-2004", "2013-1922"])
def test_cve_2008_2004_and_2013_1922_a_guest_that_writes_a_header(
    image: Path, capfd: pytest.CaptureFixture[str], cve: str
) -> None:
    """A raw disk that a guest made look like qcow2 stays raw wherever its format was not given."""
    overlay = image.with_name("overlay")
    words = ["create", "-q", "-f", "qcow2", "-b", str(image), str(overlay)]
    status, said = thin(capfd, *words)
    assert status == 1
    assert "backing format" in said
    assert not overlay.exists()


@pytest.mark.parametrize("cve", ["2015-1850", "2015-1851", "2015-5163"])
@pytest.mark.parametrize("prefix", ["", "file:", "json:"])
def test_cve_2015_1850_1851_5163_an_image_that_names_a_file_of_the_host(
    image: Path, tmp_path: Path, prefix: str, cve: str
) -> None:
    name = str(_secret(tmp_path))
    if prefix == "json:":
        name = json.dumps({"driver": "raw", "file": {"driver": "file", "filename": name}})
    text = (prefix + name).encode()
    patch(image, 0x8000, text)
    put(image, backing_file_offset=0x8000, backing_file_size=len(text))
    with pytest.raises(HostileImage, match="backing file"):
        screen(image)


def with_data_file(path: Path, name: str) -> None:
    """Let an image name an external data file; its first cluster lies there."""
    extend(path, 0x44415441, name.encode())
    put(path, incompatible_features=4)
    patch(path, _L1_AT, u64(0x50000 | 1 << 63))
    patch(path, 0x50000, u64(1 << 63))
    patch(path, 0x5FFF8, u64(0))


@pytest.mark.parametrize("cve", ["2024-4467", "2024-32498", "2024-40767"])
def test_cve_2024_4467_32498_40767_an_image_that_names_a_data_file(
    image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], cve: str
) -> None:
    secret = _secret(tmp_path)
    options = {"driver": "raw", "file": {"driver": "file", "filename": str(secret)}}
    with_data_file(image, "json:" + json.dumps(options) if cve == "2024-4467" else str(secret))
    with pytest.raises(HostileImage, match="data in another file"):
        screen(image)
    status, _ = thin(capfd, "info", "--output=json", str(image))
    assert status == 0  # looks, and opens nothing else
    if cve == "2024-4467":  # the name is a name: no options are read out of it
        target = tmp_path / "stolen"
        status, said = thin(capfd, "convert", "-O", "raw", str(image), str(target))
        assert status == 1
        assert "No such file" in said
        assert not target.exists() or b"secret" not in target.read_bytes()


@pytest.mark.parametrize(
    "name", ["nbd://127.0.0.1:1/", "nbd:127.0.0.1:1", "fat:rw:/", "blkdebug::x"]
)
def test_cve_2024_4467_no_protocol_is_read_out_of_a_data_file_name(
    image: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    with_data_file(image, name)
    status, said = thin(capfd, "map", "-f", "qcow2", str(image))
    assert status == 1
    assert "No such file" in said


@pytest.mark.parametrize("depth", [1, 2])
def test_loops_of_backing_files(image: Path, capfd: pytest.CaptureFixture[str], depth: int) -> None:
    names = [image, image.with_name("other")][:depth]
    if depth == 2:
        names[1].write_bytes(image.read_bytes())
    for number, path in enumerate(names):
        text = str(names[(number + 1) % depth]).encode()
        patch(path, 0x8000, text)
        put(path, backing_file_offset=0x8000, backing_file_size=len(text))
    status, said = thin(capfd, "map", "-f", "qcow2", str(image))
    assert status == 1
    assert "itself" in said or "loop" in said.lower()


def test_a_data_file_that_is_the_image_itself(
    image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = image.read_bytes()
    with_data_file(image, str(image))
    status, _ = thin(capfd, "resize", "-f", "qcow2", str(image), "2G")
    assert status == 1
    assert image.read_bytes()[65536:_L1_AT] == before[65536:_L1_AT]
