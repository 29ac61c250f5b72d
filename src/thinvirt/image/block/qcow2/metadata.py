"""Write the header and the L1 table, and the marks that say what a crash may have left."""

from __future__ import annotations

from thinvirt.image.block.qcow2 import header as head
from thinvirt.image.block.qcow2.core import Image
from thinvirt.image.formats.qcow2.layout import FIELD_OFFSET


class Metadata(Image):
    """An image whose own metadata can be written."""

    @property
    def needs_accurate_refcounts(self) -> bool:
        """Whether refcounts must be on disk before what refers to the clusters."""
        return not self.header.incompatible_features & head.DIRTY

    def write_caches(self) -> None:
        """Write changed tables, in their order, without making them durable."""
        self.l2_tables.write()
        if self.needs_accurate_refcounts:
            self.refcounts.cache.write()

    def flush_caches(self) -> None:
        """Write changed tables and make them durable."""
        self.write_caches()
        self.file.flush()
        self.refcounts.release()

    def update_header(self) -> None:
        """Write the whole first cluster.

        Raises:
            BlockError: it does not fit (``errno.ENOSPC``), or cannot be written.
        """
        self.file.write(0, self.header.pack().ljust(self.cluster_size, b"\0"))

    def write_durably(self, offset: int, data: bytes) -> None:
        """Write to the image file, and go on when it is durable."""
        self.file.write(offset, data)
        self.flush_file()

    def set_l1(self, index: int, entry: int) -> None:
        """Change an L1 entry in memory."""
        self.guard.l2_tables.change(self.l1[index], entry)
        self.l1[index] = entry

    def write_l1_entry(self, index: int) -> None:
        """Write an L1 entry, and what must be written with it, durably."""
        from thinvirt.image.block.qcow2.core import Structure
        from thinvirt.image.formats.qcow2.refcounts import pack_table

        count = max(min(self.file.request_alignment, self.cluster_size) // 8, 1)
        first = index // count * count
        data = pack_table(self.l1[first : first + count]).ljust(count * 8, b"\0")
        place = self.header.l1_table_offset + first * 8
        self.guard.check(place, len(data), ignore=Structure.ACTIVE_L1)
        self.file.debug_event("l1_update")
        self.write_durably(place, data)

    def mark_dirty(self) -> None:
        """Note that refcounts on disk may be stale from now on."""
        if self.header.incompatible_features & head.DIRTY:
            return
        bits = self.header.incompatible_features | head.DIRTY
        self.write_durably(FIELD_OFFSET["incompatible_features"], bits.to_bytes(8, "big"))
        self.header.incompatible_features = bits

    def mark_clean(self) -> None:
        """Bring refcounts up to date on disk and say so."""
        if self.header.incompatible_features & head.DIRTY:
            self.header.incompatible_features &= ~head.DIRTY
            self.flush_caches()
            self.update_header()

    def mark_consistent(self) -> None:
        """Take the mark of corruption off."""
        if self.header.incompatible_features & head.CORRUPT:
            self.flush_caches()
            self.header.incompatible_features &= ~head.CORRUPT
            self.update_header()
