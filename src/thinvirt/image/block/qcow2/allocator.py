"""Reference counts, and the host clusters that are given out and taken back by them.

The search order is QEMU's, so that images come out laid out alike.
"""

from __future__ import annotations

import errno
from array import array

from thinvirt.image.block.errors import BlockError, failed
from thinvirt.image.block.qcow2.core import Freed
from thinvirt.image.block.qcow2.guard import c_hex
from thinvirt.image.block.qcow2.held import HeldClusters, tell_discard
from thinvirt.image.block.qcow2.tables import RefcountCache, Table
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.entries import (
    OFFSET_MASK,
    REFCOUNT_TABLE_OFFSET,
    Kind,
    cluster_kind,
    compressed_range,
)
from thinvirt.image.formats.qcow2.layout import FIELD_OFFSET, align_up, divide_up
from thinvirt.image.formats.qcow2.refcounts import (
    count_zeroes,
    empty_refcounts,
    largest_refcount,
    pack_table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.qcow2.core import Image

MAX_CLUSTER_OFFSET = (1 << 56) - 1  # what an L2 entry can hold


class _Again(Exception):
    """A refcount block had to be made, in clusters perhaps just found free: search anew."""


class Refcounts:
    """The refcount structure of an open image.

    Attributes:
        table: host offsets of the refcount blocks.
        cache: the blocks.
        free_index: no cluster before this one is free (or it is left alone).
        free_byte: where the next compressed cluster may go on, 0 for a new cluster.
        held: free clusters that are not given out yet.
    """

    def __init__(self, image: Image, table: array[int], cache: RefcountCache) -> None:
        self.image = image
        self.table = table
        self.cache = cache
        self.free_index = 0
        self.free_byte = 0
        self.passed_on: frozenset[int] = frozenset()
        self._discards: list[tuple[int, int]] = []
        self.gathers_discards = False
        self.held = HeldClusters(image)
        self._holds = False

    @property
    def largest(self) -> int:
        """The largest count there can be."""
        return largest_refcount(self.image.refcount_order)

    # ---------------------------------------------------------------- looking

    def _block_at(self, index: int) -> Table | None:
        """Return the refcount block with this index in the table, None if there is none."""
        if index >= len(self.table):
            return None
        offset = self.table[index] & REFCOUNT_TABLE_OFFSET
        if not offset:
            return None
        if offset & self.image.cluster_size - 1:
            raise self.image.guard.damaged(
                f"Refblock offset {offset:#x} unaligned (reftable index: {c_hex(index)})"
            )
        return self.cache.load(offset)

    def get(self, cluster: int) -> int:
        """Return how often a cluster is referred to.

        Raises:
            BlockError: the refcount block cannot be read, or cannot be.
        """
        per_block = self.image.refcounts_per_block
        block = self._block_at(cluster // per_block)
        return block.values[cluster % per_block] if block is not None else 0

    def count_free(self, cluster: int, limit: int) -> int:
        """Return how many clusters from this one on are free, at most `limit`."""
        per_block = self.image.refcounts_per_block
        found = 0
        while found < limit:
            at = cluster + found
            block = self._block_at(at // per_block)
            first = at % per_block
            end = min(per_block, first + limit - found)
            if block is None:
                found += end - first
                continue
            values = block.values
            while first < end and not values[first]:
                first += 1
                found += 1
            if first < end:
                break
        return self.held.count_before(cluster, found)

    def values_at(self, first: int, count: int) -> array[int]:
        """Return the refcounts of `count` clusters, all in one refcount block."""
        block = self._block_at(first // self.image.refcounts_per_block)
        if block is None:
            return empty_refcounts(count, self.image.refcount_order)
        at = first % self.image.refcounts_per_block
        return block.values[at : at + count]

    def count_unused(self, first: int, count: int) -> int:
        """Return how many of `count` clusters, all in one refcount block, are free."""
        per_block = self.image.refcounts_per_block
        block = self._block_at(first // per_block)
        if block is None:
            return count
        at = first % per_block
        return count_zeroes(block.values[at : at + count])

    def _next_free(self, cluster: int) -> int:
        """Return the first free cluster that is not before this one."""
        per_block = self.image.refcounts_per_block
        while True:
            block = self._block_at(cluster // per_block)
            start = cluster - cluster % per_block
            if block is not None:
                try:
                    cluster = start + block.values.index(0, cluster % per_block)
                except ValueError:
                    cluster = start + per_block
                    continue
            if cluster not in self.held:
                return cluster
            cluster += 1

    def _find(self, clusters: int, largest_offset: int = MAX_CLUSTER_OFFSET) -> int:
        """Return the host offset of that many free clusters in a row, and pass on behind them."""
        if self.gathers_discards:
            self.pass_on_discards()
        if self.held.is_full:
            self.image.l2_tables.flush()
        at = self.free_index
        while True:
            at = self._next_free(at)
            free = self.count_free(at, clusters)
            if free >= clusters:
                break
            at += free
        self.free_index = at + clusters
        bits = self.image.cluster_bits
        if self.free_index - 1 > largest_offset >> bits:
            raise failed(errno.EFBIG)
        return at << bits

    def last_used(self, size: int) -> int:
        """Return the last cluster in use of a file of that size.

        Raises:
            BlockError: there is none.
        """
        per_block = self.image.refcounts_per_block
        cluster = divide_up(size, self.image.cluster_size) - 1
        while cluster >= 0:
            block = self._block_at(cluster // per_block)
            start = cluster - cluster % per_block
            if block is not None:
                values = block.values
                for index in range(cluster - start, -1, -1):
                    if values[index]:
                        return start + index
            cluster = start - 1
        raise self.image.guard.damaged("There are no references in the refcount table.")

    # ---------------------------------------------------------------- changing

    def change(self, offset: int, length: int, amount: int, freed: int = Freed.NEVER) -> None:
        """Add `amount`, which may be negative, to the refcounts of all clusters in a host range.

        Raises:
            BlockError: it failed, a count would leave its range, or clusters that should have been
                in use had not even a refcount block (EAGAIN; they have one now); no count was
                changed.
        """
        try:
            self._change(offset, length, amount, freed)
        except _Again as again:
            raise failed(errno.EAGAIN, offset=offset) from again

    def _change(self, offset: int, length: int, amount: int, freed: int) -> None:
        """Change counts; see `change`.

        Raises:
            _Again: a refcount block was made; nothing else was changed.
        """
        if length <= 0:
            return
        if self.image.is_dead:
            raise failed(errno.EIO, offset=offset)
        if amount < 0:
            self.cache.depend_on(self.image.l2_tables)
        bits = self.image.cluster_bits
        first, last = offset >> bits, (offset + length - 1) >> bits
        done = first
        per_block = self.image.refcounts_per_block
        try:
            while done <= last:
                count = min(last + 1 - done, per_block - done % per_block)
                self._change_in_block(done, count, amount, freed)
                done += count
        except (BlockError, _Again) as trouble:
            if isinstance(trouble, _Again):
                self.free_index = min(self.free_index, first)
            self._discards = []
            if done > first:
                self._change(first << bits, done - first << bits, -amount, Freed.NEVER)
            raise
        if not self.gathers_discards:
            self.pass_on_discards()

    def _change_in_block(self, cluster: int, count: int, amount: int, freed: int) -> None:
        """Change the counts of some clusters that one refcount block covers: all of them, or none.

        Raises:
            _Again: the block was made.
            BlockError: a count would leave its range.
        """
        per_block = self.image.refcounts_per_block
        block = self._block_at(cluster // per_block)
        if block is None:
            self._make_block(cluster)
            raise _Again
        first = cluster % per_block
        end = first + count
        before = block.values[first:end]
        lowest, highest = min(before) + amount, max(before) + amount
        if lowest < 0 or highest > self.largest:
            raise failed(errno.EINVAL)
        if lowest == highest:
            block.values[first:end] = array(before.typecode, (lowest,)) * count
        else:
            block.values[first:end] = array(before.typecode, [old + amount for old in before])
        block.touch(first, count)
        if highest:
            self.held.give_back(cluster, count)
        if not highest:
            self._now_free(cluster, count, freed)
        elif not lowest:
            for number in range(count):
                if before[number] + amount == 0:
                    self._now_free(cluster + number, 1, freed)

    def _now_free(self, cluster: int, count: int, freed: int) -> None:
        """The last references to some clusters are gone."""
        image = self.image
        offset, length = cluster << image.cluster_bits, count << image.cluster_bits
        if offset <= self.free_byte < offset + length:
            self.free_byte = 0  # it may belong to somebody else soon
        self.cache.forget(offset, length)
        image.l2_tables.forget(offset, length)
        if self._holds:
            for number in range(cluster, cluster + count):
                self.held.add(number, tells=freed in self.passed_on)
            return
        self.free_index = min(self.free_index, cluster)
        if freed in self.passed_on:
            self._discards.append((offset, length))

    def release(self) -> None:
        """Let held clusters be used: the tables that let go of them are durable."""
        lowest = self.held.release()
        if lowest is not None:
            self.free_index = min(self.free_index, lowest)

    def pass_on_discards(self) -> None:
        """Tell the file below of what was freed; it may forget it or not."""
        regions, self._discards = self._discards, []
        if not self.image.is_dead:
            tell_discard(self.image.file, regions)

    def drop_discards(self) -> None:
        """Forget what was freed without telling: the operation failed."""
        self._discards = []

    # ---------------------------------------------------------------- giving out

    def allocate(self, size: int, use: str = "") -> int:
        """Return the host offset of clusters for `size` bytes, in a row.

        Args:
            size: bytes.
            use: what they are for, where QEMU names it if they turn out to be the header's.

        Raises:
            BlockError: no room, a refcount block could not be read or made, or the header's own
                cluster counts as free: the refcounts are damaged.
        """
        offset = self._allocate(size)
        if not offset:
            raise self.image.guard.damaged(
                f"Preventing invalid allocation of {use} at offset 0"
                if use
                else "Preventing invalid write on metadata (overlaps with qcow2_header)"
            )
        return offset

    def allocate_header(self, size: int) -> None:
        """Take the first clusters of an image that has nothing yet.

        Raises:
            BlockError: as `allocate`.
        """
        first = self._allocate(size)
        assert first == 0

    def _allocate(self, size: int) -> int:
        self.image.file.debug_event("cluster_alloc")
        clusters = divide_up(size, self.image.cluster_size)
        while True:
            offset = self._find(clusters)
            try:
                self._change(offset, size, 1, Freed.NEVER)
            except _Again:
                continue
            return offset

    def allocate_at(self, offset: int, clusters: int) -> int:
        """Take clusters at a host offset, as many of `clusters` as are free; return how many."""
        bits = self.image.cluster_bits
        while True:
            free = self.count_free(offset >> bits, clusters)
            try:
                self._change(offset, free << bits, 1, Freed.NEVER)
            except _Again:
                continue
            return free

    def allocate_bytes(self, size: int) -> int:
        """Return the host offset of `size` bytes for compressed data, behind the last if it fits.

        Raises:
            BlockError: as `allocate`.
        """
        image = self.image
        image.file.debug_event("cluster_alloc_bytes")
        cluster_size = image.cluster_size
        offset = self.free_byte
        if offset and self.get(offset >> image.cluster_bits) == self.largest:
            offset = 0
        largest_offset = min((1 << 62 - (image.cluster_bits - 8)) - 1, MAX_CLUSTER_OFFSET)
        room = cluster_size - offset % cluster_size
        while True:
            if not offset or room < size:
                fresh = self._find(1, largest_offset)
                if not fresh:
                    raise image.guard.damaged(
                        "Preventing invalid allocation of compressed cluster at offset 0"
                    )
                if not offset or align_up(offset, cluster_size) != fresh:
                    offset, room = fresh, cluster_size
                else:
                    room += cluster_size
            try:
                self._change(offset, size, 1, Freed.NEVER)
            except _Again:
                offset = 0
                continue
            break
        image.l2_tables.depend_on(self.cache)
        end = offset + size
        self.free_byte = end if end % cluster_size else 0
        return offset

    def free(self, offset: int, size: int, freed: int) -> None:
        """Take clusters back; a failure only leaks them, so it is told and no more.

        Nothing is taken back once damage was met: what counts as used may be somebody else's.
        """
        if self.image.is_dead:
            return
        self.image.file.debug_event("cluster_free")
        try:
            self.change(offset, size, -1, freed)
        except BlockError as error:
            self.image.graph.warn(f"qcow2_free_clusters failed: {error.reason}")

    def free_entry(self, entry: int, freed: int) -> None:
        """Take back what an L2 entry refers to; it is held until that table is durable."""
        self._holds = True
        try:
            self._free_entry(entry, freed)
        finally:
            self._holds = False

    def keep_guest_data(self, offset: int, clusters: int) -> None:
        """Clusters of the external data file are used: it must not forget them any more."""
        self.held.keep_guest_data(offset, clusters)

    def _free_entry(self, entry: int, freed: int) -> None:
        image = self.image
        header = image.header
        kind = cluster_kind(entry, extended=image.extended, data_file=header.has_data_file)
        offset = entry & OFFSET_MASK
        if header.has_data_file:
            if freed in self.passed_on and kind in Kind.PLACED:
                self.held.add_guest_data(offset)
            return
        if kind == Kind.COMPRESSED:
            self.free(*compressed_range(entry, image.cluster_bits), freed)
        elif kind in Kind.PLACED:
            if offset & image.cluster_size - 1:
                image.guard.signal(f"Cannot free unaligned cluster {offset:#x}", fatal=False)
            else:
                self.free(offset, image.cluster_size, freed)

    # ---------------------------------------------------------------- growing

    def set_table(self, table: array[int]) -> None:
        """Take another refcount table into use."""
        self.table = table
        self.image.guard.reload()

    def _set_entry(self, index: int, offset: int) -> None:
        self.image.guard.refcount_blocks.change(self.table[index], offset)
        self.table[index] = offset

    def _make_block(self, cluster: int) -> None:
        """Make the refcount block that covers a cluster; the table grows where it must."""
        image = self.image
        image.file.debug_event("refblock_alloc")
        per_block = image.refcounts_per_block
        index = cluster // per_block
        # Nothing that is freed in there may still be referred to.
        image.l2_tables.flush()
        place = self._find(1, (1 << 63) - 1)
        if not place:
            raise image.guard.damaged("Preventing invalid allocation of refcount block at offset 0")
        own = place >> image.cluster_bits
        if own // per_block == index:
            block = self.cache.new(place)  # it counts itself
            block.values[own % per_block] = 1
        else:
            self._change(place, image.cluster_size, 1, Freed.NEVER)
            self.cache.flush()
            block = self.cache.new(place)
        image.file.debug_event("refblock_alloc_write")
        self.cache.flush()
        if index < len(self.table):
            image.file.debug_event("refblock_alloc_hookup")
            image.write_durably(
                image.header.refcount_table_offset + index * 8, place.to_bytes(8, "big")
            )
            self._set_entry(index, place)
            return
        image.file.debug_event("reftable_grow")
        blocks = divide_up(max(cluster, own) + 1, per_block)
        self.make_area(
            blocks * per_block * image.cluster_size, 0, exact=False, extra=(index, place)
        )

    def make_area(
        self, start: int, clusters: int, *, exact: bool, extra: tuple[int, int] | None = None
    ) -> int:
        """Write a larger refcount table, with blocks for what lies behind it, at a host offset.

        Args:
            start: host offset, whole clusters, behind everything in use.
            clusters: how many more are to be counted behind the new structures.
            exact: no larger than needed.
            extra: (index, host offset) of a block that the old table has no entry for.

        Returns:
            The host offset behind the new structures.

        Raises:
            BlockError: too large, or it could not be written.
        """
        image = self.image
        size, per_block = image.cluster_size, image.refcounts_per_block
        blocks = refcount_blocks(start // size + clusters, size, image.refcount_order, not exact)[1]
        entries = blocks if exact else blocks + divide_up(blocks, 2)
        entries = align_up(entries, size // 8)
        if entries * 8 > limits.MAX_REFCOUNT_TABLE_BYTES:  # a larger one could not be opened again
            raise failed(errno.EFBIG)
        table = self._grown_table(entries, extra)
        first = start // size // per_block
        missing = [index for index in range(first, blocks) if not table[index]]
        table_offset = start + len(missing) * size
        end = table_offset + entries * 8
        for number, index in enumerate(missing):
            table[index] = start + number * size
        fresh = set(missing)
        for index in range(first, blocks):
            block = (self.cache.new if index in fresh else self.cache.load)(table[index])
            covered = index * per_block
            low, high = max(start // size - covered, 0), min(end // size - covered, per_block)
            for at in range(low, high):
                block.values[at] = 1
            if low < high:
                block.touch(low, high - low)
        image.file.debug_event("refblock_alloc_write_blocks")
        self.cache.flush()
        image.file.debug_event("refblock_alloc_write_table")
        image.write_durably(table_offset, pack_table(table))
        image.file.debug_event("refblock_alloc_switch_table")
        self.switch_table(table, table_offset)
        return end

    def _grown_table(self, entries: int, extra: tuple[int, int] | None) -> array[int]:
        table = self.table[:entries]
        table.frombytes(bytes((entries - len(table)) * 8))
        if extra is not None:
            table[extra[0]] = extra[1]
        return table

    def switch_table(self, table: array[int], offset: int) -> None:
        """Let the header name another table, and free the old one."""
        image = self.image
        header = image.header
        clusters = len(table) * 8 // image.cluster_size
        image.write_durably(
            FIELD_OFFSET["refcount_table_offset"],
            offset.to_bytes(8, "big") + clusters.to_bytes(4, "big"),
        )
        old, old_size = header.refcount_table_offset, len(self.table) * 8
        header.refcount_table_offset, header.refcount_table_clusters = offset, clusters
        self.set_table(table)
        self.free(old, old_size, Freed.OTHER)

    # ---------------------------------------------------------------- shrinking

    def drop_empty_blocks(self) -> None:
        """Free the refcount blocks that count nothing (but themselves).

        Raises:
            BlockError: it failed.
        """
        image = self.image
        table = self.table[:]
        dropped = []
        for index, entry in enumerate(self.table):
            offset = entry & REFCOUNT_TABLE_OFFSET
            if not offset:
                table[index] = 0
                continue
            if offset & image.cluster_size - 1:
                raise image.guard.damaged(
                    f"Cannot get entry from refcount block cache: Offset {offset:#x} is unaligned"
                )
            block = self.cache.load(offset)
            own = offset >> image.cluster_bits
            used = len(block.values) - block.values.count(0)
            if own // image.refcounts_per_block == index:
                used -= block.values[own % image.refcounts_per_block] != 0
            if not used:
                table[index] = 0
                dropped.append(index)
        image.write_durably(image.header.refcount_table_offset, pack_table(table))
        for index in dropped:
            self._drop_block(self.table[index] & REFCOUNT_TABLE_OFFSET)
            self._set_entry(index, 0)
        if not self.gathers_discards:
            self.pass_on_discards()

    def _drop_block(self, offset: int) -> None:
        image = self.image
        cluster = offset >> image.cluster_bits
        index, at = divmod(cluster, image.refcounts_per_block)
        block = self._block_at(index)
        if block is None:
            raise image.guard.damaged(
                f"Refblock at {offset:#x} is not covered by the refcount structures"
            )
        if block.values[at] != 1:
            raise image.guard.damaged(
                f"Invalid refcount: refblock offset {block.offset:#x}, reftable index {index}, "
                f"block offset {offset:#x}, refcount {block.values[at]:#x}"
            )
        block.values[at] = 0
        block.touch(at)
        self.free_index = min(self.free_index, cluster)
        self.cache.forget(offset)
        self._discards.append((offset, image.cluster_size))


def refcount_blocks(
    clusters: int, cluster_size: int, order: int, generous: bool
) -> tuple[int, int]:
    """Return (table clusters, blocks) that count `clusters` and themselves.

    Args:
        clusters: to be counted.
        cluster_size: bytes.
        order: binary logarithm of the width of a refcount.
        generous: leave room for a table half as large again.
    """
    per_table, per_block = cluster_size // 8, cluster_size * 8 >> order
    table = blocks = total = 0
    while True:
        last = total
        blocks = divide_up(clusters + table + blocks, per_block)
        table = divide_up(blocks, per_table)
        total = clusters + blocks + table
        if total == last:
            if not generous:
                return table, blocks
            clusters += divide_up(table, 2)
            total, generous = 0, False
