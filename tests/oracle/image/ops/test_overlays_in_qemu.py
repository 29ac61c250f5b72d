"""What we write as an overlay, real qemu-img and qemu-io take for one."""

from pathlib import Path
from typing import Any

import pytest

from thinvirt.image.ops.foreign import check_chain, flatten
from thinvirt.image.ops.overlay import OverlayOptions, create_overlay
from thinvirt.image.ops.screen import screen

pytestmark = pytest.mark.oracle

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
SHAPES = [
    (size, cluster, extended)
    for size in (512, 1000, MIB, 112 * MIB + 512, 10 * GIB, TIB, 8 * TIB)
    for cluster, extended in (
        (64 * KIB, True),
        (64 * KIB, False),
        (16 * KIB, True),
        (2 * MIB, True),
        (4 * KIB, False),
    )
] + [(16 * MIB, 512, False), (100 * GIB, 512, False), (GIB, KIB, False)]


@pytest.mark.parametrize(("size", "cluster", "extended"), SHAPES)
def test_qemu_agrees(tmp_path: Path, qemu: Any, size: int, cluster: int, extended: bool) -> None:
    sectors = -(-size // 512) * 512
    qemu.create(tmp_path / "base", str(size), "cluster_size=64k")
    qemu.io(tmp_path / "base", "write -P 0x11 0 512")
    image = tmp_path / "overlay"
    options = OverlayOptions(
        virtual_size=size,
        backing_name="base",
        backing_format="qcow2",
        cluster_size=cluster,
        extended_l2=extended,
    )
    create_overlay(image, options)
    qemu.img("check", "-q", "-f", "qcow2", image)
    facts = qemu.info(image)
    assert facts["virtual-size"] == sectors
    assert facts["cluster-size"] == cluster
    assert (facts["backing-filename"], facts["backing-filename-format"]) == ("base", "qcow2")
    assert facts["format-specific"]["data"]["extended-l2"] is extended
    assert screen(image, allow_backing=True).virtual_size == sectors
    qemu.io(image, "read -P 0x11 0 512", f"write -P 0x22 {sectors - 512} 512")
    qemu.img("check", "-q", "-f", "qcow2", image)
    qemu.io(image, f"read -P 0x22 {sectors - 512} 512")
    screen(image, allow_backing=True)


@pytest.mark.parametrize("cluster", ["512", "2k", "4k", "8k", "64k", "2M"])
@pytest.mark.parametrize("extended", ["on", "off"])
def test_the_bytes_are_those_of_qemu_img(
    tmp_path: Path, qemu: Any, cluster: str, extended: str
) -> None:
    units = {
        "512": 512,
        "2k": 2 * KIB,
        "8k": 8 * KIB,
        "4k": 4 * KIB,
        "64k": 64 * KIB,
        "2M": 2 * MIB,
    }
    if extended == "on" and units[cluster] < 16 * KIB:
        pytest.skip("no subclusters with clusters this small")
    qemu.create(tmp_path / "base", "4M")
    theirs = tmp_path / "theirs"
    qemu.img(
        *("create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster},extended_l2={extended}"),
        *("-b", "base", "-F", "qcow2", theirs),
    )
    options = OverlayOptions(
        virtual_size=4 * MIB,
        backing_name="base",
        backing_format="qcow2",
        cluster_size=units[cluster],
        extended_l2=extended == "on",
    )
    create_overlay(tmp_path / "ours", options)
    assert (tmp_path / "ours").read_bytes() == theirs.read_bytes()


def test_a_raw_template_of_an_odd_size(tmp_path: Path, qemu: Any) -> None:
    (tmp_path / "base.raw").write_bytes(b"\x33" * 70001)
    options = OverlayOptions(virtual_size=70001, backing_name="base.raw", backing_format="raw")
    create_overlay(tmp_path / "overlay", options)
    qemu.io(tmp_path / "overlay", "read -P 0x33 0 68k", "write -P 0x44 68k 512")
    qemu.img("check", "-q", "-f", "qcow2", tmp_path / "overlay")
    assert check_chain(tmp_path / "overlay")[1].name == "base.raw"


def test_a_disk_larger_than_its_template(tmp_path: Path, qemu: Any) -> None:
    qemu.create(tmp_path / "base", "1M")
    options = OverlayOptions(virtual_size=GIB, backing_name="base", backing_format="qcow2")
    create_overlay(tmp_path / "overlay", options)
    qemu.io(tmp_path / "overlay", "read -P 0 1M 1M", "write -P 0x55 1000M 1M")
    qemu.img("check", "-q", "-f", "qcow2", tmp_path / "overlay")


def test_flatten_gives_what_the_guest_sees(tmp_path: Path, qemu: Any) -> None:
    qemu.create(tmp_path / "base", "8M")
    qemu.io(tmp_path / "base", "write -P 0x11 0 2M")
    for name, below in (("middle", "base"), ("top", "middle")):
        options = OverlayOptions(virtual_size=8 * MIB, backing_name=below, backing_format="qcow2")
        create_overlay(tmp_path / name, options)
        qemu.io(tmp_path / name, "write -P 0x22 1M 64k")
    flatten(tmp_path / "top", tmp_path / "flat")
    assert "backing_file" not in screen(tmp_path / "flat").details
    qemu.img("compare", "-f", "qcow2", "-F", "qcow2", tmp_path / "top", tmp_path / "flat")
