"""Valid images of random shape with hostile fields: planned errors, bounded time and memory.

`script/fuzz SECONDS [SEED]` goes on where these seeds end.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fuzz.image.ordeal import hostile_image

_ROOT = Path(__file__).parents[3]
# What was found: a refcount block far outside, no refcount block at all, clusters and tables that
# only a refcount table beyond all limits could count.
_FOUND = (11, 41, 1268, 1491, 1529)


@pytest.fixture(scope="module")
def ordeal() -> Iterator["subprocess.Popen[str]"]:
    """Start what images go through; one process for all, as starting it takes longest."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.image.ordeal"],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def _suffer(ordeal: "subprocess.Popen[str]", path: Path, seed: int) -> None:
    done = hostile_image(path, seed)
    assert ordeal.stdin is not None
    assert ordeal.stdout is not None
    ordeal.stdin.write(f"{path}\n")
    ordeal.stdin.flush()
    answer = ordeal.stdout.readline()
    assert answer, f"seed {seed} ended the process: {done}"
    wrong = json.loads(answer)["wrong"]
    assert not wrong, f"seed {seed}: {done}\n" + "\n".join(f"{n}: {t}" for n, t in wrong.items())


@pytest.mark.parametrize("first", [0, 8])
def test_hostile_images(ordeal: "subprocess.Popen[str]", tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 8):
        _suffer(ordeal, tmp_path / "disk", seed)


@pytest.mark.parametrize("seed", _FOUND)
def test_what_was_found(ordeal: "subprocess.Popen[str]", tmp_path: Path, seed: int) -> None:
    _suffer(ordeal, tmp_path / "disk", seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 400, 50))
def test_many_hostile_images(ordeal: "subprocess.Popen[str]", tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 50):
        _suffer(ordeal, tmp_path / "disk", seed)
