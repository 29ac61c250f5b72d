"""Check that the active tables mark as theirs alone just what is: the "copied" flags."""

from __future__ import annotations

from thinvirt.image.block.abilities import Repair
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.qcow2.check.state import MANY_ENTRIES, Unchecked
from thinvirt.image.block.qcow2.core import Structure
from thinvirt.image.formats.qcow2.entries import COPIED, OFFSET_MASK, Kind, cluster_kind
from thinvirt.image.formats.qcow2.refcounts import empty_refcounts, pack_table, unpack_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable
    from typing import TypeAlias

    from thinvirt.image.block.qcow2.check.state import CheckState

    # Tells of the bytes of an L2 table whether all its marks are right.
    BulkTest: TypeAlias = Callable[[bytes], bool]

_STEP = 1 << 20  # counts looked at in one go
_OUT_OF_FILE_WORK = 256  # entries; a refcount block may have to be read for it


def check_marks(state: CheckState) -> None:
    """Check the marks of all active tables, and set them right if that may be.

    Raises:
        Unchecked: it cannot go on.
    """
    found = state.result.corruptions or state.result.corruptions_fixed or state.differs
    if not found and not state.copied_is_missing and _at_most_once(state.counts):
        return  # all have a refcount of one, and all are marked
    MarkCheck(state).run()


def _at_most_once(counts: array[int]) -> bool:
    """Whether no count is above one."""
    for start in range(0, len(counts), _STEP):
        raw = counts[start : start + _STEP].tobytes()
        if raw.translate(None, b"\0\1"):
            return False
        if counts.itemsize > 1 and raw.count(1) and max(counts[start : start + _STEP]) > 1:
            return False
    return True


class MarkCheck:
    """The check of the marks, after refcounts were set right."""

    def __init__(self, state: CheckState) -> None:
        self.state = state
        image = state.image
        result = state.result
        if state.may(Repair.ERRORS):
            self.mends = True
        else:
            sound = not (result.check_errors or result.corruptions or result.leaks)
            self.mends = state.may(Repair.LEAKS) and sound
        self.verb = "Repairing" if self.mends else "ERROR"
        self.has_data_file = image.header.has_data_file
        self.refcounts, self._unreadable = _read_refcounts(state)
        self._right: set[int] = set()  # tables whose marks are
        self._mended_l1: list[int] = []  # indexes

    def run(self) -> None:
        """Check the L1 table and, in its order, the L2 tables."""
        try:
            self._check_tables()
        finally:
            if self._mended_l1:
                self._write_l1()

    def _check_tables(self) -> None:
        is_right = self._bulk_test()
        for index, entry in enumerate(self.state.image.l1):
            place = entry & OFFSET_MASK
            if not place:
                continue
            try:
                refcount = self._refcount(place >> self.state.bits)
            except BlockError:
                continue  # told already
            if (refcount == 1) != bool(entry & COPIED):
                self._mend_l1(index, entry, refcount)
            if place in self._right:
                continue
            raw = self._read(place)
            if is_right(raw):
                self._right.add(place)
            else:
                self._check_entries(place, unpack_table(raw))

    def _read(self, place: int) -> bytes:
        state = self.state
        state.charge(state.size // 8)
        try:
            return state.image.file.read(place, state.size)
        except BlockError as error:
            raise state.give_up(
                f"ERROR: Could not read L2 table: {error.reason}", error.errno
            ) from error

    def _refcount(self, cluster: int) -> int:
        """Return the refcount that the image has; raise `BlockError` if it cannot be told."""
        per_block = self.state.image.refcounts_per_block
        if cluster < len(self.refcounts) and cluster // per_block not in self._unreadable:
            return self.refcounts[cluster]
        self.state.charge(_OUT_OF_FILE_WORK)
        return self.state.image.refcounts.get(cluster)

    # ---------------------------------------------------------------- in bulk

    def _bulk_test(self) -> BulkTest:
        if self._unreadable:
            return _never
        if len(self.refcounts) >= MANY_ENTRIES:
            try:
                from thinvirt.image.block.qcow2.check.vector_marks import vector_test
            except ImportError:
                pass  # numpy is optional
            else:
                return vector_test(self.state, self.refcounts, has_data_file=self.has_data_file)
        return self._are_right

    def _are_right(self, raw: bytes) -> bool:
        """Whether all marks of a table are right; False also if one must be looked at closely."""
        image, refcounts = self.state.image, self.refcounts
        bits, end = self.state.bits, len(self.refcounts)
        table = unpack_table(raw)
        for entry in table[::2] if image.extended else table:
            kind = cluster_kind(entry, extended=image.extended, data_file=self.has_data_file)
            if kind not in Kind.PLACED:
                continue
            cluster = (entry & OFFSET_MASK) >> bits
            if self.has_data_file:
                refcount = 1
            elif cluster < end:
                refcount = refcounts[cluster]
            else:
                return False
            if (refcount == 1) != bool(entry & COPIED):
                return False
        return True

    # ---------------------------------------------------------------- one by one

    def _mend_l1(self, index: int, entry: int, refcount: int) -> None:
        state, image = self.state, self.state.image
        state.corrupt(
            f"{self.verb} OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} "
            f"refcount={refcount}"
        )
        if not self.mends:
            return
        image.set_l1(index, _marked(entry, refcount))
        self._mended_l1.append(index)
        state.result.corruptions -= 1
        state.result.corruptions_fixed += 1

    def _write_l1(self) -> None:
        """Write all L1 entries that were mended at once: their marks depend on nothing."""
        state, image = self.state, self.state.image
        first, last = self._mended_l1[0], self._mended_l1[-1]
        place = image.header.l1_table_offset + first * 8
        data = pack_table(image.l1[first : last + 1])
        try:
            image.guard.check(place, len(data), ignore=Structure.ACTIVE_L1)
            image.file.debug_event("l1_update")
            image.write_durably(place, data)
        except BlockError as error:
            state.result.check_errors += 1
            state.result.corruptions += len(self._mended_l1)
            state.result.corruptions_fixed -= len(self._mended_l1)
            raise Unchecked(error.errno) from error

    def _check_entries(self, place: int, table: array[int]) -> None:
        state, image = self.state, self.state.image
        changed = 0
        for at in range(0, len(table), 2 if image.extended else 1):
            entry = table[at]
            kind = cluster_kind(entry, extended=image.extended, data_file=self.has_data_file)
            if kind not in Kind.PLACED:
                continue
            refcount = 1
            if not self.has_data_file:
                try:
                    refcount = self._refcount((entry & OFFSET_MASK) >> state.bits)
                except BlockError:
                    continue
            if (refcount == 1) == bool(entry & COPIED):
                continue
            state.corrupt(
                f"{self.verb} OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={refcount}"
            )
            if self.mends:
                table[at] = _marked(entry, refcount)
                changed += 1
        if changed:
            self._write(place, table)
            state.result.corruptions -= changed
            state.result.corruptions_fixed += changed

    def _write(self, place: int, table: array[int]) -> None:
        state, image = self.state, self.state.image
        try:
            image.guard.check(place, state.size, ignore=Structure.ACTIVE_L2)
        except BlockError as error:
            raise state.give_up(
                f"ERROR: Could not write L2 table; metadata overlap check failed: {error.reason}",
                error.errno,
            ) from error
        try:
            image.l2_tables.forget(place)
            image.file.write(place, pack_table(table))
        except BlockError as error:
            raise state.give_up(
                f"ERROR: Could not write L2 table: {error.reason}", error.errno
            ) from error


def _read_refcounts(state: CheckState) -> tuple[array[int], set[int]]:
    """Return the refcounts of the file's clusters, and the indexes of blocks that cannot be read.

    The image's cache is for few blocks at a time, and tables name clusters in any order.
    """
    image = state.image
    per_block = image.refcounts_per_block
    refcounts = empty_refcounts(0, image.refcount_order)
    unreadable: set[int] = set()
    for first in range(0, len(state.counts), per_block):
        count = min(per_block, len(state.counts) - first)
        try:
            refcounts.extend(image.refcounts.values_at(first, count))
        except BlockError:
            unreadable.add(first // per_block)
            refcounts.extend(empty_refcounts(count, image.refcount_order))
    return refcounts, unreadable


def _marked(entry: int, refcount: int) -> int:
    """Return an entry with the mark that it should have."""
    return entry & ~COPIED | (COPIED if refcount == 1 else 0)


def _never(raw: bytes) -> bool:
    """Let every entry be looked at."""
    return False
