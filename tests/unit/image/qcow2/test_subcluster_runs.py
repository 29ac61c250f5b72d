"""Extended L2 tables in bulk: the runs are those found one by one."""

import random
import struct
from pathlib import Path

import pytest
from tests.qcow2_images import make, opened

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.qcow2 import Qcow2Node
from thinvirt.image.block.qcow2.mapping import find_run
from thinvirt.image.block.qcow2.runs import find_runs
from thinvirt.image.formats.qcow2.entries import COMPRESSED, COPIED, OFFSET_MASK, Kind

UNIT = 16384
CLUSTERS = 1024  # one table
Run = tuple[int, int, int]


def _entry(chance: random.Random, number: int, *, damaged: bool) -> tuple[int, int]:
    """Return a random extended entry: often like its neighbours, as in real images."""
    place = (100 + number + chance.choice([0, 0, 0, 3])) * UNIT | COPIED
    data, zero = chance.getrandbits(32), chance.getrandbits(32)
    choices = [
        (place, (1 << 32) - 1),
        (place, (1 << 32) - 1),
        (place, data | (zero & ~data) << 32),
        (0, zero << 32),
        (0, 0),
        (COMPRESSED | 4711 * 512, 0),
    ]
    if damaged and number > CLUSTERS // 2:
        choices += [(place, data | data << 32 | 1 << 32 | 1), (place | 512, 0), (0, 1)]
    return chance.choice(choices)


def _one_by_one(node: Qcow2Node, start: int, end: int) -> tuple[list[Run], int]:
    """Return runs, and where the first that meets damage begins."""
    runs = []
    while start < end:
        try:
            run = find_run(node, start, end - start)
        except BlockError:
            break
        runs.append(run)
        start += run[1]
    return runs, start


def _merged(runs: list[Run]) -> list[Run]:
    """Let every run be as long as it can be: where they are cut is left open."""
    merged: list[Run] = []
    for kind, length, host in runs:
        if merged and merged[-1][0] == kind != Kind.COMPRESSED:
            _, before, first = merged[-1]
            if host == (first + before if kind in Kind.PLACED else first):
                merged[-1] = kind, before + length, first
                continue
        merged.append((kind, length, host))
    return merged


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("damaged", [False, True])
def test_the_runs_are_those_found_one_by_one(tmp_path: Path, seed: int, damaged: bool) -> None:
    path = tmp_path / "disk"
    make(path, f"size={CLUSTERS * UNIT},cluster_size={UNIT},extended_l2=on")
    with opened(path) as (root, node):
        root.write(0, b"x")
        table = node.l1[0] & OFFSET_MASK
    chance = random.Random(seed)
    entries = [_entry(chance, number, damaged=damaged) for number in range(CLUSTERS)]
    with path.open("r+b") as file:
        file.seek(table)
        file.write(b"".join(struct.pack(">QQ", *entry) for entry in entries))
    with opened(path, 0) as (_, node):
        for start, end in ((0, node.size), (3 * UNIT // 2, node.size - 3 * 512)):
            expected, reached = _one_by_one(node, start, end)
            found = []
            try:
                for run in find_runs(node, start, end):
                    found.append(run)
            except BlockError:
                assert reached < end
            assert _merged(found) == _merged(expected)
            assert sum(run[1] for run in found) == reached - start
