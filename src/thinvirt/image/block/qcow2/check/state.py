"""What the parts of a check share: counts, findings, and how much work there may be."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import CheckResult, Repair
from thinvirt.image.block.errors import NotSupported
from thinvirt.image.formats.qcow2.layout import divide_up
from thinvirt.image.formats.qcow2.refcounts import empty_refcounts, largest_refcount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.qcow2.core import Image

MAX_CLUSTERS = 0x7FFFFFFF
MANY_ENTRIES = 1 << 19  # to look at so many one by one takes longer than to load numpy

# Work is counted in entries looked at. A sound image has each table named once by the active L1
# table, and as often again as there are snapshots; a hostile one of a megabyte can name one table a
# hundred thousand times.
_LEAST_WORK = 1 << 20
_WORK_PER_ENTRY = 33  # for 8 bytes of the file: looked at once, with four findings
_WORK_PER_FINDING = 8


class Unchecked(Exception):
    """The check cannot go on; what it found so far is in the result."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class CheckState:
    """One check of one image.

    Attributes:
        image: it.
        repair: of `Repair`.
        result: what was found.
        size, bits: of a cluster.
        file_size: of the image file, bytes.
        largest: the largest refcount there can be.
        counts: how often each cluster of the file is referred to.
        needs_rebuild: the refcount structure itself is damaged.
        copied_is_missing: a data cluster or L2 table without the mark was seen.
        differs: a refcount is not what was counted.
        has_mended: L2 entries were written that are not durable yet.
        highest: the last cluster in use.
    """

    def __init__(self, image: Image, repair: int, tell: Callable[[str], None]) -> None:
        self.image = image
        self.repair = repair
        self.result = CheckResult()
        self.needs_rebuild = False
        self.size = image.cluster_size
        self.bits = image.cluster_bits
        self.file_size = image.file.size
        self.largest = largest_refcount(image.refcount_order)
        self.counts = empty_refcounts(0, image.refcount_order)
        self.copied_is_missing = False
        self.differs = False
        self.has_mended = False
        self.highest = 0
        self._tell = tell
        self._work = _LEAST_WORK + _bytes_present(image) // 8 * _WORK_PER_ENTRY

    def reset_counts(self, clusters: int) -> None:
        """Begin to count anew."""
        self.counts = empty_refcounts(clusters, self.image.refcount_order)

    def may(self, what: int) -> bool:
        """Whether something of `Repair` is to be mended."""
        return bool(self.repair & what)

    # ---------------------------------------------------------------- findings

    def tell(self, text: str) -> None:
        """Tell of a finding in a table, which may be met again and again."""
        self.charge(_WORK_PER_FINDING)
        self._tell(text)

    def note(self, text: str) -> None:
        """Tell of something else; there is no more of that than there are clusters."""
        self._tell(text)

    def corrupt(self, text: str) -> None:
        """Tell of a corruption and count it."""
        self.result.corruptions += 1
        self.tell(text)

    def give_up(self, text: str, number: int) -> Unchecked:
        """Tell why the check cannot go on, and return what to raise."""
        self.result.check_errors += 1
        self._tell(text)
        return Unchecked(number)

    # ---------------------------------------------------------------- work

    def charge(self, entries: int) -> None:
        """Note that so many entries are looked at.

        Raises:
            Unchecked: the image makes much more work than its size explains.
        """
        self._work -= entries
        if self._work < 0:
            raise self.give_up(
                "ERROR: the tables of this image name one another so often that checking them all "
                "would take too long",
                errno.EFBIG,
            )

    def has_work_for(self, entries: int) -> bool:
        """Note that so many entries are to be looked at; return whether that is allowed."""
        self._work -= entries
        return self._work >= 0

    # ---------------------------------------------------------------- counting

    def fits(self, offset: int, length: int) -> bool:
        """Whether a host range ends within the file, or less than a cluster behind its end."""
        return offset + length - self.file_size < self.size

    def count(self, offset: int, length: int) -> None:
        """Count a reference to every cluster of a host range."""
        if length <= 0:
            return
        if not self.fits(offset, length):
            self.corrupt(
                "ERROR: counting reference for region exceeding the end of the file by one cluster "
                f"or more: offset 0x{offset:x} size 0x{length:x}"
            )
            return
        counts = self.counts
        first, last = offset >> self.bits, offset + length - 1 >> self.bits
        if last > first:
            self.charge(last - first)
        for cluster in range(first, last + 1):
            if cluster >= len(counts):
                counts.extend(empty_refcounts(cluster + 1 - len(counts), self.image.refcount_order))
            if counts[cluster] == self.largest:
                self.tell(f"ERROR: overflow cluster offset=0x{cluster << self.bits:x}")
                self.corrupt(
                    "Use qemu-img amend to increase the refcount entry width or qemu-img convert "
                    "to create a clean copy if the image cannot be opened for writing"
                )
                continue
            counts[cluster] += 1

    def count_large(self, offset: int, length: int) -> None:
        """Count a range that is read as well: so much work it is."""
        self.charge(length // 8)
        self.count(offset, length)


def mending(repair: int) -> str:
    """Return how a finding begins that may be mended."""
    return "Repairing" if repair & Repair.ERRORS else "ERROR"


def clusters_of(size: int, cluster_size: int) -> int:
    """Return how many clusters a file of that size has."""
    return divide_up(size, cluster_size)


def _bytes_present(image: Image) -> int:
    """Return how much of the image file is no hole: only there can be entries."""
    try:
        return min(image.file.allocated_size(), image.file.size)
    except NotSupported:
        return image.file.size
