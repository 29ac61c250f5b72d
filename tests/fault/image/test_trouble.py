"""Kills, power failures and failing calls: leaks at worst, and every sector old or new.

An operation that says it succeeded although a call failed must really be done.
"""

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.fault.image.arena import Arena
from tests.fault.image.journal import Journal, Mode, killed, power_failed, snapshot
from tests.fault.image.scenarios import SCENARIOS

pytestmark = pytest.mark.oracle
_ENOUGH = int(os.environ.get("THINVIRT_FAULTS", "2"))  # states of each kind in a short run
_MANY = 6  # times as many in a long one
_TROUBLE: tuple[tuple[Mode, int], ...] = (
    ("once", errno.EIO),
    ("full", errno.ENOSPC),
    ("forever", errno.EIO),
    ("once", errno.ENOSPC),
)


@contextmanager
def _named(trouble: str) -> Iterator[None]:
    """Say in a failure what the trouble was."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{trouble}: {error}") from error


def _kill(arena: Arena, chance: random.Random, count: int) -> None:
    events = arena.journal.events
    for at in chance.sample(range(len(events)), min(count, len(events))):
        with _named(f"killed before event {at} of {len(events)}"):
            arena.judge(killed(arena.start, events, at), lossy=False)


def _fail_power(arena: Arena, chance: random.Random, count: int) -> None:
    events = arena.journal.events
    for at in chance.sample(range(len(events)), min(count, len(events))):
        seed = chance.randrange(1 << 32)
        with _named(f"no power after event {at} of {len(events)}, seed {seed}"):
            arena.judge(power_failed(arena.start, events, at, _keeps(seed)), lossy=True)


def _keeps(seed: int) -> Callable[[], float]:
    """Return what says how much of a page's writes was durable."""
    chance = random.Random(seed)
    return (lambda: chance.choice((0, 1)), chance.random, lambda: chance.random() < 0.9)[seed % 3]


def _fail_calls(arena: Arena, chance: random.Random, count: int) -> None:
    calls = arena.journal.calls
    cases = [(at, mode, number) for at in range(calls) for mode, number in _TROUBLE]
    for at, mode, number in chance.sample(cases, min(count, len(cases))):
        journal = Journal(arena.folder)
        journal.fail(at, mode, number)
        with _named(f"{errno.errorcode[number]} {mode} at call {at} of {calls}"):
            status = arena.rerun(journal)
            arena.judge(snapshot(arena.folder), lossy=False, is_done=status == 0)


def _make_trouble(folder: Path, name: str, seed: str, count: int) -> None:
    arena = Arena(SCENARIOS[name], folder)
    chance = random.Random(name + seed)
    if "key slot" in name:
        count = -(-count // 4)  # keys take their time
    _kill(arena, chance, count)
    _fail_power(arena, chance, count)
    _fail_calls(arena, chance, count)


@pytest.mark.parametrize("name", SCENARIOS)
def test_some_trouble(tmp_path: Path, name: str) -> None:
    _make_trouble(tmp_path, name, "", _ENOUGH)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_much_trouble(tmp_path: Path, name: str) -> None:
    _make_trouble(tmp_path, name, " again", _MANY * _ENOUGH)
