"""All ways to count references (in bulk, with numpy, entry by entry) find what qemu-img finds."""

import json
import random
import struct
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu
from tests.oracle.image.qcow2.test_check import _FIELDS, _check

from thinvirt.image.block.abilities import Repair
from thinvirt.image.block.qcow2.check import marks, references, tally
from thinvirt.image.block.qcow2.check.counting import PlainCounter
from thinvirt.image.block.qcow2.check.state import CheckState
from thinvirt.image.block.qcow2.check.vectors import VectorCounter

pytestmark = pytest.mark.oracle

_OFFSET = (1 << 56) - 512
_COPIED, _COMPRESSED = 1 << 63, 1 << 62


def _numpy(state: CheckState, clusters: int) -> VectorCounter:
    return VectorCounter(PlainCounter(state, clusters))


def _nothing_in_bulk(*_: object) -> bool:
    return False


@pytest.fixture(params=["bulk", "numpy", "walk"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "numpy":
        monkeypatch.setattr(tally, "PlainCounter", _numpy)
        monkeypatch.setattr(marks, "MANY_ENTRIES", 0)
    elif request.param == "walk":
        monkeypatch.setattr(references, "tally", _nothing_in_bulk)
        monkeypatch.setattr(marks.MarkCheck, "_bulk_test", lambda _: marks._never)


class _Image:
    """An image of qemu-img's with some of everything in it."""

    def __init__(self, qemu: Qemu, path: Path, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.path = path
        self.unit = unit = chance.choice([512, 4096, 16384, 65536])
        bits = chance.choice([1, 2, 4, 8, 16, 16, 32, 64])
        options = f"cluster_size={unit},refcount_bits={bits}"
        self.extended = unit >= 16384 and chance.random() < 0.5
        self.data_file = chance.random() < 0.2
        options += ",extended_l2=on" if self.extended else ""
        options += f",data_file={path}.data" if self.data_file else ""
        qemu.img("create", "-q", "-f", "qcow2", "-o", options, str(path), str(unit * 150))
        self._write(qemu, 8)
        if bits > 1 and not self.data_file:
            for name in ("one", "two")[: chance.choice([0, 1, 2])]:
                qemu.run("qemu-img", "snapshot", "-c", name, str(path))  # or counts are full
                self._write(qemu, 2)
        if chance.random() < 0.4:
            qemu.img("bitmap", "--add", str(path), "marks")
            self._write(qemu, 1)

    def _write(self, qemu: Qemu, count: int) -> None:
        commands = []
        for _ in range(count):
            kind = self.chance.choice(["", "", "-z ", "-z -u "])
            at, length = self.chance.randrange(100), self.chance.choice([1, 1, 2, 40])
            if not self.data_file and self.chance.random() < 0.4:
                kind, length = "-c ", 1
                at += 110 if count == 8 else 0
            commands += ["-c", f"write -P {self.chance.randrange(256)} {kind}"]
            commands[-1] += f"{at * self.unit} {length * self.unit}"
        qemu.run("qemu-io", *commands, str(self.path))  # compressing twice is refused

    def damage(self, count: int) -> None:
        """Put wrong numbers into tables."""
        data = bytearray(self.path.read_bytes())
        for _ in range(count):
            self._damage_one(data)
        self.path.write_bytes(data)

    def _damage_one(self, data: bytearray) -> None:
        chance = self.chance
        l1_at, reftable = (struct.unpack_from(">Q", data, at)[0] for at in (40, 48))
        (l1_entries,) = struct.unpack_from(">I", data, 36)
        l1 = struct.unpack_from(f">{l1_entries}Q", data, l1_at)
        tables = [entry & _OFFSET for entry in l1 if entry]
        where = chance.choice(["l1", "l2", "l2", "l2", "l2", "refcount"])
        if where == "refcount" or not tables:
            (block,) = struct.unpack_from(">Q", data, reftable)
            data[block + chance.randrange(min(self.unit, 60))] ^= 1 << chance.randrange(8)
            return
        place = chance.choice(tables)
        index = chance.randrange(self.unit // (16 if self.extended else 8) // 2)
        index = min(index, chance.randrange(60))
        at = place + index * (16 if self.extended else 8)
        if where == "l1":
            at = l1_at + 8 * chance.randrange(l1_entries)
        elif self.extended and chance.random() < 0.3:
            at += 8
        if place + self.unit > len(data):
            return
        (entry,) = struct.unpack_from(">Q", data, at)
        (other,) = struct.unpack_from(">Q", data, place + 8 * chance.randrange(self.unit // 16))
        end = len(data) // self.unit * self.unit
        entry = chance.choice(
            [
                entry ^ _COPIED,
                entry ^ 1 << chance.randrange(64),
                entry ^ 1,
                other,
                end - self.unit | _COPIED,
                end | _COPIED,
                end + self.unit | _COPIED,
                end + 7 * self.unit,
                512 | _COPIED,
                1,
                _COMPRESSED | 3 << 58 | end - 600,
                _COMPRESSED | chance.randrange(4) << 54 | chance.randrange(end),
            ]
        )
        struct.pack_into(">Q", data, at, entry)


_SEEDS = [pytest.param(seed, marks=[] if seed < 30 else pytest.mark.slow) for seed in range(300)]


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("seed", _SEEDS)
def test_findings_are_qemu_s(tmp_path: Path, qemu: Qemu, seed: int) -> None:
    image = tmp_path / "image"
    made = _Image(qemu, image, seed)
    made.damage(seed % 5)
    done = qemu.run("qemu-img", "check", "-f", "qcow2", "--output=json", str(image))
    if "Could not open" in done.stderr:
        pytest.skip("the damage is in the header")
    told, result = _check(image, Repair.NOTHING)
    said = [line for line in done.stderr.splitlines() if not line.startswith("qemu-img: Check f")]
    assert told == [line.replace("qemu-img: ", "error: ", 1) for line in said]
    if result is not None and done.stdout:
        facts = json.loads(done.stdout)
        for field in _FIELDS:
            assert getattr(result, field) == facts.get(field.replace("_", "-"), 0), field
