"""Bulk counting without any other package: whole runs of entries are recognised at once."""

from __future__ import annotations

from thinvirt.image.formats.qcow2 import entries
from thinvirt.image.formats.qcow2.entries import (
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    SUBCLUSTERS_ALLOCATED,
    ZERO,
    compressed_range,
)
from thinvirt.image.formats.qcow2.refcounts import empty_refcounts, unpack_table
from thinvirt.image.formats.qcow2.runs import RunTest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from thinvirt.image.block.qcow2.check.state import CheckState

_RUN = 512  # entries compared at once with what a run of clusters would be


class PlainCounter:
    """See `tally.TableCounter`.

    Attributes:
        state: of the check.
        counts: how often each cluster was referred to so far.
    """

    def __init__(self, state: CheckState, clusters: int) -> None:
        self.state = state
        self.allocated = self.fragmented = self.compressed = 0
        self.copied_is_missing = False
        self.walked = 0
        image = state.image
        self._order = image.refcount_order
        self.counts = empty_refcounts(clusters, self._order)
        self._data_file = image.header.has_data_file
        self._extended = image.extended
        self._misplaced = OFFSET_MASK & (state.size - 1)
        length = min(_RUN, state.size // 8)
        self._run = length
        self._long_runs = RunTest(length, state.size)
        self._none = unpack_table(bytes(length * 8))
        self._free = empty_refcounts(length, self._order)

    def add_clusters(self, first: int, end: int, weight: int) -> bool:
        """Count clusters."""
        counts = self.counts
        try:
            for cluster in range(first, end):
                counts[cluster] += weight
        except OverflowError:
            return False
        return True

    def add_tables(self, raw: bytes, weight: int, active: int) -> bool:
        """Count what L2 tables refer to."""
        size = self.state.size
        add = self._add_extended if self._extended else self._add_standard
        if self._data_file:
            add = self._add_data_file
        try:
            for at in range(0, len(raw), size):
                if not add(raw[at : at + size], weight, active):
                    return False
        except OverflowError:
            return False
        return True

    def finish(self) -> array[int] | None:
        """Return the counts."""
        if self._order < 3 and max(self.counts) > self.state.largest:
            return None  # of fewer bits than those of an array
        return self.counts

    # ---------------------------------------------------------------- kinds of tables

    def _add_standard(self, raw: bytes, weight: int, active: int) -> bool:
        """Count one table of plain entries; raise `OverflowError` for too large a count."""
        table = unpack_table(raw)
        length = self._run
        expected = 0  # where the next cluster would be, were they in a row
        for start in range(0, len(table), length):
            first, last = table[start], table[start + length - 1]
            if not first and not last and table[start : start + length] == self._none:
                continue
            if self._is_run(table, start):
                offset = first & OFFSET_MASK
                self._add_run(offset >> self.state.bits, weight)
                self.copied_is_missing |= not first & COPIED
                self.allocated += length * active
                self.fragmented += active * bool(expected and offset != expected)
                expected = offset + length * self.state.size
                continue
            after = self._add_entries(table[start : start + length], expected, weight, active)
            if after < 0:
                return False
            expected = after
        return True

    def _is_run(self, table: array[int], start: int) -> bool:
        """Whether the entries from `start` on are of clusters one after the other, all sound."""
        first = table[start]
        offset = first & OFFSET_MASK
        if not offset or first & (ZERO | COMPRESSED | entries.L2_RESERVED | self._misplaced):
            return False
        if offset + (self._run - 1) * self.state.size >= self.state.file_size:
            return False
        return self._long_runs.matches(table, start)

    def _add_run(self, first: int, weight: int) -> None:
        counts, length = self.counts, self._run
        if counts[first : first + length] == self._free:
            one = self._free[:1]
            one[0] = weight
            counts[first : first + length] = one * length
        elif not self.add_clusters(first, first + length, weight):
            raise OverflowError

    def _add_entries(self, table: array[int], expected: int, weight: int, active: int) -> int:
        """Count entries one by one; return what is expected next, -1 if one is odd."""
        state, counts = self.state, self.counts
        size, bits, file_size = state.size, state.bits, state.file_size
        special = COMPRESSED | ZERO | entries.L2_RESERVED | self._misplaced
        wrong = entries.L2_RESERVED | self._misplaced
        allocated = fragmented = 0
        all_copied = COPIED
        self.walked += len(table)
        for entry in table:
            if not entry:
                continue
            if entry & special:
                if entry & COMPRESSED:
                    if not self._add_compressed(entry, weight, active):
                        return -1
                    continue
                if entry & wrong:
                    return -1
            offset = entry & OFFSET_MASK
            if not offset:
                continue
            if offset >= file_size:
                return -1
            counts[offset >> bits] += weight
            all_copied &= entry
            allocated += 1
            if offset != expected and expected:
                fragmented += 1
            expected = offset + size
        self.copied_is_missing |= not all_copied
        self.allocated += allocated * active
        self.fragmented += fragmented * active
        return expected

    def _add_extended(self, raw: bytes, weight: int, active: int) -> bool:
        table = unpack_table(raw)
        state, counts = self.state, self.counts
        size, bits, file_size = state.size, state.bits, state.file_size
        wrong = entries.L2_RESERVED | self._misplaced
        allocated = fragmented = expected = 0
        all_copied = COPIED
        self.walked += len(table)
        for entry, bitmap in zip(table[::2], table[1::2], strict=True):
            if not entry | bitmap:
                continue
            if entry & COMPRESSED:
                if bitmap or not self._add_compressed(entry, weight, active):
                    return False
                continue
            offset = entry & OFFSET_MASK
            both = bitmap >> 32 if offset else SUBCLUSTERS_ALLOCATED
            if entry & wrong or both & bitmap & SUBCLUSTERS_ALLOCATED:
                return False
            if not offset:
                continue
            if offset >= file_size:
                return False
            counts[offset >> bits] += weight
            all_copied &= entry
            allocated += 1
            if offset != expected and expected:
                fragmented += 1
            expected = offset + size
        self.copied_is_missing |= not all_copied
        self.allocated += allocated * active
        self.fragmented += fragmented * active
        return True

    def _add_data_file(self, raw: bytes, weight: int, active: int) -> bool:
        """Look at the entries of an image whose data lies in another file: nothing is counted."""
        table = unpack_table(raw)
        step = 2 if self._extended else 1
        wrong = entries.L2_RESERVED | self._misplaced | COMPRESSED
        allocated = fragmented = expected = 0
        self.walked += len(table)
        for at in range(0, len(table), step):
            entry = table[at]
            bitmap = table[at + 1] if self._extended else 0
            if entry & wrong:
                return False
            offset = entry & OFFSET_MASK
            is_zero = entry & ZERO and not self._extended
            placed = offset or (entry & COPIED and not is_zero)
            both = bitmap >> 32 if placed else SUBCLUSTERS_ALLOCATED
            if both & bitmap & SUBCLUSTERS_ALLOCATED:
                return False
            if not placed:
                continue
            self.copied_is_missing |= not entry & COPIED
            allocated += 1
            if offset != expected and expected:
                fragmented += 1
            expected = offset + self.state.size
        self.allocated += allocated * active
        self.fragmented += fragmented * active
        return True

    def _add_compressed(self, entry: int, weight: int, active: int) -> bool:
        state = self.state
        if entry & COPIED:
            return False
        offset, length = compressed_range(entry, state.bits)
        if not state.fits(offset, length):
            return False
        for cluster in range(offset >> state.bits, (offset + length - 1 >> state.bits) + 1):
            self.counts[cluster] += weight
        self.allocated += active
        self.fragmented += active
        self.compressed += active
        return True
