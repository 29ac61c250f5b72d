"""Runs in tables: entries that grow by the same step, found many at a time.

All entries together are taken for one large number, with an entry in each 64 bits of it. A run is
its first entry in every place plus multiples of the step; where runs end is seen from the number
less itself moved by one place. Either takes a fraction of the time of a loop over the entries.
"""

from __future__ import annotations

import sys
from array import array
from itertools import compress

_BITS = 64  # of an entry
_BIAS = 1 << 63  # added to an entry so that no difference borrows from the next place


class RunTest:
    """Tests whether entries are one run.

    Attributes:
        length: how many entries are tested together.
    """

    def __init__(self, length: int, step: int) -> None:
        """Make a test for entries that grow by `step` each, which is not 0."""
        self.length = length
        self._growth = (length - 1) * step
        self._everywhere = _everywhere(1, length)
        self._steps = _as_one(array("Q", range(0, length * step, step)))

    def matches(self, values: array[int], at: int) -> bool:
        """Whether the entries from `at` on are a run."""
        first = values[at]
        if values[at + self.length - 1] - first != self._growth:
            return False
        return _as_one(values[at : at + self.length]) == first * self._everywhere + self._steps


class BreakFinder:
    """Finds where runs end and others begin.

    Args:
        length: how many entries are looked at together.
        step: a power of two; from one entry of a run to the next it is added, or nothing is.
        mask: the bits of an entry that count; not the highest.
    """

    def __init__(self, length: int, step: int, mask: int) -> None:
        self.length = length
        self._mask = _everywhere(mask, length)
        self._bias = _everywhere(_BIAS, length)
        self._all = (1 << _BITS * length) - 1
        self._changes = _everywhere(((1 << _BITS) - 1) ^ step, length)

    def find(self, values: array[int], at: int) -> list[int]:
        """Return the places, counted from `at`, where an entry is not like the one before."""
        length = self.length
        entries = _as_one(values[at : at + length]) & self._mask
        grown = (entries | self._bias) - (entries << _BITS & self._all)
        changed = (grown ^ self._bias) & self._changes | 1  # a run begins at the first
        return list(compress(range(length), array("Q", changed.to_bytes(length * 8, "little"))))


def _everywhere(entry: int, length: int) -> int:
    return _as_one(array("Q", [entry]) * length)


def _as_one(values: array[int]) -> int:
    """Return entries as one number, the first in its lowest bits; `values` may be changed."""
    if sys.byteorder == "big":
        values.byteswap()
    return int.from_bytes(values, "little")
