"""Refcounts change in runs: what comes of it, and how often a block is looked for."""

import random
from pathlib import Path

import pytest
from tests.qcow2_images import make, opened

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.qcow2.core import Freed
from thinvirt.image.block.qcow2.tables import RefcountCache

UNIT = 512


@pytest.mark.parametrize("bits", [1, 4, 8, 16, 64])
def test_changes_are_made_whole_or_not_at_all(tmp_path: Path, bits: int) -> None:
    """Against counts kept one by one, within the range of the width."""
    path = tmp_path / "disk"
    make(path, f"size=1M,cluster_size={UNIT},refcount_bits={bits}")
    chance = random.Random(bits)
    with opened(path) as (_, node):
        refcounts = node.refcounts
        first = refcounts.allocate(3000 * UNIT) // UNIT
        expected = [1] * 3000
        largest = min(refcounts.largest, 20)
        for _ in range(60):
            start = chance.randrange(3000)
            count = min(chance.choice([1, 2, 70, 1500]), 3000 - start)
            amount = chance.choice([1, 1, -1])
            changed = [number + amount for number in expected[start : start + count]]
            if max(changed) > largest and largest < refcounts.largest:
                continue
            place = (first + start) * UNIT
            if min(changed) < 0 or max(changed) > refcounts.largest:
                with pytest.raises(BlockError):
                    refcounts.change(place, count * UNIT, amount, Freed.NEVER)
            else:
                refcounts.change(place, count * UNIT, amount, Freed.NEVER)
                expected[start : start + count] = changed
            assert [refcounts.get(first + at) for at in range(3000)] == expected
        used = [at for at, number in enumerate(expected) if not number]
        assert refcounts.free_index <= min((first + at for at in used), default=first + 3000)
        refcounts.change(first * UNIT, UNIT, 1 - expected[0], Freed.NEVER)


def test_a_block_is_looked_for_once_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "disk"
    make(path, f"size=1M,cluster_size={UNIT}")
    with opened(path) as (_, node):
        node.refcounts.allocate(100 * UNIT)
        looked: list[int] = []
        load = RefcountCache.load

        def watched(cache: RefcountCache, offset: int) -> object:
            looked.append(offset)
            return load(cache, offset)

        monkeypatch.setattr(RefcountCache, "load", watched)
        node.refcounts.allocate(20_000 * UNIT)
        # Every missing block is made first, and the search begins anew: a few looks for each.
        assert len(looked) < 20_000
