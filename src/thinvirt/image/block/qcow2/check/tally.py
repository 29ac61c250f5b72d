"""Count what all L1 and L2 tables refer to, in bulk and without a word.

Every L2 table is looked at once, however many snapshots share it. If anything is odd nothing is
counted: then the tables are walked entry by entry, by those who can tell what it is.
"""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.qcow2.check.counting import PlainCounter
from thinvirt.image.block.qcow2.check.state import MANY_ENTRIES, clusters_of
from thinvirt.image.formats.qcow2 import entries
from thinvirt.image.formats.qcow2.entries import COPIED, OFFSET_MASK
from thinvirt.image.formats.qcow2.refcounts import unpack_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Protocol, TypeVar

    from thinvirt.image.block.qcow2.check.state import CheckState

    T = TypeVar("T")

    class TableCounter(Protocol):
        """Counts what L2 tables refer to; `counting.PlainCounter` or `vectors.VectorCounter`.

        Attributes:
            allocated, fragmented, compressed: clusters of the tables counted as active.
            copied_is_missing: a cluster without the mark was seen.
            walked: entries that were looked at one by one.
        """

        allocated: int
        fragmented: int
        compressed: int
        copied_is_missing: bool
        walked: int

        def add_clusters(self, first: int, end: int, weight: int) -> bool:
            """Count clusters that are referred to `weight` times; return False if that is odd."""

        def add_tables(self, raw: bytes, weight: int, active: int) -> bool:
            """Count what L2 tables refer to.

            Args:
                raw: the tables, as they are in the file.
                weight: how often they are referred to.
                active: how often of these by the active L1 table.

            Returns:
                False if anything in them is odd.
            """

        def finish(self) -> array[int] | None:
            """Return the counts, None if one is too large for the image's refcounts."""


_READ_AT_ONCE = 1 << 20  # bytes of tables


def tally(state: CheckState, l1_tables: Sequence[tuple[int, int]]) -> bool:
    """Count what L1 tables, and the L2 tables that they name, refer to.

    Args:
        state: gets the counts; nothing but the header's cluster may have been counted before.
        l1_tables: (host offset, entries) of each, the active table first.

    Returns:
        False if anything was odd, or could not be read; nothing was counted then.
    """
    clusters = max(clusters_of(state.file_size, state.size), len(state.counts))
    try:
        counter = _count_all(state, PlainCounter(state, clusters + 1), l1_tables)
    except BlockError:
        return False  # it will be met again, and told
    counts = counter.finish() if counter is not None and counter.add_clusters(0, 1, 1) else None
    if counter is None or counts is None:
        return False
    if not counts[clusters]:  # the file may end within the last cluster that is referred to
        counts.pop()
    state.counts = counts
    state.copied_is_missing |= counter.copied_is_missing
    state.result.allocated_clusters += counter.allocated
    state.result.fragmented_clusters += counter.fragmented
    state.result.compressed_clusters += counter.compressed
    return True


def _count_all(
    state: CheckState, counter: TableCounter, l1_tables: Sequence[tuple[int, int]]
) -> TableCounter | None:
    """Count everything; return who counted to the end, None if anything was odd."""
    named: dict[int, int] = {}  # how often each L2 table is, by host offset
    by_active: dict[int, int] = {}
    for number, ((offset, length), times) in enumerate(_counted(l1_tables).items()):
        if not length:
            continue
        if not state.fits(offset, length * 8) or not state.has_work_for(length >> 2):
            return None
        end = (offset + length * 8 - 1 >> state.bits) + 1
        if not counter.add_clusters(offset >> state.bits, end, times):
            return None
        found = _l2_tables(state, offset, length)
        if found is None:
            return None
        places, all_copied = found
        if not number:
            by_active = places
            counter.copied_is_missing |= not all_copied
        for place, count in places.items():
            named[place] = named.get(place, 0) + count * times
    return _count_l2_tables(state, counter, named, by_active)


def _counted(items: Iterable[T]) -> dict[T, int]:
    """Return how often each item that is not 0 is there (`collections` takes long to import)."""
    counts: dict[T, int] = {}
    for item in items:
        if item:
            counts[item] = counts.get(item, 0) + 1
    return counts


def _l2_tables(state: CheckState, offset: int, length: int) -> tuple[dict[int, int], bool] | None:
    """Return how often an L1 table names each L2 table, and whether all are marked as its own."""
    places: dict[int, int] = {}
    all_copied = True
    reserved = entries.L1_RESERVED | OFFSET_MASK & (state.size - 1)
    table = unpack_table(state.image.file.read(offset, length * 8))
    for entry, count in _counted(table).items():
        place = entry & OFFSET_MASK
        if entry & reserved or not place or place >= state.file_size:
            return None
        all_copied = all_copied and bool(entry & COPIED)
        places[place] = places.get(place, 0) + count
    return places, all_copied


def _count_l2_tables(
    state: CheckState, counter: TableCounter, named: dict[int, int], by_active: dict[int, int]
) -> TableCounter | None:
    """Count the L2 tables and what they refer to; tables that are named alike go together."""
    alike: dict[tuple[int, int], list[int]] = {}
    for place, weight in named.items():
        alike.setdefault((weight, by_active.get(place, 0)), []).append(place)
    bits = state.bits
    left = len(named) << bits
    total = left
    for (weight, active), places in alike.items():
        places.sort()
        for start, end in _in_a_row(places, state.size):
            if not state.has_work_for(end - start >> 3):
                return None
            if not counter.add_clusters(start >> bits, end >> bits, weight):
                return None
            if not counter.add_tables(state.image.file.read(start, end - start), weight, active):
                return None
            left -= end - start
            if counter.walked * left > MANY_ENTRIES * (total - left):
                counter = _faster(counter)
    return counter


def _faster(counter: TableCounter) -> TableCounter:
    """Return who goes on counting where many entries have to be looked at one by one."""
    if isinstance(counter, PlainCounter):
        counter.walked = 0
        try:
            from thinvirt.image.block.qcow2.check.vectors import VectorCounter
        except ImportError:
            return counter  # numpy is optional
        return VectorCounter(counter)
    return counter


def _in_a_row(places: list[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield host ranges of tables that follow one another, as many as are read at once."""
    start = end = places[0]
    for place in places:
        if place != end or end - start >= _READ_AT_ONCE:
            yield start, end
            start = place
        end = place + size
    yield start, end
