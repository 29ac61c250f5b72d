"""Bulk counting with numpy, for images of millions of clusters: the results are `counting`'s."""

from __future__ import annotations

from array import array

import numpy as np

from thinvirt.image.formats.qcow2 import entries
from thinvirt.image.formats.qcow2.entries import (
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    SUBCLUSTERS_ALLOCATED,
    ZERO,
)
from thinvirt.image.formats.qcow2.refcounts import empty_refcounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    from thinvirt.image.block.qcow2.check.counting import PlainCounter

    Entries: TypeAlias = NDArray[np.uint64]
    Flags: TypeAlias = NDArray[np.bool_]

_SECTOR = 512


class VectorCounter:
    """See `tally.TableCounter`."""

    def __init__(self, begun: PlainCounter) -> None:
        """Go on where another counter got to."""
        self.state = state = begun.state
        self.allocated, self.fragmented = begun.allocated, begun.fragmented
        self.compressed = begun.compressed
        self.copied_is_missing = begun.copied_is_missing
        self.walked = 0
        image = state.image
        self._data_file = image.header.has_data_file
        self._extended = image.extended
        self._per_table = image.l2_size
        self._bits = np.uint64(state.bits)
        self._wrong = np.uint64(entries.L2_RESERVED | OFFSET_MASK & (state.size - 1))
        # Wider than the image's refcounts, so that too many references are seen at the end.
        self._number: type[np.uint64 | np.uint32] = np.uint64
        if state.largest < 1 << 17:
            self._number = np.uint32
        counts = np.frombuffer(begun.counts, f"u{begun.counts.itemsize}")
        self._counts: NDArray[np.uint64 | np.uint32] = counts.astype(self._number)

    def add_clusters(self, first: int, end: int, weight: int) -> bool:
        """Count clusters."""
        if weight > self.state.largest:
            return False
        if weight > 1 and self._number is np.uint32:  # the sum of many such may be wider still
            self._number = np.uint64
            self._counts = self._counts.astype(np.uint64)
        self._counts[first:end] += self._number(weight)
        return True

    def add_tables(self, raw: bytes, weight: int, active: int) -> bool:
        """Count what L2 tables refer to."""
        table = np.frombuffer(raw, ">u8").astype(np.uint64)
        if not self._extended:
            places = np.flatnonzero(table)
            found, bitmaps = table[places], None
        else:
            places = np.flatnonzero(table[::2] | table[1::2])
            found, bitmaps = table[::2][places], table[1::2][places]
        if np.any(found & np.uint64(COMPRESSED)):
            packed = (found & np.uint64(COMPRESSED)) != 0
            if self._data_file or (bitmaps is not None and np.any(bitmaps[packed])):
                return False
            if not self._add_compressed(found[packed], weight, active):
                return False
            plain = ~packed
            places, found = places[plain], found[plain]
            bitmaps = bitmaps if bitmaps is None else bitmaps[plain]
        if np.any(found & self._wrong):
            return False
        has_place = self._placed(found)
        if bitmaps is not None and np.any(_invalid(bitmaps, has_place)):
            return False
        if not has_place.all():
            places, found = places[has_place], found[has_place]
        return self._add_placed(places, found, weight, active)

    def _placed(self, found: Entries) -> Flags:
        """Return which entries have a host cluster."""
        placed: Flags = (found & np.uint64(OFFSET_MASK)) != 0
        if self._data_file:  # where offset 0 may be a place
            own = (found & np.uint64(COPIED)) != 0
            if not self._extended:
                own &= (found & np.uint64(ZERO)) == 0
            placed |= own
        return placed

    def _add_placed(
        self, places: NDArray[np.intp], found: Entries, weight: int, active: int
    ) -> bool:
        if not found.size:
            return True
        offsets = found & np.uint64(OFFSET_MASK)
        if not self._data_file:
            if offsets.max() >= self.state.file_size:
                return False
            clusters = (offsets >> self._bits).view(np.int64)
            np.add.at(self._counts, clusters, self._number(weight))
        self.copied_is_missing |= bool(np.any((found & np.uint64(COPIED)) == 0))
        if active:
            table = places // self._per_table
            apart = offsets[1:] != offsets[:-1] + np.uint64(self.state.size)
            apart &= table[1:] == table[:-1]
            self.allocated += len(found) * active
            self.fragmented += int(np.count_nonzero(apart)) * active
        return True

    def _add_compressed(self, found: Entries, weight: int, active: int) -> bool:
        if np.any(found & np.uint64(COPIED)):
            return False
        state = self.state
        offset_bits = 62 - (state.bits - 8)
        offsets = found & np.uint64((1 << offset_bits) - 1)
        sectors = (found & np.uint64(COMPRESSED - 1)) >> np.uint64(offset_bits)
        unit = np.uint64(_SECTOR)
        ends = offsets - offsets % unit + (sectors + np.uint64(1)) * unit
        if not state.fits(int(ends.max()), 0):
            return False
        first = (offsets >> self._bits).view(np.int64)
        last = ((ends - np.uint64(1)) >> self._bits).view(np.int64)
        while first.size:
            np.add.at(self._counts, first, self._number(weight))
            more = first < last
            first, last = first[more] + 1, last[more]
        self.allocated += len(found) * active
        self.fragmented += len(found) * active
        self.compressed += len(found) * active
        return True

    def finish(self) -> array[int] | None:
        """Return the counts."""
        if self._counts.max() > self.state.largest:
            return None
        counts = empty_refcounts(0, self.state.image.refcount_order)
        counts.frombytes(self._counts.astype(f"u{counts.itemsize}").tobytes())
        return counts


def _invalid(bitmaps: Entries, has_place: Flags) -> Flags:
    """Return which bitmaps contradict themselves or their entry."""
    allocated = bitmaps & np.uint64(SUBCLUSTERS_ALLOCATED)
    both: Flags = (bitmaps >> np.uint64(32) & allocated) != 0
    invalid: Flags = (both & has_place) | (~has_place & (allocated != 0))
    return invalid
