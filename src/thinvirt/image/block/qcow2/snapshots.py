"""Internal snapshots: the table of them, and the sharing of clusters that they bring."""

from __future__ import annotations

import errno

from thinvirt.errors import CorruptImage
from thinvirt.image.block.abilities import Snapshot
from thinvirt.image.block.errors import BlockError, NotSupported, failed, with_reason
from thinvirt.image.block.qcow2.core import Freed, Structure, Unsettled
from thinvirt.image.block.qcow2.guard import c_hex
from thinvirt.image.block.qcow2.zeroing import Gathering
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.entries import (
    COPIED,
    OFFSET_MASK,
    Kind,
    cluster_kind,
    compressed_range,
)
from thinvirt.image.formats.qcow2.layout import FIELD_OFFSET, align_up
from thinvirt.image.formats.qcow2.refcounts import pack_table, unpack_table
from thinvirt.image.formats.qcow2.snapshots import SnapshotEntry, SnapshotHeader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from thinvirt.image.block.qcow2.core import Image

_NANOSECONDS = 1_000_000_000
_MAX_NAME_SHOWN = 255
_CHECK_HINT = "with qemu-img check -r all\n"


class TableRead:
    """What reading the snapshot table found.

    Attributes:
        entries: the snapshots.
        size: bytes of the table.
        dropped: snapshots that were left out, to mend the table.
        shortened: snapshots whose extra data was cut, to mend the table.
    """

    def __init__(self) -> None:
        self.entries: list[SnapshotEntry] = []
        self.size = self.dropped = self.shortened = 0


def read_table(
    image: Image, *, mend: bool = False, tell: Callable[[str], None] | None = None
) -> TableRead:
    """Read the snapshot table that the header names.

    Args:
        image: with its header read.
        mend: leave out what is too much, instead of refusing it.
        tell: told what was left out.

    Raises:
        BlockError: it cannot be read, or is larger than it may be.
    """
    header = image.header
    found = TableRead()
    say = tell or (lambda _: None)
    at = start = header.snapshots_offset
    length = 0
    for number in range(header.snapshot_count):
        before = at
        at, length = align_up(at, 8), align_up(length, 8)
        entry, end = _read_entry(image, at, number, found, mend=mend, say=say)
        length += end - at - entry.dropped_extra
        at = end
        if length > limits.MAX_SNAPSHOT_TABLE_BYTES or at - start > 0x7FFFFFFF:
            left = header.snapshot_count - number
            if not mend:
                raise BlockError(
                    "Snapshot table is too big",
                    number=errno.EFBIG,
                    qemu_hint=f"You can force-remove all {left} overhanging snapshots "
                    + _CHECK_HINT,
                )
            say(f"Discarding {left} overhanging snapshots (snapshot table is too big)")
            found.dropped += left
            at = before
            break
        found.entries.append(entry)
    found.size = at - start
    return found


def _read_entry(
    image: Image,
    at: int,
    number: int,
    found: TableRead,
    *,
    mend: bool,
    say: Callable[[str], None],
) -> tuple[SnapshotEntry, int]:
    """Return an entry and where it ends."""
    try:
        fixed = SnapshotHeader.unpack(image.file.read(at, SnapshotHeader.LAYOUT.size), at=at)
        at += SnapshotHeader.LAYOUT.size
        extra_size = fixed.extra_data_size
        if extra_size > limits.MAX_SNAPSHOT_EXTRA:
            if not mend:
                raise BlockError(
                    f"Too much extra metadata in snapshot table entry {number}",
                    number=errno.EFBIG,
                    qemu_hint=f"You can force-remove this extra metadata {_CHECK_HINT}",
                )
            say(
                f"Discarding too much extra metadata in snapshot table entry {number} "
                f"({extra_size} > {limits.MAX_SNAPSHOT_EXTRA})"
            )
            found.shortened += 1
        extra = image.file.read(at, min(extra_size, limits.MAX_SNAPSHOT_EXTRA))
        at += extra_size
        texts = image.file.read(at, fixed.id_size + fixed.name_size)
    except BlockError as error:
        if error.errno == errno.EFBIG:
            raise
        raise with_reason("Failed to read snapshot table", error.errno) from error
    except CorruptImage as error:
        raise with_reason("Failed to read snapshot table", errno.EIO) from error
    id_bytes = texts[: fixed.id_size].split(b"\0", 1)[0]
    name = texts[fixed.id_size :].split(b"\0", 1)[0]
    entry = SnapshotEntry.unpack(fixed, extra, id_bytes, name)
    entry.dropped_extra = extra_size - len(extra)
    return entry, at + len(texts)


def read_snapshots(image: Image) -> tuple[list[SnapshotEntry], int]:
    """Return the snapshots and the bytes of their table.

    Raises:
        BlockError: the table cannot be read.
    """
    found = read_table(image)
    return found.entries, found.size


def write_table(image: Image, entries: list[SnapshotEntry]) -> None:
    """Write the snapshot table somewhere else and let the header name it.

    Raises:
        BlockError: it failed; the old table is still in force.
    """
    size = image.header.virtual_size
    raw = _joined([entry.pack(disk_size=size) for entry in entries])
    if len(raw) > limits.MAX_SNAPSHOT_TABLE_BYTES:
        raise failed(errno.EFBIG)
    header = image.header
    place = image.refcounts.allocate(len(raw)) if raw else 0
    try:
        image.flush()
        if raw:
            image.guard.check(place, len(raw))
            image.file.write(place, raw)
            image.flush_caches()
        count = len(entries).to_bytes(4, "big")
        image.write_durably(FIELD_OFFSET["snapshot_count"], count + place.to_bytes(8, "big"))
    except BlockError as error:
        if raw and not isinstance(error, Unsettled):
            image.refcounts.free(place, len(raw), Freed.ALWAYS)
        raise
    old, old_size = header.snapshots_offset, image.snapshots_size
    header.snapshots_offset, header.snapshot_count = place, len(entries)
    image.snapshots, image.snapshots_size = entries, len(raw)
    image.refcounts.free(old, old_size, Freed.SNAPSHOT)


def _joined(parts: list[bytes]) -> bytes:
    """Return the parts, each but the last padded to 8 bytes."""
    raw = bytearray()
    for part in parts:
        raw += bytes(-len(raw) % 8)
        raw += part
    return bytes(raw)


# ---------------------------------------------------------------- sharing


def change_sharing(image: Image, offset: int, table: array[int], amount: int) -> None:
    """Add to the refcounts of all that an L1 table refers to; bring the "copied" marks up to date.

    Args:
        image: the image.
        offset: of the L1 table, host bytes.
        table: the L1 table; its own marks are changed in memory, and on disk unless `amount` is
            negative.
        amount: 1, -1, or 0 to look after the marks only.

    Raises:
        BlockError: it failed.
    """
    changed = False
    with Gathering(image):
        for index, entry in enumerate(table):
            if not entry:
                continue
            place = entry & OFFSET_MASK
            if place & image.cluster_size - 1:
                raise image.guard.damaged(
                    f"L2 table offset {place:#x} unaligned (L1 index: {c_hex(index)})"
                )
            _change_table(image, place, amount)
            if amount:
                image.refcounts.change(place, image.cluster_size, amount, Freed.SNAPSHOT)
            mark = COPIED if image.refcounts.get(place >> image.cluster_bits) == 1 else 0
            if entry != place | mark:
                table[index] = place | mark
                changed = True
        image.flush()
    if changed and amount >= 0:
        image.write_durably(offset, pack_table(table))


def _change_table(image: Image, place: int, amount: int) -> None:
    """Do it for the clusters of one L2 table."""
    step = 2 if image.extended else 1
    table = image.l2_tables.load(place)
    values = table.values
    for at in range(0, len(values), step):
        entry = values[at]
        kind = cluster_kind(entry, extended=image.extended)
        if kind == Kind.COMPRESSED:
            if amount:
                where, size = compressed_range(entry, image.cluster_bits)
                image.refcounts.change(where, size, amount, Freed.SNAPSHOT)
            new = entry & ~COPIED
        elif kind in Kind.PLACED:
            new = _shared_entry(image, entry, place, at // step, amount)
        else:
            new = entry & ~COPIED
        if new != entry:
            if amount > 0:
                image.l2_tables.depend_on(image.refcounts.cache)
            # The table may have been written and dropped from the cache meanwhile.
            table = image.l2_tables.load(place)
            values = table.values
            values[at] = new
            table.touch(at)


def _shared_entry(image: Image, entry: int, place: int, index: int, amount: int) -> int:
    """Count a data cluster; return its L2 entry with the right mark."""
    where = entry & OFFSET_MASK
    if where & image.cluster_size - 1:
        raise image.guard.damaged(
            f"Cluster allocation offset {where:#x} unaligned (L2 offset: {place:#x}, L2 index: "
            f"{index:#x})"
        )
    if amount:
        image.refcounts.change(where, image.cluster_size, amount, Freed.SNAPSHOT)
    only = image.refcounts.get(where >> image.cluster_bits) == 1
    return entry & ~COPIED | (COPIED if only else 0)


# ---------------------------------------------------------------- what users ask for


def list_snapshots(image: Image) -> list[Snapshot]:
    """Return the snapshots as others see them; with a data file there are none."""
    if image.header.has_data_file:
        return []
    return [
        Snapshot(
            _text(entry.id_bytes)[:127],
            _text(entry.name)[:_MAX_NAME_SHOWN],
            vm_state_size=entry.vm_state_size,
            date_ns=entry.date_s * _NANOSECONDS + entry.date_ns,
            vm_clock_ns=entry.vm_clock_ns,
            icount=entry.icount,
        )
        for entry in image.snapshots
    ]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _find(image: Image, snapshot: Snapshot) -> int:
    for index, entry in enumerate(image.snapshots):
        if _text(entry.id_bytes) == snapshot.id and _text(entry.name) == snapshot.name:
            return index
    raise BlockError("Can't find the snapshot", number=errno.ENOENT)


def _number(id_bytes: bytes) -> int:
    """Return the number that an id begins with."""
    text = id_bytes.lstrip()
    end = 0
    while text[end : end + 1].isdigit():
        end += 1
    return min(int(text[:end] or b"0"), (1 << 64) - 2)


def create_snapshot(image: Image, name: str, date_ns: int) -> None:
    """Record the present content; see `Snapshotable.create_snapshot`."""
    if len(image.snapshots) >= limits.MAX_SNAPSHOTS:
        raise failed(errno.EFBIG)
    if image.header.has_data_file:
        raise NotSupported
    new_id = max((_number(entry.id_bytes) for entry in image.snapshots), default=0) + 1
    size = len(image.l1) * 8
    place = image.refcounts.allocate(size)
    entry = SnapshotEntry(
        str(new_id).encode(),
        name.encode("utf-8", "surrogateescape"),
        l1_table_offset=place,
        l1_entries=len(image.l1),
    )
    entry.date_s, entry.date_ns = divmod(date_ns, _NANOSECONDS)
    entry.disk_size = image.header.virtual_size
    entry.icount = 0
    image.guard.check(place, size)
    image.file.write(place, pack_table(image.l1))
    change_sharing(image, image.header.l1_table_offset, image.l1, 1)
    write_table(image, [*image.snapshots, entry])


def read_l1(image: Image, entry: SnapshotEntry, *, tell: bool = False) -> array[int]:
    """Return the L1 table of a snapshot.

    Args:
        image: that has it.
        entry: the snapshot.
        tell: say at once what is wrong, because of the error only its errno will be kept.

    Raises:
        BlockError: the table cannot be, or cannot be read.
    """
    try:
        image.header.check_table(
            "Snapshot L1 table", entry.l1_table_offset, entry.l1_entries, 8, limits.MAX_L1_BYTES
        )
    except BlockError as error:
        if tell:
            image.graph.warn(f"error: {error.message}")
        raise
    return unpack_table(image.file.read(entry.l1_table_offset, entry.l1_entries * 8))


def apply_snapshot(image: Image, snapshot: Snapshot) -> None:
    """Go back to a snapshot; see `Snapshotable.apply_snapshot`."""
    if image.header.has_data_file:
        raise NotSupported
    entry = image.snapshots[_find(image, snapshot)]
    read_l1(image, entry, tell=True)  # before anything is changed
    if entry.disk_size is not None and entry.disk_size != image.header.virtual_size:
        image.truncate(entry.disk_size, exact=True)
    image.grow_l1(entry.l1_entries, exact=True)
    size = len(image.l1) * 8
    table = read_l1(image, entry)
    change_sharing(image, entry.l1_table_offset, table, 1)
    table = read_l1(image, entry)[: len(image.l1)]
    table.frombytes(bytes(size - len(table) * 8))
    active = image.header.l1_table_offset
    image.guard.check(active, size, ignore=Structure.ACTIVE_L1)
    image.write_durably(active, pack_table(table))
    old = image.l1
    try:
        change_sharing(image, active, old, -1)
    finally:
        image.l1 = table
        image.guard.reload()
    change_sharing(image, active, image.l1, 0)


def delete_snapshot(image: Image, snapshot: Snapshot) -> None:
    """Forget a snapshot; see `Snapshotable.delete_snapshot`."""
    if image.header.has_data_file:
        raise NotSupported
    index = _find(image, snapshot)
    entry = image.snapshots[index]
    table = read_l1(image, entry)
    try:
        write_table(image, image.snapshots[:index] + image.snapshots[index + 1 :])
    except BlockError as error:
        raise with_reason("Failed to remove snapshot from snapshot list", error.errno) from error
    try:
        change_sharing(image, entry.l1_table_offset, table, -1)
    except BlockError as error:
        raise with_reason("Failed to free the cluster and L1 table", error.errno) from error
    image.refcounts.free(entry.l1_table_offset, entry.l1_entries * 8, Freed.SNAPSHOT)
    try:
        change_sharing(image, image.header.l1_table_offset, image.l1, 0)
    except BlockError as error:
        raise with_reason("Failed to update snapshot status in disk", error.errno) from error


def load_snapshot(image: Image, snapshot: Snapshot) -> None:
    """Show a snapshot in this read-only node; see `Snapshotable.load_snapshot`."""
    if not image.read_only:
        raise failed(errno.EINVAL)
    entry = image.snapshots[_find(image, snapshot)]
    image.l1 = read_l1(image, entry)
    image.header.l1_table_offset, image.header.l1_entries = entry.l1_table_offset, len(image.l1)
    image.guard.reload()
