"""One L2 table, entry by entry."""

from __future__ import annotations

from thinvirt.image.block.abilities import Repair
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.qcow2.core import Structure
from thinvirt.image.formats.qcow2 import entries
from thinvirt.image.formats.qcow2.entries import (
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    SUBCLUSTERS_ALLOCATED,
    SUBCLUSTERS_ZERO,
    ZERO,
    Kind,
    cluster_kind,
    compressed_range,
)
from thinvirt.image.formats.qcow2.refcounts import pack_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from thinvirt.image.block.qcow2.check.state import CheckState


class L2Walk:
    """One L2 table."""

    def __init__(
        self, state: CheckState, place: int, table: array[int], repair: int, *, active: bool
    ) -> None:
        self.state = state
        self.place = place
        self.table = table
        self.mends = bool(repair & Repair.ERRORS)
        self.active = active
        self.copied_is_missing = False
        self.next_offset = 0  # where the next cluster would be, were they in a row
        self._mended: list[tuple[int, int]] = []  # (index, host offset that the entry had)

    def run(self) -> None:
        """Walk over the entries, and write those that were mended."""
        try:
            if self.state.image.extended:
                self.run_extended()
            else:
                self.run_standard()
        finally:
            if self._mended:
                self._write_mended()

    def run_standard(self) -> None:
        """Walk over entries of 8 bytes."""
        state = self.state
        size, bits, counts = state.size, state.bits, state.counts
        misplaced = OFFSET_MASK & (size - 1)
        odd = entries.L2_RESERVED | COMPRESSED | ZERO | misplaced
        end = min(len(counts), (state.file_size >> bits) or 1) << bits
        largest, expected = state.largest, 0
        slow = state.image.header.has_data_file
        allocated = fragmented = 0
        for index, entry in enumerate(self.table):
            if entry <= ZERO:
                continue  # nothing, or nothing but zeroes
            offset = entry & OFFSET_MASK
            if slow or entry & odd or not offset or offset >= end:
                self.next_offset = expected
                self._look_at(index, entry, 0)
                expected = self.next_offset
                continue
            cluster = offset >> bits
            if counts[cluster] >= largest:
                self.next_offset = expected
                self._look_at(index, entry, 0)
                expected = self.next_offset
                continue
            counts[cluster] += 1
            if not entry & COPIED:
                self.copied_is_missing = True
            allocated += 1
            if expected and offset != expected:
                fragmented += 1
            expected = offset + size
        if self.active:
            state.result.allocated_clusters += allocated
            state.result.fragmented_clusters += fragmented

    def run_extended(self) -> None:
        """Walk over entries of 16 bytes."""
        table = self.table
        for index in range(0, len(table), 2):
            if table[index] or table[index + 1]:
                self._look_at(index // 2, table[index], table[index + 1])

    def _look_at(self, index: int, entry: int, bitmap: int) -> None:
        """Check one entry with all there is to be said about it."""
        image = self.state.image
        has_data_file = image.header.has_data_file
        kind = cluster_kind(entry, extended=image.extended, data_file=has_data_file)
        reserved = entries.L2_RESERVED & ~(1 << 63 | 1 << 62)
        if kind != Kind.COMPRESSED and entry & reserved:
            self.state.corrupt(f"ERROR found l2 entry with reserved bits set: {entry:x}")
        if kind == Kind.COMPRESSED:
            self._look_at_compressed(index, entry, bitmap)
        elif kind in Kind.PLACED:
            self._look_at_placed(index, entry, bitmap)
        elif kind == Kind.UNALLOCATED and bitmap & SUBCLUSTERS_ALLOCATED:
            self.state.corrupt("ERROR: Unallocated cluster has non-zero subcluster allocation map")

    def _look_at_compressed(self, index: int, entry: int, bitmap: int) -> None:
        state = self.state
        image = state.image
        if entry & COPIED:
            offset, _ = compressed_range(entry, state.bits)
            self.state.corrupt(
                f"ERROR: coffset=0x{offset:x}: copied flag must never be set for compressed "
                "clusters"
            )
            entry &= ~COPIED
        if image.header.has_data_file:
            self.state.corrupt(
                f"ERROR compressed cluster {index} with data file, entry=0x{entry:x}"
            )
            return
        if bitmap:
            self.state.corrupt(
                f"ERROR compressed cluster {index} with non-zero subcluster allocation bitmap, "
                f"entry=0x{entry:x}"
            )
            return
        state.count(*compressed_range(entry, state.bits))
        if self.active:
            state.result.allocated_clusters += 1
            state.result.compressed_clusters += 1
            state.result.fragmented_clusters += 1

    def _look_at_placed(self, index: int, entry: int, bitmap: int) -> None:
        state = self.state
        offset = entry & OFFSET_MASK
        if not entry & COPIED:
            self.copied_is_missing = True
        if bitmap >> 32 & bitmap & SUBCLUSTERS_ALLOCATED:
            self.state.corrupt(
                f"ERROR offset={offset:x}: Allocated cluster has corrupted subcluster allocation "
                "bitmap"
            )
        if offset % state.size and self._look_at_misplaced(index, entry, bitmap):
            return
        if self.active:
            state.result.allocated_clusters += 1
            if self.next_offset and offset != self.next_offset:
                state.result.fragmented_clusters += 1
            self.next_offset = offset + state.size
        if not state.image.header.has_data_file:
            state.count(offset, state.size)

    def _look_at_misplaced(self, index: int, entry: int, bitmap: int) -> bool:
        """Return whether the entry was mended and there is nothing left to count."""
        state = self.state
        offset = entry & OFFSET_MASK
        state.result.corruptions += 1
        extended = state.image.extended
        has_data = bitmap & SUBCLUSTERS_ALLOCATED if extended else not entry & ZERO
        if has_data:
            state.tell(
                f"ERROR offset={offset:x}: Data cluster is not properly aligned; L2 entry "
                "corrupted."
            )
            return False
        verb = "Repairing" if self.mends else "ERROR"
        state.tell(
            f"{verb} offset={offset:x}: Preallocated cluster is not properly aligned; L2 entry "
            "corrupted."
        )
        if self.mends:
            self._zero_entry(index, offset, bitmap)
        return self.mends

    def _zero_entry(self, index: int, offset: int, bitmap: int) -> None:
        """Let an entry read as zeroes, without a place; it is written with the others."""
        state = self.state
        if not self._mended:
            own = Structure.ACTIVE_L2 if self.active else Structure.INACTIVE_L2
            try:
                state.image.guard.check(self.place, state.size, ignore=own)
            except BlockError as error:
                raise state.give_up("ERROR: Overlap check failed", error.errno) from error
        if state.image.extended:
            self.table[2 * index] = 0
            self.table[2 * index + 1] = (bitmap | bitmap << 32) & SUBCLUSTERS_ZERO
        else:
            self.table[index] = ZERO
        self._mended.append((index, offset))
        state.result.corruptions -= 1
        state.result.corruptions_fixed += 1

    def _write_mended(self) -> None:
        """Write all that was mended at once; `references` makes it durable with other tables."""
        state = self.state
        image = state.image
        width = 2 if image.extended else 1
        first, last = self._mended[0][0] * width, (self._mended[-1][0] + 1) * width
        try:
            image.l2_tables.forget(self.place)
            image.file.write(self.place + first * 8, pack_table(self.table[first:last]))
        except BlockError as error:
            for _, offset in self._mended:  # the file has them still, and what they refer to
                state.tell(f"ERROR: Failed to overwrite L2 table entry: {error.reason}")
                state.count(offset, state.size)
            failed = len(self._mended)
            state.result.check_errors += failed
            state.result.corruptions += failed
            state.result.corruptions_fixed -= failed
        else:
            state.has_mended = True
