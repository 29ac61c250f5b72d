"""What qemu-img makes is accepted, with the facts it states; what names other files is refused."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from thinvirt.errors import (
    Conflict,
    CorruptImage,
    HostileImage,
    ImageError,
    ThinvirtError,
    UnsupportedFeature,
)
from thinvirt.image.ops.foreign import check_chain, convert_foreign
from thinvirt.image.ops.screen import screen

pytestmark = pytest.mark.oracle

WRITES = ("write -P 0x11 0 2k", "write -P 0x22 1M 30k", "write -z 2M 64k", "discard 0 64k")


@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64",
        "extended_l2=on",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,cluster_size=2M,preallocation=metadata",
        "compression_type=zstd",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
    ],
)
def test_images_of_qemu_img_are_accepted(tmp_path: Path, qemu: Any, options: str) -> None:
    image = qemu.create(tmp_path / "a", "16M", options)
    empty = screen(image)
    assert (empty.format, empty.virtual_size) == ("qcow2", 16 << 20)
    qemu.io(image, *WRITES)
    if "preallocation" not in options:
        qemu.io(image, "write -c -P 0x33 4M 64k" if "2M" not in options else "write -c 4M 2M")
    facts, theirs = screen(image), qemu.info(image)
    data = theirs["format-specific"]["data"]
    assert facts.details["cluster_size"] == theirs["cluster-size"]
    assert facts.details["compat"] == data["compat"]
    assert facts.details["refcount_bits"] == data["refcount-bits"]
    assert facts.details["extended_l2"] == data.get("extended-l2", False)
    assert facts.details["compression"] == data["compression-type"]
    assert facts.details["lazy_refcounts"] == data.get("lazy-refcounts", False)
    assert facts.allocated_bytes == theirs["actual-size"]


def test_snapshots_and_bitmaps_are_accepted(tmp_path: Path, qemu: Any) -> None:
    image = qemu.create(tmp_path / "a", "16M")
    for number in range(5):
        qemu.io(image, *WRITES)
        qemu.img("snapshot", "-c", f"snapshot-{number}", image)
        qemu.img("bitmap", "--add", "-f", "qcow2", image, f"bitmap-{number}")
    qemu.io(image, "write 8M 1M")
    details = screen(image).details
    assert (details["snapshots"], details["bitmaps"]) == (5, 5)


def test_compressed_and_converted_images_are_accepted(tmp_path: Path, qemu: Any) -> None:
    (tmp_path / "raw").write_bytes(bytes(range(256)) * 4096 + bytes(1 << 20))
    for extended in ("on", "off"):
        image = tmp_path / f"c-{extended}"
        options = ("-c", "-O", "qcow2", "-o", f"extended_l2={extended}")
        qemu.img("convert", *options, "-f", "raw", tmp_path / "raw", image)
        assert screen(image).virtual_size == 2 << 20


def test_resized_rebased_and_repaired_images_are_accepted(tmp_path: Path, qemu: Any) -> None:
    qemu.create(tmp_path / "base", "1M")
    image = qemu.create(tmp_path / "a", "1M", f"backing_file={tmp_path / 'base'},backing_fmt=qcow2")
    qemu.img("rebase", "-u", "-f", "qcow2", "-b", "", image)
    qemu.img("resize", "-q", "-f", "qcow2", image, "4G")
    qemu.io(image, "write 3G 1M")
    qemu.img("resize", "-q", "--shrink", "-f", "qcow2", image, "2G")
    qemu.img("amend", "-f", "qcow2", "-o", "compat=0.10", image)
    assert screen(image).virtual_size == 2 << 30


@pytest.mark.parametrize(
    ("options", "refusal", "words"),
    [
        ("backing_file={dir}/base,backing_fmt=qcow2", HostileImage, "names the backing file"),
        ("data_file={dir}/data", HostileImage, "data in another file"),
        ("data_file={dir}/data,data_file_raw=on", HostileImage, "data in another file"),
        (
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
            UnsupportedFeature,
            "LUKS",
        ),
        ("encrypt.format=aes,encrypt.key-secret=s", UnsupportedFeature, "AES"),
    ],
)
def test_what_needs_more_than_itself_is_refused(
    tmp_path: Path, qemu: Any, options: str, refusal: type[ThinvirtError], words: str
) -> None:
    qemu.create(tmp_path / "base", "1M")
    qemu.img(
        *("create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x"),
        *("-o", options.format(dir=tmp_path), tmp_path / "a", "1M"),
    )
    with pytest.raises(refusal, match=words) as caught:
        screen(tmp_path / "a")
    assert caught.value.path == tmp_path / "a"
    assert caught.value.hint


@pytest.mark.parametrize("image_format", ["vmdk", "vdi", "vpc", "vhdx"])
def test_foreign_formats(tmp_path: Path, qemu: Any, image_format: str) -> None:
    image = qemu.create(tmp_path / "a", "16M")
    qemu.io(image, *WRITES)
    foreign, back = tmp_path / "foreign.img", tmp_path / "back"
    qemu.img("convert", "-f", "qcow2", "-O", image_format, image, foreign)
    facts = screen(foreign)
    assert facts.format == image_format
    assert facts.virtual_size >= 16 << 20
    convert_foreign(foreign, back, source_format=image_format)
    qemu.img("compare", "-f", "qcow2", "-F", "qcow2", image, back)
    with pytest.raises(Conflict):
        convert_foreign(foreign, back, source_format=image_format)
    screen(back)


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_a_vmdk_of_several_files_is_refused(tmp_path: Path, qemu: Any, subformat: str) -> None:
    qemu.img("create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", tmp_path / "a", "16M")
    with pytest.raises(HostileImage):
        screen(tmp_path / "a")


def test_a_vmdk_with_a_parent_is_refused(tmp_path: Path, qemu: Any) -> None:
    qemu.img("create", "-q", "-f", "vmdk", tmp_path / "base.vmdk", "16M")
    command = ("create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", tmp_path / "a.vmdk")
    qemu.img(*command)
    with pytest.raises(HostileImage, match="parent"):
        screen(tmp_path / "a.vmdk")


def test_a_fixed_vhd(tmp_path: Path, qemu: Any) -> None:
    qemu.img("create", "-q", "-f", "vpc", "-o", "subformat=fixed", tmp_path / "a", "16M")
    assert screen(tmp_path / "a").format == "vpc"


def test_a_damaged_foreign_image_is_corrupt_and_leaves_nothing(tmp_path: Path, qemu: Any) -> None:
    qemu.img("create", "-q", "-f", "vdi", tmp_path / "a", "16M")
    raw = bytearray((tmp_path / "a").read_bytes())
    raw[344:348] = b"\xff" * 4  # offset of the block map
    raw[68:72] = b"\xff" * 4  # version
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(CorruptImage, match="qemu-img does not open it"):
        screen(tmp_path / "a")
    with pytest.raises(ImageError, match="qemu-img convert failed"):
        convert_foreign(tmp_path / "a", tmp_path / "b", source_format="vdi")
    assert not (tmp_path / "b").exists()


def test_a_chain_without_formats_or_with_a_loop_is_refused(tmp_path: Path, qemu: Any) -> None:
    qemu.create(tmp_path / "a", "1M")
    qemu.img("create", "-q", "-f", "qcow2", "-b", "a", "-F", "qcow2", tmp_path / "b")
    qemu.img("rebase", "-u", "-f", "qcow2", "-b", "b", "-F", "qcow2", tmp_path / "a")
    with pytest.raises(CorruptImage, match="comes back"):
        check_chain(tmp_path / "b")
    raw = (tmp_path / "b").read_bytes().replace(b"\xe2\x79\x2a\xca", b"\xe2\x79\x2a\xcb")
    (tmp_path / "b").write_bytes(raw)
    with pytest.raises(HostileImage, match="not recorded"):
        check_chain(tmp_path / "b")


def test_qemu_img_missing(tmp_path: Path, qemu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from thinvirt.errors import ProgramMissing

    qemu.img("create", "-q", "-f", "vdi", tmp_path / "a", "16M")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramMissing) as caught:
        convert_foreign(tmp_path / "a", tmp_path / "b", source_format="vdi")
    assert "qemu-utils" in caught.value.hint
    assert not (tmp_path / "b").exists()


def test_progress_of_a_conversion_reaches_the_end(tmp_path: Path, qemu: Any) -> None:
    class Watcher:
        done = 0

        def step(self, title: str, total: int | None = None, unit: str = "") -> None:
            assert total == 100

        def advance(self, amount: int) -> None:
            self.done += amount

    qemu.create(tmp_path / "a", "64M", "preallocation=full")
    watcher = Watcher()
    convert_foreign(tmp_path / "a", tmp_path / "b", source_format="qcow2", progress=watcher)
    assert watcher.done == 100


def test_cancelling_a_conversion_leaves_nothing(tmp_path: Path, qemu: Any) -> None:
    class Canceller:
        def step(self, title: str, total: int | None = None, unit: str = "") -> None:
            pass

        def advance(self, amount: int) -> None:
            raise KeyboardInterrupt

    qemu.create(tmp_path / "a", "64M", "preallocation=full")
    with pytest.raises(KeyboardInterrupt):
        convert_foreign(tmp_path / "a", tmp_path / "b", source_format="qcow2", progress=Canceller())
    assert not (tmp_path / "b").exists()
    alive = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert alive.stdout == b""
