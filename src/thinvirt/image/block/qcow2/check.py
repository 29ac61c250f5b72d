"""Check an image: count what refers to every cluster, compare, and perhaps repair.

What can be decided for a whole refcount block or L2 table at once is; only what is odd is looked at
entry by entry, and told in QEMU's words.
"""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import CheckResult, Repair
from thinvirt.image.block.errors import BlockError, with_reason
from thinvirt.image.block.qcow2.allocator import Freed
from thinvirt.image.block.qcow2.guard import Structure
from thinvirt.image.formats.qcow2 import entries, limits
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
from thinvirt.image.formats.qcow2.layout import FIELD_OFFSET, divide_up
from thinvirt.image.formats.qcow2.refcounts import (
    empty_refcounts,
    largest_refcount,
    pack_table,
    unpack_table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from thinvirt.image.block.qcow2.core import Image

_MAX_CLUSTERS = 0x7FFFFFFF


def check(image: Image, repair: int, tell: Callable[[str], None]) -> CheckResult:
    """Check an image; see `Checkable.check_image`."""
    checker = Checker(image, repair, tell)
    result = checker.result
    snapshots = SnapshotCheck(image, repair, tell)
    try:
        snapshots.read()
        checker.run()
        snapshots.mend()
    except Unchecked as error:
        raise with_reason("Check failed", error.number) from error
    found = snapshots.result
    result.check_errors += found.check_errors
    result.corruptions += found.corruptions
    result.corruptions_fixed += found.corruptions_fixed
    if repair and not result.check_errors and not result.corruptions:
        image.mark_clean()
        image.mark_consistent()
    return result


class Unchecked(Exception):
    """The check cannot go on; what it found so far is in the result."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class SnapshotCheck:
    """The snapshot table."""

    def __init__(self, image: Image, repair: int, tell: Callable[[str], None]) -> None:
        self.image = image
        self.mends = bool(repair & Repair.ERRORS)
        self.tell = tell
        self.result = CheckResult()

    def read(self) -> None:
        """Read the table, and leave out what cannot stay if errors are to be mended."""
        image, header = self.image, self.image.header
        place = FIELD_OFFSET["snapshot_count"]
        raw = image.file.read(place, 12)
        header.snapshot_count = int.from_bytes(raw[:4], "big")
        header.snapshots_offset = int.from_bytes(raw[4:], "big")
        dropped = 0
        over = header.snapshot_count - limits.MAX_SNAPSHOTS
        if over > 0 and self.mends:
            self.tell(f"Discarding {over} overhanging snapshots")
            dropped = over
            header.snapshot_count = limits.MAX_SNAPSHOTS
        if not header.snapshot_count and not dropped:
            return
        dropped += self._load(over)
        if dropped:
            try:
                count = header.snapshot_count.to_bytes(4, "big")
                image.write_durably(place, count)
            except BlockError as error:
                self.result.check_errors += 1
                self.tell(
                    f"ERROR failed to update the snapshot count in the image header: {error.reason}"
                )
                raise Unchecked(error.errno) from error
            self.result.corruptions_fixed += dropped
        self._look_at_entries()

    def _load(self, over: int) -> int:
        from thinvirt.image.block.qcow2.snapshots import read_table

        image, header = self.image, self.image.header
        try:
            header.check_table(
                "snapshot table",
                header.snapshots_offset,
                header.snapshot_count,
                40,
                40 * limits.MAX_SNAPSHOTS,
            )
        except BlockError as error:
            self.tell(f"error: ERROR {error.message}")
            if over > 0:
                self.tell(
                    f"You can force-remove all {over} overhanging snapshots with qemu-img check "
                    "-r all"
                )
            self._give_up(error)
        try:
            found = read_table(image, mend=self.mends, tell=self.tell)
        except BlockError as error:
            self.tell(f"error: ERROR failed to read the snapshot table: {error.message}")
            if error.qemu_hint:
                self.tell(error.qemu_hint.rstrip("\n"))
            self._give_up(error)
        image.snapshots, image.snapshots_size = found.entries, found.size
        header.snapshot_count = len(found.entries)
        self.result.corruptions += found.shortened
        return found.dropped

    def _give_up(self, error: BlockError) -> None:
        self.result.check_errors += 1
        self.image.header.snapshot_count = self.image.header.snapshots_offset = 0
        raise Unchecked(error.errno) from error

    def _look_at_entries(self) -> None:
        if self.image.header.version < 3:
            return
        for number, entry in enumerate(self.image.snapshots):
            if not entry.is_complete:
                self.result.corruptions += 1
                verb = "Repairing" if self.mends else "ERROR"
                self.tell(f"{verb} snapshot table entry {number} is incomplete")

    def mend(self) -> None:
        """Write the table anew if something in it was wrong."""
        if not self.result.corruptions or not self.mends:
            return
        from thinvirt.image.block.qcow2.snapshots import write_table

        try:
            write_table(self.image, self.image.snapshots)
        except BlockError as error:
            self.result.check_errors += 1
            self.tell(f"ERROR failed to update snapshot table: {error.reason}")
            raise Unchecked(error.errno) from error
        self.result.corruptions_fixed += self.result.corruptions
        self.result.corruptions = 0


class Checker:
    """The refcounts and all that refers to clusters.

    Attributes:
        counts: how often each cluster is referred to.
        needs_rebuild: the refcount structure itself is damaged.
    """

    def __init__(self, image: Image, repair: int, tell: Callable[[str], None]) -> None:
        self.image = image
        self.repair = repair
        self.tell = tell
        self.result = CheckResult()
        self.needs_rebuild = False
        self.size = image.cluster_size
        self.bits = image.cluster_bits
        self.file_size = image.file.size
        self.largest = largest_refcount(image.refcount_order)
        self.counts = empty_refcounts(divide_up(self.file_size, self.size), image.refcount_order)
        self.highest = 0
        self._copied_is_missing = False  # a data cluster or L2 table without the mark was seen
        self._differs = False

    # ---------------------------------------------------------------- the whole

    def run(self) -> None:
        """Check, compare and repair.

        Raises:
            Unchecked: it cannot go on.
        """
        if len(self.counts) > _MAX_CLUSTERS:
            self.result.check_errors += 1
            raise Unchecked(errno.EFBIG)
        self.result.total_clusters = divide_up(self.image.header.virtual_size, self.size)
        self.calculate(self.repair)
        before = self.result.corruptions, self.result.leaks, self.result.check_errors
        self.compare(0)
        if self.needs_rebuild and self.repair & Repair.ERRORS:
            self._rebuild()
        elif self.repair:
            if self.needs_rebuild:
                self.tell("ERROR need to rebuild refcount structures")
                self.result.check_errors += 1
                raise Unchecked(errno.EIO)
            if self.result.leaks or self.result.corruptions:
                (
                    self.result.corruptions,
                    self.result.leaks,
                    self.result.check_errors,
                ) = before
                self.compare(self.repair)
        self._check_copied()
        self.result.image_end_offset = (self.highest + 1) * self.size

    def _rebuild(self) -> None:
        from thinvirt.image.block.qcow2.rebuild import rebuild

        result = self.result
        corruptions, leaks = result.corruptions, result.leaks
        self.tell("Rebuilding refcount structure")
        try:
            self.counts = rebuild(self.image, self.counts)
        except BlockError as error:
            result.check_errors += 1
            self.tell(f"error: {error.message}")
            raise Unchecked(error.errno) from error
        result.corruptions = result.leaks = 0
        self.needs_rebuild = False
        self.file_size = self.image.file.size
        self.counts = empty_refcounts(len(self.counts), self.image.refcount_order)
        self.calculate(0)
        fresh_leaks = 0
        if self.repair & Repair.LEAKS:
            kept, self.result = self.result, CheckResult()
            self.compare(Repair.LEAKS)
            if self.needs_rebuild:
                self.tell("ERROR rebuilt refcount structure is still broken")
            fresh_leaks, self.result = self.result.leaks, kept
        result.corruptions_fixed += max(corruptions - result.corruptions, 0)
        result.leaks_fixed += max(leaks - result.leaks, 0)
        result.leaks += fresh_leaks

    # ---------------------------------------------------------------- counting

    def count(self, offset: int, length: int) -> None:
        """Count a reference to every cluster of a host range."""
        if length <= 0:
            return
        if offset + length - self.file_size >= self.size:
            self.tell(
                "ERROR: counting reference for region exceeding the end of the file by one cluster "
                f"or more: offset 0x{offset:x} size 0x{length:x}"
            )
            self.result.corruptions += 1
            return
        counts = self.counts
        for cluster in range(offset >> self.bits, (offset + length - 1 >> self.bits) + 1):
            if cluster >= len(counts):
                counts.extend(empty_refcounts(cluster + 1 - len(counts), self.image.refcount_order))
            if counts[cluster] == self.largest:
                self.tell(f"ERROR: overflow cluster offset=0x{cluster << self.bits:x}")
                self.tell(
                    "Use qemu-img amend to increase the refcount entry width or qemu-img convert "
                    "to create a clean copy if the image cannot be opened for writing"
                )
                self.result.corruptions += 1
                continue
            counts[cluster] += 1

    def calculate(self, repair: int) -> None:
        """Count all references of the image."""
        image, header = self.image, self.image.header
        self.count(0, self.size)
        self._count_l1(header.l1_table_offset, len(image.l1), repair, active=True)
        if header.has_data_file and image.snapshots:
            self.tell(f"ERROR {len(image.snapshots)} snapshots in image with data file")
            self.result.corruptions += 1
        for entry in image.snapshots:
            name = (
                f"snapshot {entry.id_bytes.decode('utf-8', 'surrogateescape')} "
                f"({entry.name.decode('utf-8', 'surrogateescape')})"
            )
            if entry.l1_table_offset % self.size:
                self.tell(
                    f"ERROR {name} l1_offset={entry.l1_table_offset:#x}: L1 table is not cluster "
                    "aligned; snapshot table entry corrupted"
                )
                self.result.corruptions += 1
                continue
            if entry.l1_entries > limits.MAX_L1_BYTES // 8:
                self.tell(
                    f"ERROR {name} l1_size={entry.l1_entries:#x}: L1 table is too large; snapshot "
                    "table entry corrupted"
                )
                self.result.corruptions += 1
                continue
            self._count_l1(entry.l1_table_offset, entry.l1_entries, repair, active=False)
        self.count(header.snapshots_offset, image.snapshots_size)
        self.count(header.refcount_table_offset, len(image.refcounts.table) * 8)
        self.count(header.encryption_offset, header.encryption_length)
        if header.bitmap_count:
            from thinvirt.image.block.qcow2.bitmaps import count_bitmaps

            try:
                count_bitmaps(image, self.count)
            except BlockError as error:
                self.result.corruptions += 1
                raise Unchecked(error.errno) from error
        self._count_blocks(repair)

    def _count_l1(self, offset: int, length: int, repair: int, *, active: bool) -> None:
        if not length:
            return
        self.count(offset, length * 8)
        try:
            table = unpack_table(self.image.file.read(offset, length * 8))
        except BlockError as error:
            self.tell("ERROR: I/O error in check_refcounts_l1")
            self.result.check_errors += 1
            raise Unchecked(error.errno) from error
        for entry in table:
            if not entry:
                continue
            if entry & entries.L1_RESERVED:
                self.tell(f"ERROR found L1 entry with reserved bits set: {entry:x}")
                self.result.corruptions += 1
            place = entry & OFFSET_MASK
            self.count(place, self.size)
            if place % self.size:
                self.tell(
                    f"ERROR l2_offset={place:x}: Table is not cluster aligned; L1 entry corrupted"
                )
                self.result.corruptions += 1
            if active and place and not entry & COPIED:
                self._copied_is_missing = True
            self._count_l2(place, repair, active=active)

    def _count_l2(self, place: int, repair: int, *, active: bool) -> None:
        try:
            table = unpack_table(self.image.file.read(place, self.size))
        except BlockError as error:
            self.tell("ERROR: I/O error in check_refcounts_l2")
            self.result.check_errors += 1
            raise Unchecked(error.errno) from error
        walk = _TableWalk(self, place, table, repair, active=active)
        if self.image.extended:
            walk.run_extended()
        else:
            walk.run_standard()
        self._copied_is_missing |= walk.copied_is_missing

    def _count_blocks(self, repair: int) -> None:
        """Count the refcount blocks; what is wrong with them needs a new structure."""
        for index, entry in enumerate(self.image.refcounts.table):
            if not entry:
                continue
            offset = entry & entries.REFCOUNT_TABLE_OFFSET
            cluster = offset >> self.bits
            if entry & entries.REFCOUNT_TABLE_RESERVED:
                self._damaged_block(f"ERROR refcount table entry {index} has reserved bits set")
                continue
            if offset % self.size:
                self._damaged_block(
                    f"ERROR refcount block {index} is not cluster aligned; refcount table entry "
                    "corrupted"
                )
                continue
            if cluster >= len(self.counts):
                self._outside(index, offset, repair)
                continue
            self.count(offset, self.size)
            if self.counts[cluster] != 1:
                self._damaged_block(f"ERROR refcount block {index} refcount={self.counts[cluster]}")

    def _damaged_block(self, text: str) -> None:
        self.tell(text)
        self.result.corruptions += 1
        self.needs_rebuild = True

    def _outside(self, index: int, offset: int, repair: int) -> None:
        """A block lies behind the end of the file: make the file longer, if that is allowed."""
        mends = bool(repair & Repair.ERRORS)
        self.result.corruptions += 1
        verb = "Repairing" if mends else "ERROR"
        self.tell(f"{verb} refcount block {index} is outside image")
        if not mends:
            return
        end = offset + self.size
        reason = ""
        if end > (1 << 63) - 1:
            reason = "Invalid argument"
        else:
            try:
                self.image.file.truncate(end)
            except BlockError as error:
                self.tell(f"error: {error.message}")
                reason = error.reason
        self.file_size = self.image.file.size
        missing = divide_up(self.file_size, self.size) - len(self.counts)
        if missing > 0:
            self.counts.extend(empty_refcounts(missing, self.image.refcount_order))
        if not reason and offset >> self.bits >= len(self.counts):
            reason = "Invalid argument"
        if reason:
            self.needs_rebuild = True
            self.tell(f"ERROR could not resize image: {reason}")
            return
        self.result.corruptions -= 1
        self.result.corruptions_fixed += 1
        self.count(offset, self.size)

    # ---------------------------------------------------------------- comparing

    def compare(self, repair: int) -> None:
        """Compare the counts with the refcounts, and set those right that may be."""
        per_block = self.image.refcounts_per_block
        self.highest = 0
        for first in range(0, len(self.counts), per_block):
            wanted = self.counts[first : first + per_block]
            try:
                found = self.image.refcounts.values_at(first, len(wanted))
            except BlockError as error:
                for cluster in range(first, first + len(wanted)):
                    self.tell(f"Can't get refcount for cluster {cluster}: {error.reason}")
                self.result.check_errors += len(wanted)
                continue
            used = max(_last_used(wanted), _last_used(found))
            if used >= 0:
                self.highest = first + used
            if found != wanted:
                self._differs = True
                for index, (present, counted) in enumerate(zip(found, wanted, strict=True)):
                    if present != counted:
                        self._compare_one(first + index, present, counted, repair)

    def _compare_one(self, cluster: int, present: int, counted: int, repair: int) -> None:
        result = self.result
        leaked = present > counted
        fixes = False
        if not present:
            self.needs_rebuild = True
        else:
            fixes = bool(repair & (Repair.LEAKS if leaked else Repair.ERRORS))
        verb = "Repairing" if fixes else "Leaked" if leaked else "ERROR"
        self.tell(f"{verb} cluster {cluster} refcount={present} reference={counted}")
        if fixes:
            try:
                self.image.refcounts.change(
                    cluster << self.bits, 1, counted - present, Freed.ALWAYS
                )
            except BlockError:
                pass  # it stays as it is, and is counted so
            else:
                if leaked:
                    result.leaks_fixed += 1
                else:
                    result.corruptions_fixed += 1
                return
        if leaked:
            result.leaks += 1
        else:
            result.corruptions += 1

    # ---------------------------------------------------------------- the "copied" marks

    def _check_copied(self) -> None:
        """Check that the active tables mark as ours alone just what is ours alone."""
        if not self._differs and not self._copied_is_missing and max(self.counts, default=0) <= 1:
            return  # all have a refcount of one, and all are marked
        result = self.result
        if self.repair & Repair.ERRORS:
            mends = True
        else:
            sound = not (result.check_errors or result.corruptions or result.leaks)
            mends = bool(self.repair & Repair.LEAKS) and sound
        for index in range(len(self.image.l1)):
            self._check_copied_table(index, mends=mends)

    def _check_copied_table(self, index: int, *, mends: bool) -> None:
        image, result = self.image, self.result
        entry = image.l1[index]
        place = entry & OFFSET_MASK
        if not place:
            return
        try:
            refcount = image.refcounts.get(place >> self.bits)
        except BlockError:
            return  # told already
        verb = "Repairing" if mends else "ERROR"
        if (refcount == 1) != bool(entry & COPIED):
            result.corruptions += 1
            self.tell(
                f"{verb} OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} "
                f"refcount={refcount}"
            )
            if mends:
                image.set_l1(index, entry & ~COPIED | (COPIED if refcount == 1 else 0))
                try:
                    image.write_l1_entry(index)
                except BlockError as error:
                    result.check_errors += 1
                    raise Unchecked(error.errno) from error
                result.corruptions -= 1
                result.corruptions_fixed += 1
        self._check_copied_entries(place, verb, mends=mends)

    def _check_copied_entries(self, place: int, verb: str, *, mends: bool) -> None:
        image = self.image
        try:
            table = unpack_table(image.file.read(place, self.size))
        except BlockError as error:
            self.tell(f"ERROR: Could not read L2 table: {error.reason}")
            self.result.check_errors += 1
            raise Unchecked(error.errno) from error
        has_data_file = image.header.has_data_file
        changed = 0
        for at in range(0, len(table), 2 if image.extended else 1):
            entry = table[at]
            kind = cluster_kind(entry, extended=image.extended, data_file=has_data_file)
            if kind not in Kind.PLACED:
                continue
            refcount = 1
            if not has_data_file:
                try:
                    refcount = image.refcounts.get((entry & OFFSET_MASK) >> self.bits)
                except BlockError:
                    continue
            if (refcount == 1) == bool(entry & COPIED):
                continue
            self.result.corruptions += 1
            self.tell(f"{verb} OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={refcount}")
            if mends:
                table[at] = entry & ~COPIED | (COPIED if refcount == 1 else 0)
                changed += 1
        if changed:
            self._write_table(place, table)
            self.result.corruptions -= changed
            self.result.corruptions_fixed += changed

    def _write_table(self, place: int, table: array[int]) -> None:
        image = self.image
        try:
            image.guard.check(place, self.size, ignore=Structure.ACTIVE_L2)
        except BlockError as error:
            self.tell(
                f"ERROR: Could not write L2 table; metadata overlap check failed: {error.reason}"
            )
            self.result.check_errors += 1
            raise Unchecked(error.errno) from error
        try:
            image.l2_tables.forget(place)
            image.file.write(place, pack_table(table))
        except BlockError as error:
            self.tell(f"ERROR: Could not write L2 table: {error.reason}")
            self.result.check_errors += 1
            raise Unchecked(error.errno) from error


def _last_used(counts: array[int]) -> int:
    """Return the index of the last count above zero, -1 if there is none."""
    used = len(counts.tobytes().rstrip(b"\0"))
    return divide_up(used, counts.itemsize) - 1


class _TableWalk:
    """One L2 table."""

    def __init__(
        self, checker: Checker, place: int, table: array[int], repair: int, *, active: bool
    ) -> None:
        self.checker = checker
        self.place = place
        self.table = table
        self.mends = bool(repair & Repair.ERRORS)
        self.active = active
        self.copied_is_missing = False
        self.next_offset = 0  # where the next cluster would be, were they in a row

    def run_standard(self) -> None:
        """Walk over entries of 8 bytes."""
        checker = self.checker
        size, bits, counts = checker.size, checker.bits, checker.counts
        misplaced = OFFSET_MASK & (size - 1)
        odd = entries.L2_RESERVED | COMPRESSED | ZERO | misplaced
        end = min(len(counts), (checker.file_size >> bits) or 1) << bits
        largest, expected = checker.largest, 0
        slow = checker.image.header.has_data_file
        allocated = fragmented = 0
        for index, entry in enumerate(self.table):
            if not entry:
                continue
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
            checker.result.allocated_clusters += allocated
            checker.result.fragmented_clusters += fragmented

    def run_extended(self) -> None:
        """Walk over entries of 16 bytes."""
        table = self.table
        for index in range(0, len(table), 2):
            if table[index] or table[index + 1]:
                self._look_at(index // 2, table[index], table[index + 1])

    def _corrupt(self, text: str) -> None:
        self.checker.tell(text)
        self.checker.result.corruptions += 1

    def _look_at(self, index: int, entry: int, bitmap: int) -> None:
        """Check one entry with all there is to be said about it."""
        image = self.checker.image
        has_data_file = image.header.has_data_file
        kind = cluster_kind(entry, extended=image.extended, data_file=has_data_file)
        reserved = entries.L2_RESERVED & ~(1 << 63 | 1 << 62)
        if kind != Kind.COMPRESSED and entry & reserved:
            self._corrupt(f"ERROR found l2 entry with reserved bits set: {entry:x}")
        if kind == Kind.COMPRESSED:
            self._look_at_compressed(index, entry, bitmap)
        elif kind in Kind.PLACED:
            self._look_at_placed(index, entry, bitmap)
        elif kind == Kind.UNALLOCATED and bitmap & SUBCLUSTERS_ALLOCATED:
            self._corrupt("ERROR: Unallocated cluster has non-zero subcluster allocation map")

    def _look_at_compressed(self, index: int, entry: int, bitmap: int) -> None:
        checker = self.checker
        image = checker.image
        if entry & COPIED:
            offset, _ = compressed_range(entry, checker.bits)
            self._corrupt(
                f"ERROR: coffset=0x{offset:x}: copied flag must never be set for compressed "
                "clusters"
            )
            entry &= ~COPIED
        if image.header.has_data_file:
            self._corrupt(f"ERROR compressed cluster {index} with data file, entry=0x{entry:x}")
            return
        if bitmap:
            self._corrupt(
                f"ERROR compressed cluster {index} with non-zero subcluster allocation bitmap, "
                f"entry=0x{entry:x}"
            )
            return
        checker.count(*compressed_range(entry, checker.bits))
        if self.active:
            checker.result.allocated_clusters += 1
            checker.result.compressed_clusters += 1
            checker.result.fragmented_clusters += 1

    def _look_at_placed(self, index: int, entry: int, bitmap: int) -> None:
        checker = self.checker
        offset = entry & OFFSET_MASK
        if not entry & COPIED:
            self.copied_is_missing = True
        if bitmap >> 32 & bitmap & SUBCLUSTERS_ALLOCATED:
            self._corrupt(
                f"ERROR offset={offset:x}: Allocated cluster has corrupted subcluster allocation "
                "bitmap"
            )
        if offset % checker.size and self._look_at_misplaced(index, entry, bitmap):
            return
        if self.active:
            checker.result.allocated_clusters += 1
            if self.next_offset and offset != self.next_offset:
                checker.result.fragmented_clusters += 1
            self.next_offset = offset + checker.size
        if not checker.image.header.has_data_file:
            checker.count(offset, checker.size)

    def _look_at_misplaced(self, index: int, entry: int, bitmap: int) -> bool:
        """Return whether the entry was mended and there is nothing left to count."""
        checker = self.checker
        offset = entry & OFFSET_MASK
        checker.result.corruptions += 1
        extended = checker.image.extended
        has_data = bitmap & SUBCLUSTERS_ALLOCATED if extended else not entry & ZERO
        if has_data:
            checker.tell(
                f"ERROR offset={offset:x}: Data cluster is not properly aligned; L2 entry "
                "corrupted."
            )
            return False
        verb = "Repairing" if self.mends else "ERROR"
        checker.tell(
            f"{verb} offset={offset:x}: Preallocated cluster is not properly aligned; L2 entry "
            "corrupted."
        )
        return self.mends and self._zero_entry(index, bitmap)

    def _zero_entry(self, index: int, bitmap: int) -> bool:
        checker = self.checker
        image = checker.image
        zeroes = (bitmap | bitmap << 32) & SUBCLUSTERS_ZERO
        mended = [0, zeroes] if image.extended else [ZERO]
        raw = b"".join(value.to_bytes(8, "big") for value in mended)
        place = self.place + index * len(raw)
        own = Structure.ACTIVE_L2 if self.active else Structure.INACTIVE_L2
        try:
            image.guard.check(place, len(raw), ignore=own)
        except BlockError as error:
            checker.tell("ERROR: Overlap check failed")
            checker.result.check_errors += 1
            raise Unchecked(error.errno) from error
        try:
            image.l2_tables.forget(self.place)
            image.write_durably(place, raw)
        except BlockError as error:
            checker.tell(f"ERROR: Failed to overwrite L2 table entry: {error.reason}")
            checker.result.check_errors += 1
            return False
        checker.result.corruptions -= 1
        checker.result.corruptions_fixed += 1
        return True
