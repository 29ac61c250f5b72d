"""Copies over images that are there, and the finer points of copying."""

import json
import time
from pathlib import Path

import pytest

from thinvirt import image as ti
from thinvirt.errors import Busy, ImageError, UsageError

SIZE = 1 << 20
CLUSTER = 65536


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.qcow2"
    ti.create(path, SIZE)
    with ti.open_image(path, writable=True) as image:
        image.write(CLUSTER, b"data" * 4096)
    return path


def test_copy_into_what_is_there(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "device"  # as a block device would be: larger, and full of something
    target.write_bytes(b"\xaa" * (2 * SIZE))
    told: list[tuple[int, int]] = []
    ti.copy_into(source, target, target_format="raw", progress=lambda *done: told.append(done))
    content = target.read_bytes()
    assert len(content) == 2 * SIZE
    assert content[:CLUSTER] == bytes(CLUSTER)
    assert content[CLUSTER : CLUSTER + 16384] == b"data" * 4096
    assert content[SIZE:] == b"\xaa" * SIZE
    assert told[-1][0] == told[-1][1] > 0


def test_copy_into_a_target_that_is_zero_writes_no_zeroes(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "zero.qcow2"
    ti.create(target, SIZE)
    ti.copy_into(source, target, target_is_zero=True, compress=True)
    assert ti.compare(source, target) is None
    with ti.open_image(target) as image:
        assert [(e.start, e.kind) for e in image.extents() if e.kind == "data"]
        assert {e.kind for e in image.extents()} == {"data", "unallocated"}


def test_copy_into_an_overlay_copies_what_the_source_has(source: Path, tmp_path: Path) -> None:
    for name in ("one.qcow2", "two.qcow2"):
        ti.create(tmp_path / name, backing=source.name, backing_format="qcow2")
    with ti.open_image(tmp_path / "one.qcow2", writable=True) as image:
        image.write(0, b"own")
    ti.copy_into(tmp_path / "one.qcow2", tmp_path / "two.qcow2", shares_backing=True)
    with ti.open_image(tmp_path / "two.qcow2") as image:
        assert [e.depth for e in image.extents() if e.kind == "data"] == [0, 1]
    assert ti.compare(tmp_path / "one.qcow2", tmp_path / "two.qcow2") is None


def test_copy_into_refuses_what_cannot_be(source: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.raw"
    ti.create(small, SIZE // 2, format="raw")
    with pytest.raises(UsageError) as caught:
        ti.copy_into(source, small, target_format="raw")
    assert caught.value.path == small
    with pytest.raises(UsageError, match="shows its backing file"):
        ti.copy_into(source, source, shares_backing=True, target_is_zero=True)
    with pytest.raises(Busy):
        ti.copy_into(source, source)
    with pytest.raises(ImageError, match="cannot be compressed"):
        ti.convert(source, tmp_path / "new.raw", format="raw", compress=True)


def test_cancelling_leaves_no_lock(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.raw"
    ti.create(target, SIZE, format="raw")

    def stop(done: int, total: int) -> None:
        raise ti.Cancelled

    with pytest.raises(ti.Cancelled):
        ti.copy_into(source, target, target_format="raw", progress=stop)
    ti.copy_into(source, target, target_format="raw")
    assert ti.compare(source, target, other_format="raw") is None


def test_bitmaps_go_along_and_broken_ones_are_left_out(source: Path, tmp_path: Path) -> None:
    ti.add_bitmap(source, "good")
    ti.add_bitmap(source, "bad")
    _mark_in_use(source, b"bad")
    with pytest.raises(ImageError, match="inconsistent bitmap 'bad'"):
        ti.convert(source, tmp_path / "new.qcow2", bitmaps=True)
    with pytest.warns(ti.ImageWarning, match="bad"):
        ti.convert(source, tmp_path / "new.qcow2", bitmaps=True, skip_broken_bitmaps=True)
    with ti.open_image(tmp_path / "new.qcow2") as image:
        assert [bitmap.name for bitmap in image.bitmaps] == ["good"]


def _mark_in_use(path: Path, name: bytes) -> None:
    """Set the in-use flag of a bitmap's directory entry, as a crash would have left it."""
    content = bytearray(path.read_bytes())
    entry = content.index(name) - 24  # the fixed part stands before the name
    content[entry + 15] |= 1
    path.write_bytes(content)


def test_a_rate_holds(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        ti.convert(source, tmp_path / "new.qcow2", rate=-1)
    begun = time.monotonic()
    ti.convert(source, tmp_path / "new.raw", format="raw", rate=100_000)
    assert time.monotonic() - begun > 16384 / 100_000 * 0.9  # the bytes that are data


def test_json_names_say_all(source: Path, tmp_path: Path) -> None:
    tree = {"driver": "qcow2", "file": {"driver": "file", "filename": str(source)}}
    name = "json:" + json.dumps(tree)
    with ti.open_image(name) as image:
        assert image.read(CLUSTER, 4) == b"data"
        assert image.filename == str(source)
    window = {"driver": "raw", "offset": 0, "size": 512, "file": tree["file"]}
    with ti.open_image("json:" + json.dumps(window)) as image:
        assert image.size == 512
        assert image.read(0, 4) == b"QFI\xfb"
        assert image.filename.startswith("json:")
    ti.convert(name, tmp_path / "copy.raw", format="raw")
    assert ti.compare(name, tmp_path / "copy.raw") is None


@pytest.mark.parametrize("encryption", ["aes", "luks"])
def test_encrypted_images_take_their_passphrase(tmp_path: Path, encryption: str) -> None:
    pytest.importorskip("cryptography")
    path, secrets = tmp_path / "secret.qcow2", {"key": "correct horse"}
    options = {"encrypt.format": encryption, "encrypt.key-secret": "key"}
    if encryption == "luks":
        options["encrypt.iter-time"] = "10"
    ti.create(path, SIZE, options=options, secrets=secrets)
    tree = {"driver": "qcow2", "file.filename": str(path), "encrypt.key-secret": "key"}
    with ti.open_image(tree, writable=True, secrets=secrets) as image:
        image.write(1000, b"plain text")
    assert b"plain text" not in path.read_bytes()
    ti.convert(tree, tmp_path / "plain.raw", format="raw", secrets=secrets)
    assert (tmp_path / "plain.raw").read_bytes()[1000:1010] == b"plain text"
    if encryption == "luks":
        with pytest.raises(ImageError):
            ti.open_image(tree, secrets={"key": "wrong"})
