"""All runs of a range of the disk, one after the other: what `mapping.find_run` would find.

A whole-image operation asks for millions of them. Here an L2 table is gone through once, and long
runs are recognised as one number.
"""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import MAX_LENGTH, Status
from thinvirt.image.block.qcow2.mapping import find_run
from thinvirt.image.block.status import node_status
from thinvirt.image.formats.qcow2.entries import COMPRESSED, OFFSET_MASK, ZERO, Kind
from thinvirt.image.formats.qcow2.refcounts import unpack_table
from thinvirt.image.formats.qcow2.runs import BreakFinder, RunTest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from thinvirt.image.block.abilities import StatusRun
    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.qcow2.core import Image
    from thinvirt.image.block.qcow2.vector_runs import VectorBreakFinder

_BLOCK = 512  # entries looked at together
_FEW = 64  # up to so many entries are looked at one by one
_MANY = 1 << 22  # from so many on loading numpy takes less time than it saves,
_MANY_AT_ONCE = 8192  # and so many are looked at together
# Entries of L2 tables that are met more than once. In a sound image there are none, in a damaged
# one a table or two; a hostile one of a megabyte could show terabytes with a single table.
_MOST_REPEATED = 1 << 18
_SAME = OFFSET_MASK | ZERO | COMPRESSED  # what makes two entries alike
_PLACED, _ALLOCATED, _ZERO = Status.OFFSET_VALID, Status.ALLOCATED, Status.ZERO
_NORMAL = Kind.NORMAL
_KIND_FLAGS = (  # by `Kind`
    0,
    _PLACED,
    _ZERO | _ALLOCATED,
    _ZERO | _ALLOCATED | _PLACED,
    Status.DATA | _ALLOCATED | _PLACED,
    Status.DATA | _ALLOCATED,
)


def status_runs(
    image: Image, start: int, end: int, *, want_zero: bool, looks_below: bool
) -> Iterator[StatusRun]:
    """Yield the status of a range, in order; together as `status.node_status` gives it.

    Args:
        image: not encrypted.
        start: first byte.
        end: one past the last byte, within the disk.
        want_zero: tell zeroes that are not stored as such.
        looks_below: ask the file below for holes in what is data.

    Raises:
        BlockError: the tables cannot be read, or are damaged.
    """
    data_file = image.data_file
    holes = _Holes(data_file) if want_zero and looks_below else None
    shows_backing = end  # from there on a backing file has nothing
    if image.backing is None:
        shows_backing = 0
    elif want_zero:
        shows_backing = image.backing.size
    at = start
    places = [data_file if flags & _PLACED else None for flags in _KIND_FLAGS]
    for kind, length, host in find_runs(image, start, end):
        flags, node = _KIND_FLAGS[kind], places[kind]
        if flags & _ALLOCATED:
            if holes is None or kind != _NORMAL:
                yield length, flags, 0 if node is None else host, node
            elif holes.start <= host and host + length <= holes.end:
                yield length, flags | holes.flag, host, data_file
            else:
                yield from holes.cut(length, flags, host)
        else:
            shown = min(max(shows_backing - at, 0), length)
            if shown:
                yield shown, flags, 0 if node is None else host, node
            if shown < length:
                yield length - shown, flags | _ZERO, 0 if node is None else host + shown, node
        at += length


def find_runs(image: Image, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (kind, bytes, host offset) over a range of the disk; see `mapping.find_run`.

    Raises:
        BlockError: the tables cannot be read, are damaged, or make endless work (``errno.EFBIG``).
    """
    clusters = end - start >> image.cluster_bits
    scan = _scan(image, clusters) if clusters > _FEW else None
    span = image.l2_size << image.cluster_bits
    seen: set[int] = set()
    repeated = 0
    at = start
    while at < end:
        place = 0
        stop = at
        while stop < end and not place:  # the first table, or the end
            index = stop // span
            place = image.l1[index] & OFFSET_MASK if index < len(image.l1) else 0
            if not place:
                empty = _BLOCK if not any(image.l1[index : index + _BLOCK]) else 1
                stop = min((index + empty) * span, end)
        if stop > at:
            yield Kind.UNALLOCATED, stop - at, 0
            at = stop
        if not place:
            return
        stop = min((at // span + 1) * span, end)
        repeated += image.l2_size if place in seen else 0
        if repeated > _MOST_REPEATED:
            raise BlockError(
                f"The L1 table names the L2 table at {place:#x} again and again",
                number=errno.EFBIG,
                hint="no program that writes images does so; qemu-img check tells more",
            )
        seen.add(place)
        if scan is None or place & image.cluster_size - 1:
            yield from _one_by_one(image, at, stop)
        else:
            yield from scan.table(image.l2_tables.load(place).values, at, stop)
        at = stop


def _one_by_one(image: Image, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    while at < end:
        run = find_run(image, at, end - at)
        yield run
        at += run[1]


def _scan(image: Image, clusters: int) -> _Scan | _ExtendedScan | None:
    """Return what goes through whole L2 tables, if they are of a kind that allows it."""
    if image.header.has_data_file or image.header.version < 3:
        return None
    return _ExtendedScan(image) if image.extended else _Scan(image, clusters)


class _ExtendedScan:
    """Goes through L2 tables of extended entries."""

    def __init__(self, image: Image) -> None:
        from thinvirt.image.block.qcow2.subcluster_runs import SubclusterScan

        self.image = image
        self._scan = SubclusterScan(image)

    def table(self, values: array[int], start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the runs of a range of guest bytes within one table."""
        image, scan = self.image, self._scan
        size, span = image.cluster_size, image.l2_size << image.cluster_bits
        base = start - start % span
        while start < end and start % size:  # begins within a cluster
            run = find_run(image, start, end - start)
            yield run
            start += run[1]
        if end - start >= size:
            first, stop = (start - base) // size, (end - base) // size
            yield from scan.table(values, first, stop, is_last=not end % size)
            start = base + scan.reached
        yield from _one_by_one(image, start, end)  # ends within a cluster, or one is damaged


class _Scan:
    """Goes through L2 tables of plain entries, many of them at a time.

    Args:
        image: whose tables they are.
        clusters: how many are asked for.
    """

    def __init__(self, image: Image, clusters: int) -> None:
        self.image = image
        self.block = min(_BLOCK, image.l2_size)
        breaks: BreakFinder | VectorBreakFinder | None = None
        tables = len(image.l1) - image.l1.count(0)
        if min(clusters, tables * image.l2_size) >= _MANY:
            try:
                from thinvirt.image.block.qcow2.vector_runs import VectorBreakFinder
            except ImportError:
                pass  # numpy is optional
            else:
                self.block = min(_MANY_AT_ONCE, image.l2_size)
                breaks = VectorBreakFinder(self.block, image.cluster_size, _SAME)
        self._breaks = breaks or BreakFinder(self.block, image.cluster_size, _SAME)
        self._long_run = RunTest(self.block, image.cluster_size)
        self._nothing = unpack_table(bytes(self.block * 8))
        self._is_odd = False  # a run of the present block is `INVALID`

    def table(self, values: array[int], start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield the runs of a range of guest bytes within one table."""
        bits, size = self.image.cluster_bits, self.image.cluster_size
        base = start >> bits + self.image.l2_bits << bits + self.image.l2_bits
        first, stop = start - base >> bits, end - base + size - 1 >> bits
        for at in range(first - first % self.block, stop, self.block):
            runs = self._runs(values, at)
            low, high = base + (at << bits), base + (at + self.block << bits)
            if low < start or high > end:
                runs = _cut(runs, start - low, end - low)
                low = max(low, start)
            if not self._is_odd:
                yield from runs
                continue
            for kind, length, host in runs:
                if kind == Kind.INVALID:
                    yield from _one_by_one(self.image, low, low + length)
                else:
                    yield kind, length, host
                low += length

    def _runs(self, values: array[int], at: int) -> list[tuple[int, int, int]]:
        """Return the runs of one block of entries; `INVALID` is to be looked at more closely."""
        bits = self.image.cluster_bits
        self._is_odd = False
        if not values[at] and values[at : at + self.block] == self._nothing:
            return [(Kind.UNALLOCATED, self.block << bits, 0)]
        begins = [0] if self._long_run.matches(values, at) else self._breaks.find(values, at)
        runs = []
        begins.append(self.block)
        misplaced = OFFSET_MASK & (self.image.cluster_size - 1)
        begin = 0
        for end in begins[1:]:
            entry = values[at + begin]
            count = end - begin
            host = entry & OFFSET_MASK
            if entry & COMPRESSED:
                kind, host = Kind.COMPRESSED, entry
            elif host:
                kind = Kind.ZERO_RESERVED if entry & ZERO else Kind.NORMAL
                if host & misplaced:
                    kind = Kind.INVALID
            else:
                kind = Kind.ZERO_PLAIN if entry & ZERO else Kind.UNALLOCATED
            if count > 1:
                growth = (values[at + end - 1] & _SAME) - (entry & _SAME)
                # A step that was none, or one where there should be none, shows in the sum.
                if growth != (count - 1 << bits if host else 0) or kind == Kind.COMPRESSED:
                    kind = Kind.INVALID
            if kind == Kind.INVALID:
                self._is_odd = True
            runs.append((kind, count << bits, host))
            begin = end
        return runs


def _cut(runs: list[tuple[int, int, int]], start: int, end: int) -> list[tuple[int, int, int]]:
    """Return the runs that lie between two bytes, cut to these; they begin at byte 0."""
    cut = []
    at = 0
    for kind, length, host in runs:
        low, high = max(at, start), min(at + length, end)
        if low < high:
            skipped = low - at if kind in Kind.PLACED else 0
            cut.append((kind, high - low, host + skipped))
        at += length
    return cut


class _Holes:
    """What the file below has of data and holes; the run seen last is not asked for again."""

    def __init__(self, node: BlockNode) -> None:
        self.node = node
        self.start = self.end = 0
        self.flag = 0

    def cut(self, length: int, flags: int, host: int) -> Iterator[StatusRun]:
        """Yield the pieces of a host range, the holes as zeroes."""
        while length:
            if not self.start <= host < self.end:
                self._look(host)
            count = min(length, self.end - host)
            yield count, flags | self.flag, host, self.node
            host += count
            length -= count

    def _look(self, host: int) -> None:
        """Learn what is at a host offset, and how far it goes."""
        extent = node_status(self.node, host, max(self.node.size - host, 1), want_zero=True)
        self.start, self.end = host, host + extent.length
        self.flag = extent.flags & Status.ZERO
        if extent.flags & Status.EOF and (not extent.length or self.flag):
            # A format may point past the end of its file: that reads as zeroes, all of it.
            self.end, self.flag = MAX_LENGTH, Status.ZERO
