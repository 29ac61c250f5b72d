"""A process killed or power lost at any call: leaks at worst, and every sector old or new."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fault.image.arena import Arena
from tests.fault.image.journal import killed, power_failed
from tests.fault.image.scenarios import SCENARIOS

pytestmark = pytest.mark.oracle
_ENOUGH = int(os.environ.get("THINVIRT_FAULTS", "6"))  # states of each kind in a short run


def _points(total: int, count: int, chance: random.Random) -> list[int]:
    return sorted(chance.sample(range(total), min(count, total)))


def _keeps(seed: int) -> Callable[[], float]:
    """Return what says how much of a page's writes was durable."""
    chance = random.Random(seed)
    return (lambda: chance.choice((0, 1)), chance.random, lambda: chance.random() < 0.9)[seed % 3]


def _crash(arena: Arena, name: str, count: int) -> None:
    chance = random.Random(name)
    events = arena.journal.events
    for at in _points(len(events), count, chance):
        try:
            arena.judge(killed(arena.start, events, at), lossy=False)
        except AssertionError as error:
            raise AssertionError(f"killed before call {at} of {len(events)}: {error}") from error
    for at in _points(len(events), count, chance):
        seed = chance.randrange(1 << 32)
        try:
            arena.judge(power_failed(arena.start, events, at, _keeps(seed)), lossy=True)
        except AssertionError as error:
            raise AssertionError(f"no power after call {at}, seed {seed}: {error}") from error


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_some_calls(tmp_path: Path, name: str) -> None:
    _crash(Arena(SCENARIOS[name], tmp_path), name, _ENOUGH)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_many_calls(tmp_path: Path, name: str) -> None:
    _crash(Arena(SCENARIOS[name], tmp_path), name + " again", 10 * _ENOUGH)
