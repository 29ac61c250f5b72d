"""Host files: data, holes and space on disk as real QEMU leaves and sees them."""

import json
import os
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu

from thinvirt.image.block.errors import BlockError, DiskFull, NotSupported
from thinvirt.image.block.file_create import CREATE_OPTIONS, create_file, create_from_options
from thinvirt.image.block.flags import Open, Status, WriteFlags
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.host_device import HostDeviceNode
from thinvirt.image.block.root import Root
from thinvirt.image.block.status import extents

pytestmark = pytest.mark.oracle
K = 1 << 10
RAW = {"driver": "raw"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mapped(image: Root) -> list[dict[str, object]]:
    """Return our extents as qemu-img map prints them, neighbours of a kind merged."""
    rows: list[dict[str, object]] = []
    for offset, extent in extents(image.node):
        row: dict[str, object] = {
            "start": offset,
            "length": extent.length,
            "depth": extent.depth - 1,
            "present": bool(extent.flags & Status.ALLOCATED),
            "zero": extent.is_zero,
            "data": extent.is_data,
        }
        if not extent.is_zero and not extent.is_data:
            row["depth"] = 0  # nothing is known: map does not say who does not know it
        elif extent.flags & Status.OFFSET_VALID:
            row["offset"] = extent.host_offset
        last = rows[-1] if rows else None
        if last and all(last.get(k) == row.get(k) for k in ("present", "zero", "data")):
            last["length"] = int(str(last["length"])) + extent.length
        else:
            rows.append(row)
    return rows


@pytest.mark.parametrize("size", [1 << 20, 1000, 512, 4096, 100 * K + 1])
def test_map_is_qemus(qemu: Qemu, size: int) -> None:
    Path("a").write_bytes(b"")
    os.truncate("a", size)
    if size > 64 * K:
        qemu.io("-f", "raw", "-c", "write -P 1 0 4k", "-c", "write -P 1 32k 20k", "a")
    elif size < 4096:
        Path("a").write_bytes(b"x" * size)
    with BlockGraph().open_root("a", RAW) as image:
        ours = mapped(image)
    assert ours == json.loads(qemu.img("map", "--output=json", "-f", "raw", "a"))


@pytest.mark.parametrize("preallocation", ["off", "falloc", "full"])
@pytest.mark.parametrize("size", [0, 512, 4096, 1 << 20, 1000])
def test_creating_takes_the_space_that_qemu_takes(
    qemu: Qemu, preallocation: str, size: int
) -> None:
    options = f"preallocation={preallocation}"
    qemu.img("create", "-q", "-f", "raw", "-o", options, "theirs", str(size))
    create_from_options("file:ours", CREATE_OPTIONS.parse(f"{options},size={size}"), print)
    ours, theirs = os.stat("ours"), os.stat("theirs")
    assert (ours.st_size, ours.st_blocks) == (theirs.st_size, theirs.st_blocks)
    assert ours.st_mode == theirs.st_mode


def test_growing_is_qemus(qemu: Qemu) -> None:
    for name in ("ours", "theirs"):
        create_file(name, 64 * K)
    for mode, size in (("off", 128 * K), ("falloc", 256 * K), ("full", 512 * K)):
        qemu.img("resize", "-q", "-f", "raw", f"--preallocation={mode}", "theirs", str(size))
        with BlockGraph().open_root("ours", RAW, Open.RDWR | Open.RESIZE) as image:
            image.truncate(size, preallocation=mode)
            assert image.size == size
        assert os.stat("ours").st_blocks == os.stat("theirs").st_blocks
    with BlockGraph().open_root("ours", RAW, Open.RDWR | Open.RESIZE) as image:
        image.truncate(K)
        with pytest.raises(NotSupported, match="Unsupported preallocation mode: metadata"):
            image.truncate(2 * K, preallocation="metadata")
        with pytest.raises(NotSupported, match="Cannot use preallocation for shrinking files"):
            image.truncate(512, preallocation="full")
    assert os.stat("ours").st_size == K


@pytest.mark.parametrize("command", ["write -z", "write -z -u", "discard"])
@pytest.mark.parametrize("place", [(0, 64 * K), (4 * K, 8 * K), (100, 5000), (120 * K, 8 * K)])
def test_zeroes_and_discards_do_to_the_file_what_qemus_do(
    qemu: Qemu, command: str, place: tuple[int, int]
) -> None:
    for name in ("ours", "theirs"):
        Path(name).write_bytes(b"x" * (128 * K))
    offset, length = place
    qemu.io("-f", "raw", "-d", "unmap", "-c", f"{command} {offset} {length}", "theirs")
    with BlockGraph().open_root("ours", RAW, Open.RDWR | Open.UNMAP) as image:
        match command:
            case "write -z":
                image.write_zeroes(offset, length)
            case "write -z -u":
                image.write_zeroes(offset, length, WriteFlags.MAY_UNMAP)
            case _:
                image.discard(offset, length)
    assert Path("ours").read_bytes() == Path("theirs").read_bytes()
    assert os.stat("ours").st_blocks == os.stat("theirs").st_blocks


def test_writing_past_the_end_grows_a_file_but_not_an_image(qemu: Qemu) -> None:
    create_file("a", 4096)
    with BlockGraph().open_root("a", RAW, Open.RDWR | Open.RESIZE) as image:
        image.node.file.write(10_000, b"abc")
        assert image.size == 10_240
        with pytest.raises(BlockError) as caught:
            image.write(10_240, b"x")
        assert caught.value.reason == "Input/output error"
        assert image.node.read(9_998, 600) == b"\0\0abc" + bytes(595)
    assert os.stat("a").st_size == 10_003
    assert "length 10.000 KiB" not in qemu.io("-f", "raw", "-c", "length", "a")


@pytest.mark.parametrize("place", [(0, 4096), (1, 1), (511, 1026), (4000, 5000), (60_000, 10_000)])
def test_direct_io_of_any_alignment(qemu: Qemu, place: tuple[int, int]) -> None:
    expected = bytearray(os.urandom(64 * K))
    Path("a").write_bytes(expected)
    offset, length = place
    length = min(length, len(expected) - offset)
    try:
        image = BlockGraph().open_root("a", RAW, Open.RDWR | Open.NOCACHE)
    except BlockError as error:
        pytest.skip(error.message)  # not every file system can
    with image:
        assert image.node.file.request_alignment > 1
        assert image.read(offset, length) == expected[offset : offset + length]
        image.write(offset, b"n" * length)
        expected[offset : offset + length] = b"n" * length
        assert image.read(0, len(expected)) == expected
    assert Path("a").read_bytes() == expected
    assert "read" in qemu.io("-f", "raw", "-n", "-c", "read 0 64k", "a")


def test_a_full_disk_is_told_as_such() -> None:
    with BlockGraph().open_root(
        "/dev/full", {"driver": "host_device"}, Open.RDWR | Open.NO_FLUSH
    ) as device:
        with pytest.raises(DiskFull) as caught:
            device.node.write(0, b"x")
        assert caught.value.reason == "No space left on device"


def test_read_only_refuses_every_change() -> None:
    create_file("a", 4096)
    with BlockGraph().open_root("a", RAW) as image:
        with pytest.raises(BlockError):
            image.write(0, b"x")
        with pytest.raises(BlockError):
            image.write_zeroes(0, 512)
        with pytest.raises(BlockError):
            image.truncate(512)
    assert Path("a").read_bytes() == bytes(4096)


def test_extended_and_shrunk_by_somebody_else(qemu: Qemu) -> None:
    create_file("a", 64 * K)
    with BlockGraph().open_root("a", RAW) as image:
        os.truncate("a", 4096)  # reads past the end must not fail
        assert image.read(0, 64 * K) == bytes(64 * K)


def test_detect_zeroes_makes_holes() -> None:
    Path("a").write_bytes(b"x" * (64 * K))
    options = {"driver": "raw", "detect-zeroes": "unmap", "discard": "unmap"}
    with BlockGraph().open_root("a", options, Open.RDWR) as image:
        image.write(0, bytes(32 * K))
        assert image.node.status(0, 64 * K).is_zero
        assert image.node.status(0, 64 * K).length == 32 * K


def test_the_host_copies_between_files() -> None:
    data = os.urandom(100 * K)
    Path("from").write_bytes(data)
    create_file("to", 100 * K)
    with (
        BlockGraph().open_root("from", RAW) as source,
        BlockGraph().open_root("to", RAW, Open.RDWR) as target,
    ):
        extent = source.node.status(8 * K, 64 * K)
        assert extent.node is not None
        target.node.copy_from_file(extent.node, extent.host_offset, 4 * K, extent.length)
        assert target.read(4 * K, 64 * K) == data[8 * K : 72 * K]
        with pytest.raises(NotSupported):
            target.node.copy_from_file(extent.node, 100 * K, 0, K)
        with pytest.raises(NotSupported):
            target.node.copy_from_file(source.node, 0, 0, K)


def test_devices_are_taken_as_they_are(qemu: Qemu) -> None:
    theirs = qemu.img_error("create", "-q", "-f", "raw", "/dev/full", "1M")
    values = HostDeviceNode.create_options.parse("size=1M")
    with pytest.raises(BlockError) as caught:
        HostDeviceNode.create_image(BlockGraph(), "/dev/full", values)
    assert theirs.strip() == f"qemu-img: /dev/full: {caught.value.message}"


def test_a_pipe_does_not_hold_us() -> None:
    os.mkfifo("pipe")
    with pytest.raises(BlockError, match="'file' driver requires 'pipe' to be a regular file"):
        BlockGraph().open_root("pipe")
