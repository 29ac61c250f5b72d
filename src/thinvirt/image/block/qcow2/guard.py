"""No write may touch other metadata: the check before each write, and what happens if it fails."""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import BlockError, failed
from thinvirt.image.block.qcow2.core import Structure
from thinvirt.image.block.qcow2.header import BITMAPS, CORRUPT
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.entries import OFFSET_MASK, REFCOUNT_TABLE_OFFSET
from thinvirt.image.formats.qcow2.refcounts import unpack_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from thinvirt.image.block.qcow2.core import Image


_NAMES = {
    Structure.HEADER: "qcow2_header",
    Structure.ACTIVE_L1: "active L1 table",
    Structure.ACTIVE_L2: "active L2 table",
    Structure.REFCOUNT_TABLE: "refcount table",
    Structure.REFCOUNT_BLOCK: "refcount block",
    Structure.SNAPSHOT_TABLE: "snapshot table",
    Structure.INACTIVE_L1: "inactive L1 table",
    Structure.INACTIVE_L2: "inactive L2 table",
    Structure.BITMAP_DIRECTORY: "bitmap directory",
}


class ClusterSet:
    """Where the tables that another table points to lie; a damaged image may name one twice."""

    def __init__(self, table: Iterable[int], mask: int, bits: int) -> None:
        self._mask = mask
        self._bits = bits
        self._counts: dict[int, int] = {}
        for entry in table:
            if entry:
                self.change(0, entry)

    def change(self, old: int, new: int) -> None:
        """An entry of the table changed."""
        cluster = (old & self._mask) >> self._bits
        if cluster:
            left = self._counts.get(cluster, 0) - 1
            if left > 0:
                self._counts[cluster] = left
            else:
                self._counts.pop(cluster, None)
        cluster = (new & self._mask) >> self._bits
        if cluster:
            self._counts[cluster] = self._counts.get(cluster, 0) + 1

    def touches(self, first: int, last: int) -> bool:
        """Whether one lies in these clusters."""
        counts = self._counts
        if first == last:
            return first in counts
        if last - first < len(counts):
            return any(cluster in counts for cluster in range(first, last + 1))
        return any(first <= cluster <= last for cluster in counts)


def c_hex(number: int) -> str:
    """Return a number as C prints it with ``%#x``: zero has no prefix."""
    return f"{number:#x}" if number else "0"


class Guard:
    """Refuses writes over metadata.

    Attributes:
        level: the structures looked at.
        l2_tables, refcount_blocks: kept up to date by whoever changes the tables that name them.
    """

    def __init__(self, image: Image, level: int) -> None:
        self.image = image
        self.level = level
        self.signalled = False
        self.l2_tables = ClusterSet((), OFFSET_MASK, image.cluster_bits)
        self.refcount_blocks = ClusterSet((), REFCOUNT_TABLE_OFFSET, image.cluster_bits)

    def reload(self) -> None:
        """Look at both tables anew."""
        bits = self.image.cluster_bits
        self.l2_tables = ClusterSet(self.image.l1, OFFSET_MASK, bits)
        self.refcount_blocks = ClusterSet(self.image.refcounts.table, REFCOUNT_TABLE_OFFSET, bits)

    def check(self, offset: int, length: int, *, ignore: int = 0) -> None:
        """Refuse a write of `length` bytes at a host offset that touches metadata.

        Args:
            offset: host bytes.
            length: bytes.
            ignore: structures of `Structure` that it may touch.

        Raises:
            BlockError: it does; the image is marked corrupt and cannot be used any more.
        """
        if not length:
            return
        found = self._find(offset, length, self.level & ~ignore)
        if found:
            self.signal(
                f"Preventing invalid write on metadata (overlaps with {_NAMES[found]})", fatal=True
            )
            raise failed(errno.EIO, offset=offset)

    def check_data(self, offset: int, length: int) -> None:
        """Refuse a write of guest data that touches metadata; see `check`."""
        if not self.image.header.has_data_file:
            self.check(offset, length)

    def _find(self, offset: int, length: int, structures: int) -> int:
        """Return the first structure that is touched, 0 for none."""
        image, header = self.image, self.image.header
        bits = image.cluster_bits
        first, last = offset >> bits, offset + length - 1 >> bits
        if structures & Structure.HEADER and not first:
            return Structure.HEADER
        start, end = first << bits, last + 1 << bits
        tables = [
            (Structure.ACTIVE_L1, header.l1_table_offset, len(image.l1) * 8),
            (
                Structure.REFCOUNT_TABLE,
                header.refcount_table_offset,
                len(image.refcounts.table) * 8,
            ),
        ]
        if image.snapshots:
            tables.append((Structure.SNAPSHOT_TABLE, header.snapshots_offset, image.snapshots_size))
            for at, entries in image.snapshot_l1_tables():
                tables.append((Structure.INACTIVE_L1, at, entries * 8))
        for structure, at, size in tables:
            if structures & structure and at < end and start < at + size:
                return structure
        if structures & Structure.ACTIVE_L2 and self.l2_tables.touches(first, last):
            return Structure.ACTIVE_L2
        if structures & Structure.REFCOUNT_BLOCK and self.refcount_blocks.touches(first, last):
            return Structure.REFCOUNT_BLOCK
        if structures & Structure.INACTIVE_L2 and self._touches_inactive_l2(first, last):
            return Structure.INACTIVE_L2
        has_bitmaps = structures & Structure.BITMAP_DIRECTORY and (
            header.autoclear_features & BITMAPS
        )
        at, size = header.bitmap_directory_offset, header.bitmap_directory_size
        touches = has_bitmaps and at < end and start < at + size
        return Structure.BITMAP_DIRECTORY if touches else 0

    def _touches_inactive_l2(self, first: int, last: int) -> bool:
        image = self.image
        for offset, entries in image.snapshot_l1_tables():
            image.header.check_table("", offset, entries, 8, limits.MAX_L1_BYTES)
            table = unpack_table(image.file.read(offset, entries * 8))
            if ClusterSet(table, OFFSET_MASK, image.cluster_bits).touches(first, last):
                return True
        return False

    def signal(self, message: str, *, fatal: bool) -> None:
        """Tell of a damage that was met; a fatal one marks the image corrupt and ends its use."""
        image = self.image
        fatal = fatal and not image.read_only
        marked = image.header.incompatible_features & CORRUPT
        if self.signalled and (not fatal or marked):
            return
        self.signalled = True
        if not fatal:
            image.graph.warn(
                f"qcow2: Image is corrupt: {message}; further non-fatal corruption events will be "
                "suppressed"
            )
            return
        image.graph.warn(
            f"qcow2: Marking image as corrupt: {message}; further corruption events will be "
            "suppressed"
        )
        image.header.incompatible_features |= CORRUPT
        image.is_dead = True
        self._mark(image)

    @staticmethod
    def _mark(image: Image) -> None:
        try:
            image.update_header()
        except BlockError:
            return  # not even that: whoever opens it next will meet the damage again

    def damaged(self, message: str, *, offset: int | None = None) -> BlockError:
        """Signal fatal damage; return the error to raise."""
        self.signal(message, fatal=True)
        return failed(errno.EIO, offset=offset)
