"""Resize, amend, bitmaps and snapshots: the same file as qemu-img leaves, and sound."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu
from tests.qcow2_images import Guest, make, opened

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open, WriteFlags
from thinvirt.image.block.qcow2 import Qcow2Node
from thinvirt.image.block.root import Root

pytestmark = pytest.mark.oracle

_READ_WRITE = Open.RDWR | Open.RESIZE


def _image(qemu: Qemu, path: Path, options: str, *commands: str) -> None:
    given = ["-o", options] if options else []
    qemu.img("create", "-q", "-f", "qcow2", *given, str(path), "4M")
    for command in ("write -P 1 0 200k", "write -P 2 1M 1k", "write -z 2M 128k", *commands):
        if not command.startswith("write -z") or "0.10" not in options:
            qemu.io("-c", command, str(path))


def _both(
    qemu: Qemu,
    image: Path,
    theirs: tuple[str, ...],
    ours: Callable[[Root, Qcow2Node], None],
    flags: int = _READ_WRITE,
) -> None:
    """Let qemu-img and us do the same to copies of an image: the results are equal."""
    copy = image.with_suffix(".theirs")
    shutil.copy(image, copy)
    qemu.img(*theirs[:-1], *(word.replace("IMAGE", str(copy)) for word in theirs[-1:]))
    with opened(image, flags) as (disk, node):
        ours(disk, node)
    assert image.read_bytes() == copy.read_bytes()
    qemu.img("check", "-q", str(image))


@pytest.mark.parametrize("options", ["", "extended_l2=on", "cluster_size=512", "refcount_bits=1"])
@pytest.mark.parametrize("mode", ["off", "metadata", "falloc", "full"])
def test_growing(tmp_path: Path, qemu: Qemu, options: str, mode: str) -> None:
    image = tmp_path / "disk"
    _image(qemu, image, options)
    command = (
        "resize",
        "-q",
        f"--preallocation={mode}",
        "-f",
        "qcow2",
        str(tmp_path / "disk.theirs"),
    )
    copy = tmp_path / "disk.theirs"
    shutil.copy(image, copy)
    qemu.img(*command, "9M")
    with opened(image, _READ_WRITE) as (disk, _node):
        disk.truncate(9 << 20, preallocation=mode)
    assert image.read_bytes() == copy.read_bytes()
    qemu.img("check", "-q", str(image))


@pytest.mark.parametrize("options", ["", "extended_l2=on", "cluster_size=512", "compat=0.10"])
def test_shrinking(tmp_path: Path, qemu: Qemu, options: str) -> None:
    image = tmp_path / "disk"
    _image(qemu, image, options, "write -P 3 3M 300k")
    copy = tmp_path / "disk.theirs"
    shutil.copy(image, copy)
    qemu.img("resize", "-q", "--shrink", "-f", "qcow2", str(copy), "1M")
    with opened(image, _READ_WRITE | Open.UNMAP) as (disk, _node):
        disk.truncate(1 << 20)
    assert image.read_bytes() == copy.read_bytes()
    qemu.img("check", "-q", str(image))


@pytest.mark.parametrize(
    ("created", "change"),
    [
        ("compat=0.10", "compat=1.1"),
        ("", "compat=0.10"),
        ("lazy_refcounts=on", "compat=0.10"),
        ("", "lazy_refcounts=on"),
        ("lazy_refcounts=on", "lazy_refcounts=off"),
        ("", "refcount_bits=64"),
        ("", "refcount_bits=1"),
        ("cluster_size=512", "refcount_bits=64"),
        ("refcount_bits=64,cluster_size=512", "refcount_bits=2"),
        ("compat=0.10", "compat=1.1,refcount_bits=8,lazy_refcounts=on,size=6M"),
    ],
)
def test_amending(tmp_path: Path, qemu: Qemu, created: str, change: str) -> None:
    image = tmp_path / "disk"
    _image(qemu, image, created)

    def ours(_disk: Root, node: Qcow2Node) -> None:
        node.amend_image(node.amend_options.parse(change), force=False, watch=lambda _d, _t: None)

    _both(qemu, image, ("amend", "-f", "qcow2", "-o", change, "IMAGE"), ours)


def test_a_width_too_narrow_is_refused(tmp_path: Path, qemu: Qemu) -> None:
    image = tmp_path / "disk"
    _image(qemu, image, "")
    qemu.img("snapshot", "-c", "one", str(image))
    said = qemu.img_error("amend", "-f", "qcow2", "-o", "refcount_bits=1", str(image))
    with opened(image, _READ_WRITE) as (_disk, node), pytest.raises(BlockError) as caught:
        node.amend_image(
            node.amend_options.parse("refcount_bits=1"), force=False, watch=lambda _d, _t: None
        )
    assert caught.value.message in said
    qemu.img("check", "-q", str(image))


def test_bitmaps(tmp_path: Path, qemu: Qemu) -> None:
    image = tmp_path / "disk"
    _image(qemu, image, "")
    steps: list[tuple[tuple[str, ...], Callable[[Qcow2Node], None]]] = [
        (("--add", "IMAGE", "one"), lambda node: node.add_bitmap("one", None)),
        (
            ("--add", "-g", "4k", "--disable", "IMAGE", "two"),
            lambda node: node.add_bitmap("two", 4096, enabled=False),
        ),
    ]
    for arguments, ours in steps:
        copy = tmp_path / "disk.theirs"
        shutil.copy(image, copy)
        qemu.img("bitmap", *(word.replace("IMAGE", str(copy)) for word in arguments))
        with opened(image, Open.RDWR) as (_disk, node):
            ours(node)
        assert image.read_bytes() == copy.read_bytes()
    with opened(image, Open.RDWR) as (disk, node):
        disk.write(1 << 20, b"\7" * 100000)
        disk.write_zeroes(3 << 20, 65536)
        inside = json.loads(qemu.img("info", "-U", "--output=json", str(image)))
        assert ["in-use", "auto"] in [
            bitmap["flags"] for bitmap in inside["format-specific"]["data"]["bitmaps"]
        ]
    steps = [
        (("--merge", "one", "IMAGE", "two"), lambda node: node.merge_bitmap("two", node, "one")),
        (("--enable", "IMAGE", "two"), lambda node: node.set_bitmap_enabled("two", True)),
        (("--clear", "IMAGE", "one"), lambda node: node.clear_bitmap("one")),
        (("--remove", "IMAGE", "one"), lambda node: node.remove_bitmap("one")),
    ]
    for arguments, ours in steps:
        copy = tmp_path / "disk.theirs"
        shutil.copy(image, copy)
        qemu.img("bitmap", *(word.replace("IMAGE", str(copy)) for word in arguments))
        with opened(image, Open.RDWR) as (_disk, node):
            ours(node)
        qemu.img("check", "-q", str(image))
        assert image.read_bytes() == copy.read_bytes(), arguments


@pytest.mark.parametrize(
    "options", ["", "extended_l2=on", "compat=0.10", "cluster_size=512", "lazy_refcounts=on"]
)
def test_snapshots_keep_what_was(tmp_path: Path, qemu: Qemu, options: str) -> None:
    image = tmp_path / "disk"
    unit = 512 if "512" in options else 65536
    size = 150 * unit
    make(image, f"size={size},{options}" if options else f"size={size}")
    guest = Guest(3, size, unit)
    guest.operations = ["write", "write", "zero", "read"]
    kept: dict[str, bytes] = {}
    for number in range(12):
        with opened(image, _READ_WRITE | Open.UNMAP) as (disk, node):
            guest.run(disk, 6)
            known = list(node.list_snapshots())
            match guest.random.choice("ccads"):
                case "c":
                    node.create_snapshot(f"n{number}", date_ns=1_700_000_000_000_000_000)
                    kept[f"n{number}"] = bytes(guest.shadow)
                case "a" if known:
                    chosen = guest.random.choice(known)
                    node.apply_snapshot(chosen)
                    guest.shadow = bytearray(kept[chosen.name])
                case "d" if known:
                    chosen = guest.random.choice(known)
                    node.delete_snapshot(chosen)
                    del kept[chosen.name]
                case "s" if "0.10" not in options:
                    new_size = guest.random.randrange(size // 2, 2 * size) // 512 * 512
                    disk.truncate(new_size)
                    guest.shadow = guest.shadow[:new_size].ljust(new_size, b"\0")
        qemu.img("check", "-q", str(image))
        guest.check(image)
    for name, content in kept.items():
        qemu.img("convert", "-l", f"snapshot.name={name}", "-O", "raw", str(image), "out.raw")
        found = (tmp_path / "out.raw").read_bytes()
        common = min(len(found), len(content))
        assert found[:common] == content[:common]


def test_snapshots_are_written_as_by_qemu(tmp_path: Path, qemu: Qemu) -> None:
    image, copy = tmp_path / "disk", tmp_path / "theirs"
    _image(qemu, image, "")
    shutil.copy(image, copy)
    qemu.img("snapshot", "-c", "one", str(copy))
    date = copy.read_bytes()
    with opened(image) as (_disk, node):
        node.create_snapshot("one", date_ns=0)
    with opened(copy, 0) as (_disk, node):
        [theirs] = node.snapshots
        place = node.header.snapshots_offset
    expected = bytearray(date)
    expected[place + 16 : place + 24] = bytes(8)  # the time of day
    assert theirs.name == b"one"
    assert image.read_bytes() == expected


@pytest.mark.parametrize("options", ["", "extended_l2=on", "compat=0.10", "data_file=data"])
def test_what_was_cut_off_does_not_come_back(
    tmp_path: Path, qemu: Qemu, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """It does with qemu-img, where the new end lay within a cluster."""
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "disk"
    _image(qemu, image, options)
    qemu.img("resize", "-q", "--shrink", "-f", "qcow2", str(image), "70144")
    with opened(image, _READ_WRITE) as (disk, _node):
        kept = disk.read(0, disk.size)
        disk.truncate(3 << 20)
        assert disk.read(0, disk.size) == kept.ljust(3 << 20, b"\0")
    qemu.img("check", "-q", str(image))


@pytest.mark.parametrize("options", ["data_file=data", "data_file=data,data_file_raw=on"])
def test_what_is_written_where_something_was_given_up_stays(
    tmp_path: Path, qemu: Qemu, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """A data file is told late to forget clusters; they may have been used again by then."""
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "disk"
    _image(qemu, image, options)
    with opened(image, _READ_WRITE | Open.UNMAP) as (disk, _node):
        disk.write(0, b"\1" * (1 << 20))
        disk.flush()
        disk.write_zeroes(0, 1 << 20, WriteFlags.MAY_UNMAP)
        disk.write(200_000, b"\2" * 200_000)
        disk.discard(0, 1 << 20)
        disk.write(300_000, b"\3" * 200_000)
        shown = disk.read(0, disk.size)
    with opened(image, 0) as (disk, _node):
        assert disk.read(0, disk.size) == shown
    assert shown.count(b"\3") == 200_000
    qemu.img("check", "-q", str(image))
