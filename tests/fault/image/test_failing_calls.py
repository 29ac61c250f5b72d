"""A write, flush, truncate or fallocate that fails: told, nothing worse than leaks, old or new.

An operation that says it succeeded although a call failed must really be done.
"""

import errno
import os
import random
from pathlib import Path

import pytest
from tests.fault.image.arena import Arena
from tests.fault.image.journal import Journal, Mode, snapshot
from tests.fault.image.scenarios import SCENARIOS

pytestmark = pytest.mark.oracle
_ENOUGH = int(os.environ.get("THINVIRT_FAULTS", "6"))
_TROUBLE: tuple[tuple[Mode, int], ...] = (
    ("once", errno.EIO),
    ("full", errno.ENOSPC),
    ("forever", errno.EIO),
    ("once", errno.ENOSPC),
)


def _fail(arena: Arena, name: str, count: int) -> None:
    chance = random.Random(name)
    cases = [(at, mode, number) for at in range(arena.journal.calls) for mode, number in _TROUBLE]
    for at, mode, number in chance.sample(cases, min(count, len(cases))):
        journal = Journal(arena.folder)
        journal.fail(at, mode, number)
        try:
            status = arena.rerun(journal)
            is_done = status == 0
            arena.judge(snapshot(arena.folder), lossy=False, is_done=is_done)
        except AssertionError as error:
            trouble = f"{errno.errorcode[number]} {mode} at call {at} of {arena.journal.calls}"
            raise AssertionError(f"{trouble}: {error}") from error


@pytest.mark.parametrize("name", SCENARIOS)
def test_some_calls_fail(tmp_path: Path, name: str) -> None:
    _fail(Arena(SCENARIOS[name], tmp_path), name, _ENOUGH)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_many_calls_fail(tmp_path: Path, name: str) -> None:
    _fail(Arena(SCENARIOS[name], tmp_path), name + " again", 10 * _ENOUGH)
