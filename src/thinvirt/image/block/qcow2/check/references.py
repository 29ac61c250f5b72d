"""Walk over all tables entry by entry, and say what is wrong with each."""

from __future__ import annotations

from thinvirt.image.block.abilities import Repair
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.qcow2.check.state import Unchecked, clusters_of, mending
from thinvirt.image.block.qcow2.check.tally import tally
from thinvirt.image.formats.qcow2 import entries, limits
from thinvirt.image.formats.qcow2.entries import COPIED, OFFSET_MASK
from thinvirt.image.formats.qcow2.refcounts import empty_refcounts, unpack_table

_MOST_ADDED = 4 << 20  # clusters that a repair adds to a file at most: 256 GiB of the usual size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.qcow2.check.state import CheckState


def count_references(state: CheckState, repair: int) -> None:
    """Count all references of the image, and tell of those that cannot be.

    Args:
        state: its counts are all zero.
        repair: of `Repair`; not that of the whole check when this is done a second time.

    Raises:
        Unchecked: it cannot go on.
    """
    image, header = state.image, state.image.header
    state.count(0, state.size)
    _count_mapping(state, repair)
    state.count(header.snapshots_offset, image.snapshots_size)
    state.count(header.refcount_table_offset, len(image.refcounts.table) * 8)
    state.count(header.encryption_offset, header.encryption_length)
    if header.bitmap_count:
        from thinvirt.image.block.qcow2.bitmaps import count_bitmaps

        try:
            count_bitmaps(image, state.count_large)
        except BlockError as error:
            state.result.corruptions += 1
            raise Unchecked(error.errno) from error
    _count_blocks(state, repair)


# ---------------------------------------------------------------- L1 and L2 tables


def _count_mapping(state: CheckState, repair: int) -> None:
    """Count what the active table and the snapshots refer to."""
    image, header = state.image, state.image.header
    tables = [(header.l1_table_offset, len(image.l1))]
    findings: list[tuple[int, str]] = []  # (how many tables come before it, what is told)
    if header.has_data_file and image.snapshots:
        findings.append((1, f"ERROR {len(image.snapshots)} snapshots in image with data file"))
    for entry in image.snapshots:
        wrong = _wrong_with(entry.l1_table_offset, entry.l1_entries, state.size)
        if wrong:
            name = (
                f"snapshot {entry.id_bytes.decode('utf-8', 'surrogateescape')} "
                f"({entry.name.decode('utf-8', 'surrogateescape')})"
            )
            findings.append((len(tables), f"ERROR {name} {wrong}; snapshot table entry corrupted"))
        else:
            tables.append((entry.l1_table_offset, entry.l1_entries))
    in_bulk = tally(state, tables)
    for number, (offset, length) in enumerate(tables):
        if not in_bulk:
            _count_l1(state, offset, length, repair, active=not number)
        while findings and findings[0][0] == number + 1:
            state.corrupt(findings.pop(0)[1])
    if state.has_mended:
        # What these entries referred to may be free from now on.
        try:
            image.flush_file()
        except BlockError as error:
            text = f"ERROR: Failed to overwrite L2 table entry: {error.reason}"
            raise state.give_up(text, error.errno) from error


def _wrong_with(offset: int, length: int, cluster_size: int) -> str:
    """Return why a snapshot's L1 table is not looked at, if it is not."""
    if offset % cluster_size:
        return f"l1_offset={offset:#x}: L1 table is not cluster aligned"
    if length > limits.MAX_L1_BYTES // 8:
        return f"l1_size={length:#x}: L1 table is too large"
    return ""


def _count_l1(state: CheckState, offset: int, length: int, repair: int, *, active: bool) -> None:
    if not length:
        return
    state.charge(length // 8)
    state.count(offset, length * 8)
    try:
        table = unpack_table(state.image.file.read(offset, length * 8))
    except BlockError as error:
        raise state.give_up("ERROR: I/O error in check_refcounts_l1", error.errno) from error
    for entry in table:
        if not entry:
            continue
        if entry & entries.L1_RESERVED:
            state.corrupt(f"ERROR found L1 entry with reserved bits set: {entry:x}")
        place = entry & OFFSET_MASK
        state.count(place, state.size)
        if place % state.size:
            state.corrupt(
                f"ERROR l2_offset={place:x}: Table is not cluster aligned; L1 entry corrupted"
            )
        if active and place and not entry & COPIED:
            state.copied_is_missing = True
        _count_l2(state, place, repair, active=active)


def _count_l2(state: CheckState, place: int, repair: int, *, active: bool) -> None:
    from thinvirt.image.block.qcow2.check.l2_walk import L2Walk

    state.charge(state.size // 8)
    try:
        table = unpack_table(state.image.file.read(place, state.size))
    except BlockError as error:
        raise state.give_up("ERROR: I/O error in check_refcounts_l2", error.errno) from error
    walk = L2Walk(state, place, table, repair, active=active)
    walk.run()
    state.copied_is_missing |= walk.copied_is_missing


# ---------------------------------------------------------------- refcount blocks


def _count_blocks(state: CheckState, repair: int) -> None:
    """Count the refcount blocks; what is wrong with them needs a new structure."""
    for index, entry in enumerate(state.image.refcounts.table):
        if not entry:
            continue
        offset = entry & entries.REFCOUNT_TABLE_OFFSET
        cluster = offset >> state.bits
        if entry & entries.REFCOUNT_TABLE_RESERVED:
            _damaged(state, f"ERROR refcount table entry {index} has reserved bits set")
        elif offset % state.size:
            _damaged(
                state,
                f"ERROR refcount block {index} is not cluster aligned; refcount table entry "
                "corrupted",
            )
        elif cluster >= len(state.counts):
            _outside(state, index, offset, repair)
        else:
            state.count(offset, state.size)
            if state.counts[cluster] != 1:
                _damaged(state, f"ERROR refcount block {index} refcount={state.counts[cluster]}")


def _damaged(state: CheckState, text: str) -> None:
    state.corrupt(text)
    state.needs_rebuild = True


def _outside(state: CheckState, index: int, offset: int, repair: int) -> None:
    """A block lies behind the end of the file: make the file longer, if that is allowed."""
    result = state.result
    state.corrupt(f"{mending(repair)} refcount block {index} is outside image")
    if not repair & Repair.ERRORS:
        return
    end = offset + state.size
    reason = ""
    if end > (1 << 63) - 1:
        reason = "Invalid argument"
    elif offset >> state.bits > len(state.counts) + _MOST_ADDED:
        reason = "File too large"  # an entry made up may lie anywhere; QEMU runs out of memory
    else:
        try:
            state.image.file.truncate(end)
        except BlockError as error:
            state.tell(f"error: {error.message}")
            reason = error.reason
    state.file_size = state.image.file.size
    missing = clusters_of(state.file_size, state.size) - len(state.counts)
    if missing > 0:
        state.counts.extend(empty_refcounts(missing, state.image.refcount_order))
    if not reason and offset >> state.bits >= len(state.counts):
        reason = "Invalid argument"
    if reason:
        state.needs_rebuild = True
        state.tell(f"ERROR could not resize image: {reason}")
        return
    result.corruptions -= 1
    result.corruptions_fixed += 1
    state.count(offset, state.size)
