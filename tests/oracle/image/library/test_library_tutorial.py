"""QEMU agrees with what the guide to the library makes."""

import json
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu
from tests.unit.image.test_library_tutorial import run_guide

pytestmark = pytest.mark.oracle


def test_qemu_reads_what_the_guide_makes(
    qemu: Qemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_guide(tmp_path, monkeypatch)
    for image in ("backup.qcow2", "built.qcow2", "clone.qcow2", "flat.qcow2"):
        assert "No errors" in qemu.img("check", "-f", "qcow2", image)
    qemu.img("compare", "-f", "qcow2", "-F", "qcow2", "clone.qcow2", "flat.qcow2")
    assert "backing-filename" not in json.loads(qemu.img("info", "--output=json", "flat.qcow2"))
    runs = json.loads(qemu.img("map", "--output=json", "-f", "qcow2", "clone.qcow2"))
    data = [(run["start"], run["depth"]) for run in runs if run["data"]]
    assert data == [(0, 1), (0x30000, 0), (0x100000, 1), (0x200000, 0)]
    qemu.img("convert", "-f", "qcow2", "-O", "raw", "built.qcow2", "built.raw")
    content = (tmp_path / "built.raw").read_bytes()
    for block in (tmp_path / "blocks").iterdir():
        start = int(block.name, 16)
        assert content[start : start + 65536] == block.read_bytes()
