"""Write a refcount structure from scratch, from counts alone."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, with_reason
from thinvirt.image.formats.qcow2.entries import REFCOUNT_TABLE_OFFSET
from thinvirt.image.formats.qcow2.layout import FIELD_OFFSET, align_up, divide_up
from thinvirt.image.formats.qcow2.refcounts import (
    empty_refcounts,
    pack_refcounts,
    pack_table,
    unpack_table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from thinvirt.image.block.qcow2.core import Image


def rebuild(image: Image, counts: array[int]) -> array[int]:
    """Write new refcount blocks and a new table, and let the header name it.

    Args:
        image: the image; nothing of its old structure is trusted, or freed.
        counts: of every cluster of the file, without the old structure's blocks where those are
            damaged.

    Returns:
        The counts with the new structure's own clusters.

    Raises:
        BlockError: it could not be written; the old structure is still in force.
    """
    work = _Rebuild(image, counts)
    work.run()
    return work.counts


class _Rebuild:
    def __init__(self, image: Image, counts: array[int]) -> None:
        self.image = image
        self.counts = counts
        self.table = unpack_table(b"")
        self.per_block = image.refcounts_per_block

    def run(self) -> None:
        image = self.image
        unit = image.cluster_size
        image.refcounts.cache.forget_all()
        self._write_blocks(0, len(self.counts))
        while True:
            length = len(self.table) * 8
            clusters = divide_up(length, unit)
            first = self._take(clusters, 0)
            before = len(self.table)
            self._write_blocks(first, first + clusters)
            if len(self.table) == before:
                break
        offset = first * unit
        try:
            image.guard.check(offset, length)
            image.file.write(offset, pack_table(self.table))
        except BlockError as error:
            raise with_reason("ERROR writing reftable", error.errno) from error
        try:
            image.write_durably(
                FIELD_OFFSET["refcount_table_offset"],
                offset.to_bytes(8, "big") + clusters.to_bytes(4, "big"),
            )
        except BlockError as error:
            raise with_reason("ERROR setting reftable", error.errno) from error
        image.header.refcount_table_offset = offset
        image.header.refcount_table_clusters = clusters
        image.refcounts.set_table(self.table)

    def _take(self, clusters: int, start: int) -> int:
        """Count one reference to the first clusters in a row that have none; return the first."""
        counts = self.counts
        at, found = start, 0
        while at < len(counts) and found < clusters:
            found = 0 if counts[at] else found + 1
            at += 1
        if found < clusters:
            at = max(at, start)
            missing = at + clusters - found - len(counts)
            counts.extend(empty_refcounts(missing, self.image.refcount_order))
        first = at - found
        for cluster in range(first, first + clusters):
            counts[cluster] = 1
        return first

    def _write_blocks(self, first: int, end: int) -> None:
        """Write the blocks that count the used ones of these clusters, new blocks included."""
        cluster = first
        while cluster < end:
            if not self.counts[cluster]:
                cluster += 1
                continue
            index = cluster // self.per_block
            start = index * self.per_block
            if index >= len(self.table) or not self.table[index]:
                taken = self._take(1, start)
                end = max(end, taken + 1)
                self._enter(index, taken)
            self._write_block(index)
            cluster = start + self.per_block

    def _enter(self, index: int, cluster: int) -> None:
        unit = self.image.cluster_size
        if index >= len(self.table):
            length = align_up((index + 1) * 8, unit)
            self.table.frombytes(bytes(length - len(self.table) * 8))
        self.table[index] = cluster * unit

    def _write_block(self, index: int) -> None:
        image = self.image
        start = index * self.per_block
        counts = self.counts[start : start + self.per_block]
        missing = self.per_block - len(counts)
        if missing:
            counts.extend(empty_refcounts(missing, image.refcount_order))
        offset = self.table[index] & REFCOUNT_TABLE_OFFSET
        try:
            image.guard.check(offset, image.cluster_size)
            image.file.write(offset, pack_refcounts(counts, image.refcount_order))
        except BlockError as error:
            raise with_reason("ERROR writing refblock", error.errno) from error
