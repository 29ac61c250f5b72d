"""Check and repair of damaged images: the findings, statistics and results of qemu-img."""

import json
import random
import shutil
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu

from thinvirt.image.block.abilities import CheckResult, Repair
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.qcow2 import Qcow2Node

pytestmark = pytest.mark.oracle

_FIELDS = (
    "check_errors",
    "corruptions",
    "leaks",
    "total_clusters",
    "allocated_clusters",
    "fragmented_clusters",
    "compressed_clusters",
    "image_end_offset",
)


def _check(path: Path, repair: int) -> tuple[list[str], CheckResult | None]:
    """Return what is told, and the result if the check could be done."""
    told: list[str] = []
    flags = Open.CHECK | (Open.RDWR | Open.UNMAP if repair else 0)
    try:
        with BlockGraph(warn=told.append).open_root(str(path), {"driver": "qcow2"}, flags) as root:
            assert isinstance(root.node, Qcow2Node)
            return told, root.node.check_image(repair, told.append)
    except BlockError:
        return told, None


def _damaged(qemu: Qemu, path: Path, seed: int) -> None:
    """Make an image with some content and put wrong numbers into its tables."""
    chance = random.Random(seed)
    unit = chance.choice([512, 4096, 65536])
    options = f"cluster_size={unit},refcount_bits={chance.choice([8, 16, 32])}"
    if unit == 65536 and chance.random() < 0.4:
        options += ",extended_l2=on"
    qemu.img("create", "-q", "-f", "qcow2", "-o", options, str(path), str(unit * 90))
    commands = []
    for _ in range(8):
        kind = chance.choice(["", "", "", "-z "])
        commands += [
            "-c",
            f"write {kind}{chance.randrange(80) * unit} {chance.choice([512, unit])}",
        ]
    qemu.io(*commands, str(path))
    qemu.img("snapshot", "-c", "one", str(path))
    qemu.io(*commands[:4], str(path))
    data = bytearray(path.read_bytes())
    table = int.from_bytes(data[48:56], "big")
    l1 = int.from_bytes(data[40:48], "big")
    places = [table, int.from_bytes(data[table : table + 8], "big"), l1]
    places += [int.from_bytes(data[l1 : l1 + 8], "big") & (1 << 56) - 512] * 2
    for _ in range(chance.choice([1, 1, 2, 3])):
        # Not the bytes that make an offset huge: a repair then makes the file so long.
        at = chance.choice(places) + 8 * chance.randrange(25) + chance.choice([0, 5, 6, 7])
        if at < len(data):
            data[at] = chance.choice([0, 1, 2, 255, data[at] ^ 1 << chance.randrange(8)])
    path.write_bytes(data)


_SEEDS = [pytest.param(seed, marks=[] if seed < 25 else pytest.mark.slow) for seed in range(200)]


@pytest.mark.parametrize("seed", _SEEDS)
def test_findings_are_qemu_s(tmp_path: Path, qemu: Qemu, seed: int) -> None:
    image = tmp_path / "damaged"
    _damaged(qemu, image, seed)
    done = qemu.run("qemu-img", "check", "-f", "qcow2", "--output=json", str(image))
    told, result = _check(image, Repair.NOTHING)
    said = [line for line in done.stderr.splitlines() if not line.startswith("qemu-img: Check f")]
    assert told == [line.replace("qemu-img: ", "error: ", 1) for line in said]
    if result is not None and done.stdout:
        facts = json.loads(done.stdout)
        for field in _FIELDS:
            assert getattr(result, field) == facts.get(field.replace("_", "-"), 0), field


@pytest.mark.parametrize("repair", [Repair.LEAKS, Repair.LEAKS | Repair.ERRORS])
@pytest.mark.parametrize("seed", _SEEDS)
def test_repairs_are_qemu_s(tmp_path: Path, qemu: Qemu, seed: int, repair: int) -> None:
    image, copy = tmp_path / "damaged", tmp_path / "theirs"
    _damaged(qemu, image, seed)
    shutil.copy(image, copy)
    what = "all" if repair & Repair.ERRORS else "leaks"
    qemu.run("qemu-img", "check", "-q", "-f", "qcow2", "-r", what, str(copy))
    _check(image, repair)
    sizes = image.stat().st_size, copy.stat().st_size
    if max(sizes) > 1 << 26:
        pytest.skip("the repair made the file longer than is worth comparing")
    again = qemu.run("qemu-img", "check", "-f", "qcow2", str(image))
    theirs = qemu.run("qemu-img", "check", "-f", "qcow2", str(copy))
    assert again.returncode == theirs.returncode
    assert again.stderr == theirs.stderr
