"""Runs in extended L2 tables: a cluster's are found once for each bitmap that there is.

A cluster may hold 32 runs, but real images have few different bitmaps. So the runs of a bitmap are
kept, and only moved to where the cluster lies.
"""

from __future__ import annotations

from thinvirt.image.formats.qcow2.entries import (
    COMPRESSED,
    OFFSET_MASK,
    SUBCLUSTERS,
    Kind,
    subcluster_run,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator
    from typing import TypeAlias

    from thinvirt.image.block.qcow2.core import Image

    # (kind, bytes, host offset; within the cluster as long as it is kept for a bitmap)
    Run: TypeAlias = tuple[int, int, int]

_MANY = 1024  # runs passed on together
_MOST_KEPT = 4096  # bitmaps


class SubclusterScan:
    """Goes through L2 tables of extended entries; the image has no external data file.

    Attributes:
        reached: the byte of the table's range that `table` came to: the end, or where the run
            begins that meets a damaged cluster.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self.reached = 0
        # By bitmap: of clusters with a place in the file, and of those without.
        self._placed: dict[int, list[Run]] = {}
        self._plain: dict[int, list[Run]] = {}

    def table(self, values: array[int], first: int, end: int, *, is_last: bool) -> Iterator[Run]:
        """Yield the runs of clusters up to the first that is damaged; one may span clusters.

        Args:
            values: the table.
            first: cluster, counted within the table.
            end: one past the last cluster.
            is_last: whatever follows is not asked for: the last run ends with its cluster.
        """
        misplaced = OFFSET_MASK & (self.image.cluster_size - 1)
        size = self.image.cluster_size
        known_placed, known_plain = self._placed, self._plain
        runs: list[Run] = []
        at = 2 * first
        while at < 2 * end:
            entry, bitmap = values[at], values[at + 1]
            host = entry & OFFSET_MASK
            if entry & COMPRESSED:
                runs.append((Kind.COMPRESSED, size, entry))
                at += 2
                continue
            if host & misplaced:
                break
            known = known_placed if host else known_plain
            shape = known.get(bitmap)
            if shape is None:
                shape = self._shape(known, bitmap, Kind.NORMAL if host else Kind.UNALLOCATED)
            if not shape:
                break
            kind, length, within = shape[0]
            start = host + within
            if runs and runs[-1][0] == kind and (not host or sum(runs[-1][1:]) == start):
                _, before, start = runs.pop()
                length += before
            runs.append((kind, length, start))
            at += 2
            if len(shape) > 1:
                runs += [(kind, length, host + within) for kind, length, within in shape[1:]]
                if len(runs) > _MANY:
                    last = runs.pop()
                    yield from runs
                    runs = [last]
        self.reached = (at >> 1) * size
        if runs and (at < 2 * end or not is_last):
            self.reached -= runs.pop()[1]  # what it meets next decides
        yield from runs

    def _shape(self, known: dict[int, list[Run]], bitmap: int, cluster: int) -> list[Run]:
        """Return the runs of a bitmap; none if it contradicts itself."""
        bits = self.image.subcluster_bits
        shape: list[Run] = []
        at = 0
        while at < SUBCLUSTERS:
            kind, count = subcluster_run(cluster, bitmap, at)
            if kind == Kind.INVALID:
                shape.clear()
                break
            shape.append((kind, count << bits, at << bits if kind in Kind.PLACED else 0))
            at += count
        if len(known) >= _MOST_KEPT:
            known.clear()
        known[bitmap] = shape
        return shape
