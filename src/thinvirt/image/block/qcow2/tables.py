"""Caches of L2 tables and refcount blocks, written back in an order that survives a crash.

A cache may depend on the other: then none of its tables is written before the other's are durable.
"""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import failed
from thinvirt.image.formats.qcow2.refcounts import (
    empty_refcounts,
    pack_refcounts,
    pack_table,
    unpack_refcounts,
    unpack_table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable

    from thinvirt.image.block.qcow2.core import CacheLike, Image

_UNIT = 4096  # of a changed table at least so much is written


class Table:
    """A table in memory, one cluster in the file.

    Attributes:
        offset: of the table, host bytes.
        values: its numbers: two for each extended L2 entry.
        first, end: the numbers changed and not written yet lie between these.
    """

    __slots__ = ("end", "first", "offset", "values")

    def __init__(self, offset: int, values: array[int]) -> None:
        self.offset = offset
        self.values = values
        self.first = self.end = 0

    def touch(self, index: int, count: int = 1) -> None:
        """Note that numbers were changed."""
        end = index + count
        if not self.end:
            self.first, self.end = index, end
        else:
            self.first, self.end = min(self.first, index), max(self.end, end)


class TableCache:
    """The tables of one kind.

    Args:
        image: whose tables they are.
        capacity: how many are kept.
        own: the structure's name for `guard`, which these writes may touch.
        load_event, write_event: told to the file below, for blkdebug.
    """

    def __init__(
        self, image: Image, capacity: int, *, own: int, load_event: str, write_event: str
    ) -> None:
        self.image = image
        self.capacity = capacity
        self.own = own
        self.load_event = load_event
        self.write_event = write_event
        self.tables: dict[int, Table] = {}  # the one used last at the end
        self.depends_on: CacheLike | None = None
        self.depends_on_flush = False

    # what a subclass knows

    def _unpack(self, raw: bytes) -> array[int]:
        raise NotImplementedError

    def _pack(self, values: array[int]) -> bytes:
        raise NotImplementedError

    def _empty(self) -> array[int]:
        raise NotImplementedError

    # tables

    def load(self, offset: int) -> Table:
        """Return the table at a host offset.

        Raises:
            BlockError: it cannot be read, or making room for it failed.
        """
        table = self.tables.pop(offset, None)
        if table is None:
            self._make_room()
            self.image.file.debug_event(self.load_event)
            raw = self.image.file.read(offset, self.image.cluster_size)
            table = Table(offset, self._unpack(raw))
        self.tables[offset] = table
        return table

    def new(self, offset: int, values: array[int] | None = None) -> Table:
        """Return a table that is not read, empty or with these values; all of it is dirty."""
        self.tables.pop(offset, None)
        self._make_room()
        table = Table(offset, self._empty() if values is None else values)
        table.touch(0, len(table.values))
        self.tables[offset] = table
        return table

    def forget(self, offset: int, length: int = 1) -> None:
        """Drop the tables that begin in a host range, changed or not: it is free now.

        Args:
            offset: where the first begins, if there is one.
            length: bytes.
        """
        size = self.image.cluster_size
        places: Iterable[int] = range(offset, offset + length, size)
        if length // size > len(self.tables):
            places = [at for at in self.tables if offset <= at < offset + length]
        for place in places:
            self.tables.pop(place, None)

    def forget_all(self) -> None:
        """Drop all tables, changed or not."""
        self.tables.clear()

    def _make_room(self) -> None:
        while len(self.tables) >= self.capacity:
            oldest = next(iter(self.tables.values()))
            self._write(oldest)
            self.tables.pop(oldest.offset, None)

    # order

    def depend_on(self, other: CacheLike) -> None:
        """Write nothing before what `other` holds is durable."""
        other.settle()
        if self.depends_on is not other:
            self.settle()
        self.depends_on = other

    def settle(self) -> None:
        """Make durable what this cache depends on."""
        if self.depends_on is not None:
            self.depends_on.flush()
            self.depends_on = None
            self.depends_on_flush = False

    # writing

    def _write(self, table: Table) -> None:
        if not table.end:
            return
        if self.depends_on is not None:
            self.settle()
        elif self.depends_on_flush:
            self.image.file.flush()
            self.depends_on_flush = False
        image = self.image
        if image.is_dead:  # what led to the damage may be wrong as well
            raise failed(errno.EIO, offset=table.offset)
        image.guard.check(table.offset, image.cluster_size, ignore=self.own)
        image.file.debug_event(self.write_event)
        raw = self._pack(table.values)
        unit = len(table.values) * _UNIT // len(raw) or 1
        scale = len(raw) / len(table.values)
        start = int(table.first // unit * unit * scale)
        end = int(min(-(-table.end // unit) * unit, len(table.values)) * scale)
        image.file.write(table.offset + start, memoryview(raw)[start:end])
        table.first = table.end = 0

    def write(self) -> None:
        """Write what was changed, without making it durable.

        Raises:
            BlockError: not everything could be written; that stays in the cache.
        """
        for table in list(self.tables.values()):
            self._write(table)

    def flush(self) -> None:
        """Write what was changed and make it durable.

        Raises:
            BlockError: it failed.
        """
        self.write()
        self.image.file.flush()

    def clear(self) -> None:
        """Write what was changed, then forget everything.

        Raises:
            BlockError: it failed; nothing was forgotten.
        """
        self.flush()
        self.tables.clear()


class L2Cache(TableCache):
    """L2 tables."""

    def _unpack(self, raw: bytes) -> array[int]:
        return unpack_table(raw)

    def _pack(self, values: array[int]) -> bytes:
        return pack_table(values)

    def _empty(self) -> array[int]:
        return unpack_table(bytes(self.image.cluster_size))

    def flush(self) -> None:
        """Write what was changed and make it durable; what the tables let go of is free then."""
        super().flush()
        self.image.refcounts.release()


class RefcountCache(TableCache):
    """Refcount blocks."""

    def _unpack(self, raw: bytes) -> array[int]:
        return unpack_refcounts(raw, self.image.refcount_order)

    def _pack(self, values: array[int]) -> bytes:
        return pack_refcounts(values, self.image.refcount_order)

    def _empty(self) -> array[int]:
        return empty_refcounts(self.image.refcounts_per_block, self.image.refcount_order)
