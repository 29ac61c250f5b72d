"""Walking a whole image tells what asking for its status piece by piece does."""

import random
import struct
from array import array
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.qcow2_images import Guest, make, opened

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Status
from thinvirt.image.block.node import BlockNode
from thinvirt.image.block.qcow2 import Qcow2Node
from thinvirt.image.block.qcow2 import runs as qcow2_runs
from thinvirt.image.block.qcow2.vector_runs import VectorBreakFinder
from thinvirt.image.block.status import node_status, status_above
from thinvirt.image.block.walk import node_runs, runs_above
from thinvirt.image.formats.qcow2.entries import COPIED, OFFSET_MASK
from thinvirt.image.formats.qcow2.runs import BreakFinder, RunTest

Told = tuple[int, int, int, int | None, int]  # offset, length, flags, place, depth

_OPTIONS = [
    "size=2M,cluster_size=4096",
    "size=100000,cluster_size=512",
    "size=3M,cluster_size=64k,preallocation=metadata",
    "size=2M,cluster_size=16k,extended_l2=on",
    "size=1M,cluster_size=4k,compat=0.10",
]


def _merged(pieces: Iterable[Told]) -> list[Told]:
    merged: list[Told] = []
    for at, length, flags, place, depth in pieces:
        if merged:
            begin, before, last_flags, last_place, last_depth = merged[-1]
            goes_on = place is None if last_place is None else place == last_place + before
            if flags == last_flags and depth == last_depth and goes_on and at == begin + before:
                merged[-1] = begin, before + length, flags, last_place, depth
                continue
        merged.append((at, length, flags, place, depth))
    return merged


def _place(flags: int, host: int) -> int | None:
    return host if flags & Status.OFFSET_VALID else None


def _asked(node: BlockNode, start: int, end: int, *, want_zero: bool) -> list[Told]:
    told: list[Told] = []
    at = start
    try:
        while at < end:
            extent = node_status(node, at, end - at, want_zero=want_zero)
            if not extent.length:
                break
            flags = extent.flags & ~Status.EOF
            told.append((at, extent.length, flags, _place(flags, extent.host_offset), 0))
            at += extent.length
    except BlockError as error:
        told.append((at, -1, error.errno, None, 0))
    return _merged(told)


def _walked(node: BlockNode, start: int, end: int, *, want_zero: bool) -> list[Told]:
    told: list[Told] = []
    at = start
    try:
        for length, flags, host, _ in node_runs(node, start, end, want_zero=want_zero):
            assert length > 0
            told.append((at, length, flags, _place(flags, host), 0))
            at += length
    except BlockError as error:
        told.append((at, -1, error.errno, None, 0))
    return _merged(told)


def _same(node: Qcow2Node, chance: random.Random) -> None:
    for start, end in [(0, node.size), *(_part(chance, node.size) for _ in range(6))]:
        for want_zero in (True, False):
            asked = _asked(node, start, end, want_zero=want_zero)
            assert _walked(node, start, end, want_zero=want_zero) == asked


def _part(chance: random.Random, size: int) -> tuple[int, int]:
    start = chance.randrange(size)
    return start, start + 1 + chance.randrange(size - start)


@pytest.fixture(params=[1 << 22, 0], ids=["plain", "numpy"])
def _many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs found in both ways."""
    monkeypatch.setattr(qcow2_runs, "_MANY", request.param)


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize("options", _OPTIONS)
@pytest.mark.parametrize("seed", range(4))
def test_images_at_work(tmp_path: Path, options: str, seed: int) -> None:
    path = tmp_path / "image"
    make(path, options)
    chance = random.Random(seed)
    with opened(path) as (disk, node):
        unit = node.cluster_size
        Guest(seed, node.size, unit, compresses=seed % 2 == 1).run(disk, 25)
        _same(node, chance)


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize("seed", range(12))
def test_damaged_images(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "image"
    make(path, _OPTIONS[seed % len(_OPTIONS)])
    chance = random.Random(seed)
    with opened(path) as (disk, node):
        Guest(seed, node.size, node.cluster_size).run(disk, 25)
        tables = [entry & OFFSET_MASK for entry in node.l1 if entry]
    data = bytearray(path.read_bytes())
    for _ in range(6):
        at = chance.choice(tables) + 8 * chance.randrange(60)
        entry = chance.choice([512 | COPIED, 1, 1 << 40, 3 << 20, chance.getrandbits(64)])
        struct.pack_into(">Q", data, at, entry)
    path.write_bytes(data)
    with opened(path, 0) as (_, node):
        _same(node, chance)


@pytest.mark.parametrize("seed", range(6))
def test_chains(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    below = ""
    for number in range(3):
        path = tmp_path / f"{number}"
        size = chance.choice([512 << 10, 1 << 20, 1 << 20])
        make(path, f"size={size},cluster_size={chance.choice([512, 4096, 65536])}{below}")
        below = f",backing_file={path},backing_fmt=qcow2"
        with opened(path) as (disk, _):
            for _ in range(5):
                at = chance.randrange(size // 512) * 512
                disk.write(at, b"x" * min(chance.choice([512, 9000, 70000]), size - at))
    with opened(path, 0) as (_, top):
        assert top.backing is not None
        for base in (None, top.backing, top.backing.backing):
            for start, end in [(0, top.size), _part(chance, top.size)]:
                _same_chain(top, base, start, end)


def _same_chain(top: BlockNode, base: BlockNode | None, start: int, end: int) -> None:
    asked: list[Told] = []
    at = start
    while at < end:
        extent = status_above(top, base, at, end - at)
        flags = extent.flags & ~Status.EOF
        told = at, extent.length, flags, _place(flags, extent.host_offset), extent.depth
        asked.append(_above(base, told))
        at += extent.length
    walked = [
        _above(base, (at, length, flags, _place(flags, host), depth))
        for at, length, flags, host, _, depth in runs_above(top, base, start, end)
    ]
    assert _merged(walked) == _merged(asked)


def _above(base: BlockNode | None, told: Told) -> Told:
    """Leave out what is known of a range that the layers above `base` do not decide."""
    if base is None or told[2] & Status.ALLOCATED:
        return told
    return told[0], told[1], 0, None, told[4]


@given(
    st.lists(st.integers(0, 8) | st.integers(0, (1 << 63) - 1), min_size=8, max_size=8),
    st.integers(0, (1 << 63) - 1),
)
def test_breaks(drawn: list[int], first: int) -> None:
    step, mask = 4, (1 << 63) - 1
    values = array("Q", [(first + n * step) & mask if n < 9 else n for n in drawn])
    finder = BreakFinder(8, step, mask)
    begins = [0]
    for at in range(1, 8):
        if values[at] - values[at - 1] not in (0, step):
            begins.append(at)
    assert finder.find(array("Q", [7]) + values, 1) == begins
    assert VectorBreakFinder(8, step, mask).find(array("Q", [7]) + values, 1) == begins
    is_run = all(values[at] - values[at - 1] == step for at in range(1, 8))
    assert RunTest(8, step).matches(values, 0) == is_run
