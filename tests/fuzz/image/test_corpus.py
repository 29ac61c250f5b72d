"""What coverage-guided fuzzing starts from and what it found, and each of it cut and flipped."""

import random
from pathlib import Path

import pytest
from tests.fuzz.image.guided import CORPUS, TARGETS

_INPUTS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", _INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_inputs_and_their_neighbours(path: Path) -> None:
    target, data = TARGETS[path.parent.name], path.read_bytes()
    target(data)
    chance = random.Random(len(data))
    for _ in range(20):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 2, 4))):
            changed[chance.randrange(len(changed))] = chance.choice((0, 1, 127, 128, 255))
        target(bytes(changed[: chance.choice((len(changed), chance.randrange(len(changed) + 1)))]))
