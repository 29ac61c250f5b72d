"""Guest writes: where they go, what must be copied around them, and how the tables learn of it."""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import BlockError, NotSupported, failed
from thinvirt.image.block.flags import WriteFlags
from thinvirt.image.block.qcow2.core import Freed, Unsettled
from thinvirt.image.block.qcow2.guard import c_hex
from thinvirt.image.block.status import status_above
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.entries import (
    COPIED,
    OFFSET_MASK,
    SUBCLUSTERS,
    SUBCLUSTERS_ALLOCATED,
    Kind,
    cluster_kind,
    subcluster_kind,
    subcluster_mask,
    subcluster_run,
)
from thinvirt.image.formats.qcow2.layout import FIELD_OFFSET, align_up, divide_up
from thinvirt.image.formats.qcow2.refcounts import pack_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode, Buffer
    from thinvirt.image.block.qcow2.core import Image, TableLike

MAX_RUN = 0x7FFFFE00  # bytes handled in one go: QEMU's largest request
_MERGED_READ = 16384  # a gap between head and tail up to this is read over


class Placement:
    """Guest clusters and the host clusters they get, or keep.

    Attributes:
        guest, host: offsets of the first cluster.
        clusters: how many.
        keeps: the host clusters are the old ones.
        copy_from, copy_to: the head to be copied, bytes from the first cluster's start.
        tail_from, tail_to: the tail to be copied.
        is_reserved: nothing is written, the subclusters stay as they are.
        is_zeroed: head and tail read as zeroes, and the host was told so.
    """

    __slots__ = (
        "clusters",
        "copy_from",
        "copy_to",
        "guest",
        "host",
        "is_reserved",
        "is_zeroed",
        "keeps",
        "tail_from",
        "tail_to",
    )

    def __init__(self, guest: int, host: int, clusters: int, *, keeps: bool = False) -> None:
        self.guest = guest
        self.host = host
        self.clusters = clusters
        self.keeps = keeps
        self.copy_from = self.copy_to = 0
        self.tail_from = self.tail_to = 0
        self.is_reserved = False
        self.is_zeroed = False

    @property
    def copies(self) -> bool:
        """Whether anything must be copied."""
        return self.copy_to > self.copy_from or self.tail_to > self.tail_from


class Writer:
    """Writes guest data."""

    def __init__(self, image: Image) -> None:
        self.image = image

    # ---------------------------------------------------------------- L1 and L2 tables

    def table_for(self, offset: int) -> tuple[TableLike, int]:
        """Return the L2 table for a guest offset, ready to be changed, and the index in it.

        Raises:
            BlockError: it cannot be read or made.
        """
        image = self.image
        index = offset >> image.cluster_bits + image.l2_bits
        if index >= len(image.l1):
            self.grow_l1(index + 1)
        entry = image.l1[index]
        old = entry & OFFSET_MASK
        if old & image.cluster_size - 1:
            raise image.guard.damaged(
                f"L2 table offset {old:#x} unaligned (L1 index: {c_hex(index)})"
            )
        if not entry & COPIED:
            self._make_l2(index, old)
            if old:
                image.refcounts.free(old, image.cluster_size, Freed.OTHER)
        table = image.l2_tables.load(image.l1[index] & OFFSET_MASK)
        return table, offset >> image.cluster_bits & image.l2_size - 1

    def _make_l2(self, index: int, old: int) -> None:
        """Make an L2 table, empty or a copy of the shared one at `old`."""
        image = self.image
        place = image.refcounts.allocate(image.cluster_size, "L2 table")
        before = image.l1[index]
        try:
            image.guard.check(place, image.cluster_size)
            image.refcounts.cache.flush()
            values = None
            if old:
                image.file.debug_event("l2_alloc_cow_read")
                values = image.l2_tables.load(old).values[:]
            image.l2_tables.new(place, values)
            image.file.debug_event("l2_alloc_write")
            image.l2_tables.flush()
            image.set_l1(index, place | COPIED)
            image.write_l1_entry(index)
        except BlockError as error:
            image.set_l1(index, before)
            if not isinstance(error, Unsettled):
                image.refcounts.free(place, image.cluster_size, Freed.ALWAYS)
            raise

    def grow_l1(self, entries: int, *, exact: bool = False) -> None:
        """Make the L1 table at least so long, somewhere else.

        Raises:
            BlockError: too long, or it could not be written.
        """
        image = self.image
        header = image.header
        present = len(image.l1)
        if entries <= present:
            return
        if not exact:
            wanted, entries = entries, present or 1
            while wanted > entries:
                entries = divide_up(entries * 3, 2)
        if entries > limits.MAX_L1_BYTES // 8:
            raise failed(errno.EFBIG)
        table = image.l1[:]
        table.frombytes(bytes((entries - present) * 8))
        image.file.debug_event("l1_grow_alloc_table")
        place = image.refcounts.allocate(entries * 8)
        try:
            image.guard.check(place, entries * 8)
            image.refcounts.cache.flush()
            image.file.debug_event("l1_grow_write_table")
            image.write_durably(place, pack_table(table))
            image.file.debug_event("l1_grow_activate_table")
            image.write_durably(
                FIELD_OFFSET["l1_entries"], entries.to_bytes(4, "big") + place.to_bytes(8, "big")
            )
        except BlockError as error:
            if not isinstance(error, Unsettled):
                image.refcounts.free(place, entries * 8, Freed.OTHER)
            raise
        old = header.l1_table_offset
        header.l1_table_offset, header.l1_entries = place, entries
        image.l1 = table
        image.refcounts.free(old, present * 8, Freed.OTHER)

    # ---------------------------------------------------------------- placing

    def place(self, offset: int, length: int) -> tuple[int, int, list[Placement]]:
        """Find host space for a guest range, contiguous as far as it goes.

        Returns:
            (host offset, bytes, placements to be linked once the data is there).

        Raises:
            BlockError: no room, or damaged tables.
        """
        start = host = -1
        at, end = offset, offset + length
        placements: list[Placement] = []
        try:
            while at < end:
                done, where = self._keep(at, end - at, host, placements)
                if done == 0:
                    done, where = self._allocate(at, end - at, host, placements)
                if done <= 0:
                    break
                if start < 0:
                    start = where
                at += done
                host = where + done
        except BlockError:
            self.abort(placements)
            raise
        return start, at - offset, placements

    def _entry(self, table: TableLike, index: int) -> int:
        return table.values[2 * index if self.image.extended else index]

    def _needs_new(self, entry: int) -> bool:
        image = self.image
        kind = cluster_kind(entry, extended=image.extended, data_file=image.header.has_data_file)
        return kind not in Kind.PLACED or not entry & COPIED

    def _window(self, offset: int, length: int) -> int:
        """Return how many clusters of a request lie in one L2 table."""
        image = self.image
        clusters = divide_up(offset % image.cluster_size + length, image.cluster_size)
        index = offset >> image.cluster_bits & image.l2_size - 1
        return min(clusters, image.l2_size - index, max(MAX_RUN >> image.cluster_bits, 1))

    def _keep(
        self, offset: int, length: int, host: int, placements: list[Placement]
    ) -> tuple[int, int]:
        """Use clusters that are ours alone; return (bytes, host offset), 0 for none, -1 to stop."""
        image = self.image
        size = image.cluster_size
        table, index = self.table_for(offset)
        entry = self._entry(table, index)
        if self._needs_new(entry):
            return 0, 0
        cluster = entry & OFFSET_MASK
        in_cluster = offset % size
        if cluster % size:
            kind = "Preallocated zero" if entry & 1 else "Data"
            raise image.guard.damaged(
                f"{kind} cluster offset {cluster:#x} unaligned (guest offset: {offset:#x})"
            )
        if host >= 0 and cluster != host:
            return -1, 0
        count = 1
        for more in range(1, self._window(offset, length)):
            entry = self._entry(table, index + more)
            if self._needs_new(entry) or entry & OFFSET_MASK != cluster + more * size:
                break
            count += 1
        done = min(length, count * size - in_cluster)
        placement = Placement(offset - in_cluster, cluster, count, keeps=True)
        if self._measure_kept(placement, table, index, offset, done):
            placements.append(placement)
        return done, cluster + in_cluster

    def _allocate(
        self, offset: int, length: int, host: int, placements: list[Placement]
    ) -> tuple[int, int]:
        """Take new clusters, at `host` if that is not negative; return as `_keep` does."""
        image = self.image
        size = image.cluster_size
        table, index = self.table_for(offset)
        count = 1
        for more in range(1, self._window(offset, length)):
            if not self._needs_new(self._entry(table, index + more)):
                break
            count += 1
        in_cluster = offset % size
        if image.header.has_data_file:
            cluster = offset - in_cluster
            image.refcounts.keep_guest_data(cluster, count)
        elif host < 0:
            cluster = image.refcounts.allocate(count * size)
        else:
            cluster = host
            count = image.refcounts.allocate_at(host, count)
            if not count:
                return -1, 0
        done = min(length, count * size - in_cluster)
        placement = Placement(offset - in_cluster, cluster, count)
        placements.append(placement)
        # Making room for a refcount block may have moved tables out of the cache.
        table, index = self.table_for(offset)
        self._measure_new(placement, table, index, offset, done)
        return done, cluster + in_cluster

    # ---------------------------------------------------------------- what must be copied

    def _edge(self, table: TableLike, index: int, guest: int) -> tuple[int, int, int]:
        """Return (kind, bitmap, subcluster index) at a guest offset."""
        image = self.image
        has_data_file = image.header.has_data_file
        if not image.extended:
            return cluster_kind(table.values[index], data_file=has_data_file), 0, 0
        bitmap = table.values[2 * index + 1]
        cluster = cluster_kind(table.values[2 * index], extended=True, data_file=has_data_file)
        at = guest % image.cluster_size >> image.subcluster_bits
        kind = subcluster_kind(cluster, bitmap, at)
        if kind == Kind.INVALID:
            l1_index = guest >> image.cluster_bits + image.l2_bits
            raise image.guard.damaged(
                f"Invalid cluster entry found (L2 offset: {image.l1[l1_index] & OFFSET_MASK:#x}, "
                f"L2 index: {c_hex(index)})"
            )
        return kind, bitmap, at

    def _check_valid(self, table: TableLike, index: int, count: int, guest: int) -> None:
        if self.image.extended:
            for more in range(count):
                self._edge(table, index + more, guest + (more << self.image.cluster_bits))

    def _measure_new(
        self, placement: Placement, table: TableLike, index: int, offset: int, length: int
    ) -> None:
        """Set head and tail of a placement on new clusters."""
        image = self.image
        size, unit = image.cluster_size, image.subcluster_size
        start = offset % size
        end = start + length
        last = index + divide_up(end, size) - 1
        self._check_valid(table, index, last - index + 1, placement.guest)
        kind, bitmap, at = self._edge(table, index, offset)
        if kind in (Kind.ZERO_PLAIN, Kind.UNALLOCATED):
            begin = at * unit
        elif kind == Kind.COMPRESSED or not image.extended:
            begin = 0
        else:
            allocated = bitmap & SUBCLUSTERS_ALLOCATED
            lowest = (allocated & -allocated).bit_length() - 1 if allocated else SUBCLUSTERS
            begin = min(at, lowest) * unit
        kind, bitmap, at = self._edge(table, last, offset + length - 1)
        if kind in (Kind.ZERO_PLAIN, Kind.UNALLOCATED):
            stop = align_up(end, unit)
        else:
            stop = align_up(end, size)
            if image.extended and kind != Kind.COMPRESSED:
                leading = SUBCLUSTERS - (bitmap & SUBCLUSTERS_ALLOCATED).bit_length()
                stop -= min(SUBCLUSTERS - at - 1, leading) * unit
        placement.copy_from, placement.copy_to = begin, start
        placement.tail_from, placement.tail_to = end, stop

    def _measure_kept(
        self, placement: Placement, table: TableLike, index: int, offset: int, length: int
    ) -> bool:
        """Set head and tail where clusters are kept; return whether there is anything to link."""
        image = self.image
        size, unit = image.cluster_size, image.subcluster_size
        start = offset % size
        end = start + length
        count = divide_up(end, size)
        placement.clusters = count
        if self._all_normal(table, index, start, end):
            return False
        self._check_valid(table, index, count, placement.guest)
        kind, _, at = self._edge(table, index, offset)
        begin = start if kind == Kind.NORMAL else at * unit
        kind, _, _ = self._edge(table, index + count - 1, offset + length - 1)
        stop = end if kind == Kind.NORMAL else align_up(end, unit)
        placement.copy_from, placement.copy_to = begin, start
        placement.tail_from, placement.tail_to = end, stop
        return True

    def _all_normal(self, table: TableLike, index: int, start: int, end: int) -> bool:
        image = self.image
        size = image.cluster_size
        for more in range(divide_up(end, size)):
            if not image.extended:
                if table.values[index + more] & 1:
                    return False
                continue
            first = max(start - more * size, 0) >> image.subcluster_bits
            last = min(end - more * size, size) - 1 >> image.subcluster_bits
            bitmap = table.values[2 * (index + more) + 1]
            kind, count = subcluster_run(Kind.NORMAL, bitmap, first)
            if kind != Kind.NORMAL or first + count <= last:
                return False
        return True

    # ---------------------------------------------------------------- doing it

    def write(self, offset: int, data: Buffer) -> None:
        """Store guest data.

        Raises:
            BlockError: it failed; clusters may have leaked, nothing refers to what was not written.
        """
        image = self.image
        view = memoryview(data)
        done, length = 0, len(view)
        while done < length:
            host, count, placements = self.place(offset + done, min(length - done, MAX_RUN))
            try:
                image.guard.check_data(host, count)
                piece = view[done : done + count]
                if image.cipher is not None:
                    piece = memoryview(image.encrypt(host, offset + done, piece))
                self._zero_edges(placements)
                self._write_with_edges(host, offset + done, piece, placements)
                self.link(placements)
            except BlockError:
                self.abort(placements)
                raise
            done += count

    def _zero_edges(self, placements: list[Placement]) -> None:
        """Where head and tail read as zeroes, let the host make them so in one stroke."""
        image = self.image
        if image.cipher is not None or not image.data_file.zero_flags & WriteFlags.NO_FALLBACK:
            return
        for placement in placements:
            if not placement.copies or not self._edges_are_zero(placement):
                continue
            start = placement.host + placement.copy_from
            length = placement.tail_to - placement.copy_from
            image.guard.check_data(start, length)
            image.file.debug_event("cluster_alloc_space")
            try:
                image.data_file.write_zeroes(start, length, WriteFlags.NO_FALLBACK)
            except NotSupported:
                continue
            placement.is_zeroed = True

    def _edges_are_zero(self, placement: Placement) -> bool:
        head = placement.guest + placement.copy_from, placement.copy_to - placement.copy_from
        tail = placement.guest + placement.tail_from, placement.tail_to - placement.tail_from
        return self._is_zero_fast(*head) and self._is_zero_fast(*tail)

    def _is_zero_fast(self, offset: int, length: int) -> bool:
        """Whether a range is known to read as zeroes, without looking at data."""
        if not length:
            return True
        image = self.image
        length = min(length, image.size - offset)
        if length <= 0:
            return True  # past the end of the disk
        extent = status_above(image, None, offset, length, want_zero=False)
        return extent.length == length and extent.is_zero

    def _write_with_edges(
        self, host: int, offset: int, data: memoryview, placements: list[Placement]
    ) -> None:
        """Write the data, together with head and tail where one placement covers it all."""
        image = self.image
        merged = None
        for placement in reversed(placements):
            if not placement.copies or placement.is_zeroed:
                continue
            if placement.guest + placement.copy_to != offset:
                continue
            if placement.guest + placement.tail_from != offset + len(data):
                continue
            merged = placement
            break
        if merged is None:
            image.file.debug_event("write_aio")
            image.data_file.write(host, data)
        for placement in reversed(placements):
            if placement.copies and not placement.is_zeroed:
                self.copy_edges(placement, data if placement is merged else None)

    def copy_edges(self, placement: Placement, data: memoryview | None = None) -> None:
        """Copy head and tail to the new place, together with the data between them if given."""
        image = self.image
        head, tail = self._read_edges(placement)
        if image.cipher is not None:
            start = placement.copy_from
            head = bytes(image.encrypt(placement.host + start, placement.guest + start, head))
            start = placement.tail_from
            tail = bytes(image.encrypt(placement.host + start, placement.guest + start, tail))
        if data is not None:
            image.file.debug_event("write_aio")
            self._write_edge(placement.host + placement.copy_from, b"".join((head, data, tail)))
        else:
            self._write_edge(placement.host + placement.copy_from, head)
            self._write_edge(placement.host + placement.tail_from, tail)
        image.l2_tables.depends_on_flush = True

    def _read_edges(self, placement: Placement) -> tuple[bytes, bytes]:
        first = placement.copy_to - placement.copy_from
        last = placement.tail_to - placement.tail_from
        gap = placement.tail_from - placement.copy_to
        if first and last and gap <= _MERGED_READ:
            whole = self._read_old(placement.guest + placement.copy_from, first + gap + last)
            return whole[:first], whole[first + gap :]
        return (
            self._read_old(placement.guest + placement.copy_from, first),
            self._read_old(placement.guest + placement.tail_from, last),
        )

    def _read_old(self, offset: int, length: int) -> bytes:
        if not length:
            return b""
        self.image.file.debug_event("cow_read")
        return self.image.read_guest(offset, length)

    def _write_edge(self, host: int, data: bytes) -> None:
        if data:
            self.image.guard.check_data(host, len(data))
            self.image.file.debug_event("cow_write")
            self.image.data_file.write(host, data)

    def link(self, placements: list[Placement]) -> None:
        """Let the L2 tables refer to what was written; done ones are taken off the list.

        Raises:
            BlockError: it failed; those not linked are still in the list.
        """
        while placements:
            self._link(placements[-1])
            placements.pop()

    def _link(self, placement: Placement) -> None:
        image = self.image
        if image.uses_lazy_refcounts:
            image.mark_dirty()
        if image.needs_accurate_refcounts:
            image.l2_tables.depend_on(image.refcounts.cache)
        table, index = self.table_for(placement.guest)
        values = table.values
        step = 2 if image.extended else 1
        table.touch(index * step, placement.clusters * step)
        old = []
        for number in range(placement.clusters):
            at = (index + number) * step
            if values[at]:
                old.append(values[at])
            values[at] = placement.host + (number << image.cluster_bits) | COPIED
            if image.extended and not placement.is_reserved:
                first = max(placement.copy_from - (number << image.cluster_bits), 0)
                end = min(placement.tail_to - (number << image.cluster_bits), image.cluster_size)
                mask = subcluster_mask(
                    first >> image.subcluster_bits, (end - 1 >> image.subcluster_bits) + 1
                )
                values[at + 1] = (values[at + 1] | mask) & ~(mask << 32)
        if not placement.keeps:
            for entry in old:
                image.refcounts.free_entry(entry, Freed.NEVER)

    def abort(self, placements: list[Placement]) -> None:
        """Give back what was taken for placements that will not be linked."""
        image = self.image
        if image.is_dead:
            return
        for placement in placements:
            if not placement.keeps and not image.header.has_data_file:
                size = placement.clusters << image.cluster_bits
                image.refcounts.free(placement.host, size, Freed.NEVER)
        placements.clear()

    # ---------------------------------------------------------------- copied by the host

    def copy_from_file(self, file: BlockNode, file_offset: int, offset: int, length: int) -> None:
        """Let the host copy from one of its files; see `BlockNode.copy_from_file`.

        Raises:
            NotSupported: not of this file, or not into this image.
            BlockError: as `write`.
        """
        image = self.image
        if image.cipher is not None:
            raise NotSupported
        done = 0
        while done < length:
            host, count, placements = self.place(offset + done, min(length - done, MAX_RUN))
            try:
                image.guard.check_data(host, count)
                self._zero_edges(placements)
                image.data_file.copy_from_file(file, file_offset + done, host, count)
                for placement in reversed(placements):
                    if placement.copies and not placement.is_zeroed:
                        self.copy_edges(placement)
                self.link(placements)
            except BlockError:
                self.abort(placements)
                raise
            done += count
