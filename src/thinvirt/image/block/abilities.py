"""What a driver may offer beyond the node protocol; whole-image operations ask with `isinstance`.

A driver lists those that it has among its base classes and overrides the methods. All sizes and
offsets are bytes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Final, TypeAlias

    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.node import BlockNode, Buffer
    from thinvirt.image.block.schema import OptionList, Values

    # (bytes, flags of `Status`, host offset, node of the host offset)
    StatusRun: TypeAlias = tuple[int, int, int, BlockNode | None]

    # told how much is done of how much, in any unit; may raise to cancel
    Watcher = Callable[[int, int], None]


class StatusRuns:
    """A driver that can tell the status of a long range faster than piece by piece."""

    def status_runs(self, start: int, end: int, *, want_zero: bool) -> Iterator[StatusRun] | None:
        """Return an iterator over the status of a range within the image, in order.

        Its pieces say together what `BlockNode.status` would, call by call; where one ends and the
        next begins may differ. None: not of this image.

        Raises:
            BlockError: while it is iterated, as `BlockNode.status`.
        """
        raise NotImplementedError


class Creatable:
    """A driver that can make new images; its `create_options` say how."""

    @classmethod
    def create_image(cls, graph: BlockGraph, filename: str, values: Values) -> None:
        """Make an image.

        Args:
            graph: what the file is opened in, with its secrets and where warnings go.
            filename: as given: with protocol prefix, if any.
            values: options, those of the protocol included; ``size`` is always given.

        Raises:
            BlockError: not possible. ``errno.EFBIG`` stands for an image too large for the format.
        """
        raise NotImplementedError


class Measurable:
    """A driver that can tell beforehand how large an image would be."""

    @classmethod
    def measure_image(cls, values: Values, source: BlockNode | None) -> Measure:
        """Return what a new image would need.

        Args:
            values: as for `Creatable.create_image`; ``size`` counts only without `source`.
            source: the image to be converted, None for an empty one.
        """
        raise NotImplementedError


class Measure:
    """What a new image needs of the host's file system.

    Attributes:
        required: bytes for what is in it now.
        fully_allocated: bytes if all of it were written.
        bitmaps: bytes for copies of the source's persistent bitmaps, None if there can be none.
    """

    __slots__ = ("bitmaps", "fully_allocated", "required")

    def __init__(self, required: int, fully_allocated: int, bitmaps: int | None = None) -> None:
        self.required = required
        self.fully_allocated = fully_allocated
        self.bitmaps = bitmaps


class CheckResult:
    """What a check found; counts of clusters and of errors, and an offset in bytes."""

    __slots__ = (
        "allocated_clusters",
        "check_errors",
        "compressed_clusters",
        "corruptions",
        "corruptions_fixed",
        "fragmented_clusters",
        "image_end_offset",
        "leaks",
        "leaks_fixed",
        "total_clusters",
    )

    def __init__(self) -> None:
        self.check_errors = 0  # what could not be checked
        self.corruptions = 0
        self.leaks = 0
        self.corruptions_fixed = 0
        self.leaks_fixed = 0
        self.image_end_offset = 0
        self.total_clusters = 0
        self.allocated_clusters = 0
        self.fragmented_clusters = 0
        self.compressed_clusters = 0


class Repair:
    """What a check may change."""

    NOTHING = 0
    LEAKS = 1
    ERRORS = 2


class Checkable:
    """A format whose structures can be checked against each other."""

    def check_image(self, repair: int, tell: Callable[[str], None]) -> CheckResult:
        """Check and perhaps repair.

        Args:
            repair: of `Repair`.
            tell: called with each finding, in QEMU's words, without the newline.

        Raises:
            BlockError: the check could not be done at all.
        """
        raise NotImplementedError


class Amendable:
    """A format whose creation options can be changed later."""

    amend_options: OptionList

    def amend_image(self, values: Values, *, force: bool, watch: Watcher) -> None:
        """Change what `values` gives.

        Args:
            values: of `amend_options`.
            force: do what could make the image unreadable for good (keys).
            watch: told how far it is.

        Raises:
            BlockError: not possible; the image is as it was, or says what is missing.
        """
        raise NotImplementedError


class BackingChangeable:
    """A format that names its backing file and can be told another."""

    def change_backing(self, name: str | None, image_format: str | None) -> None:
        """Write another backing file's name into the image; None takes it out of its chain.

        Raises:
            BlockError: ``errno.ENOSPC`` if the header has no room for the name.
        """
        raise NotImplementedError

    def make_empty(self) -> None:
        """Give up all data of this layer, so that its backing file shows everywhere.

        Raises:
            BlockError: it failed.
        """
        raise NotImplementedError


class Snapshot:
    """An internal snapshot; times in nanoseconds, `icount` None where none was recorded."""

    __slots__ = ("date_ns", "icount", "id", "name", "vm_clock_ns", "vm_state_size")

    def __init__(
        self,
        id: str,  # noqa: A002 - the format's word
        name: str,
        *,
        vm_state_size: int = 0,
        date_ns: int = 0,
        vm_clock_ns: int = 0,
        icount: int | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self.vm_state_size = vm_state_size
        self.date_ns = date_ns
        self.vm_clock_ns = vm_clock_ns
        self.icount = icount


class Snapshotable:
    """A format that keeps internal snapshots."""

    @property
    def keeps_snapshots(self) -> bool:
        """Whether this very image can have any."""
        return True

    def list_snapshots(self) -> Sequence[Snapshot]:
        """Return them in the order of the image's table."""
        raise NotImplementedError

    def create_snapshot(self, name: str, *, date_ns: int) -> None:
        """Record the present content under a name, with a time in nanoseconds since 1970.

        Raises:
            BlockError: it failed; nothing was changed.
        """
        raise NotImplementedError

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot; the present content is lost.

        Raises:
            BlockError: it failed.
        """
        raise NotImplementedError

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        """Forget a snapshot.

        Raises:
            BlockError: it failed.
        """
        raise NotImplementedError

    def load_snapshot(self, snapshot: Snapshot) -> None:
        """Show a snapshot instead of the present content, in this read-only node alone.

        Raises:
            BlockError: it failed, or the node is writable.
        """
        raise NotImplementedError


class Bitmap:
    """A persistent dirty bitmap; `granularity` is the bytes that a bit stands for."""

    __slots__ = ("enabled", "granularity", "inconsistent", "name")

    def __init__(
        self, name: str, granularity: int, *, enabled: bool = True, inconsistent: bool = False
    ) -> None:
        self.name = name
        self.granularity = granularity
        self.enabled = enabled
        self.inconsistent = inconsistent  # its writer never finished


class BitmapHolder:
    """A format that keeps persistent dirty bitmaps; changes are written when the node closes."""

    @property
    def supports_bitmaps(self) -> bool:
        """Whether this very image can hold any (qcow2 of version 2 cannot)."""
        raise NotImplementedError

    def list_bitmaps(self) -> Sequence[Bitmap]:
        """Return them in the order of the image's directory."""
        raise NotImplementedError

    def add_bitmap(self, name: str, granularity: int | None, *, enabled: bool = True) -> None:
        """Add an empty bitmap; None takes the default granularity.

        Raises:
            BlockError: the name or granularity cannot be, or there is no room.
        """
        raise NotImplementedError

    def remove_bitmap(self, name: str) -> None:
        """Remove a bitmap, in whatever state it is.

        Raises:
            BlockError: there is none of that name.
        """
        raise NotImplementedError

    def clear_bitmap(self, name: str) -> None:
        """Set all bits of a bitmap to zero.

        Raises:
            BlockError: there is none of that name, or it is inconsistent.
        """
        raise NotImplementedError

    def set_bitmap_enabled(self, name: str, enabled: bool) -> None:
        """Say whether guests' writes are to be recorded.

        Raises:
            BlockError: there is none of that name, or it is inconsistent.
        """
        raise NotImplementedError

    def merge_bitmap(self, name: str, source: BitmapHolder, source_name: str) -> None:
        """Add the bits of a bitmap of `source`, which may be this very node.

        Raises:
            BlockError: either is not there or inconsistent, or the sizes differ.
        """
        raise NotImplementedError


class Effort:
    """How hard to try for a small image."""

    FAST: Final = "fast"  # the quickest library there is; with zstd, QEMU's level
    SMALL: Final = "small"  # no larger than QEMU makes it, and slower than `FAST`
    QEMU: Final = (
        "qemu"  # the interpreter's zlib at QEMU's level: most often byte for byte the same
    )

    ALL: Final = (FAST, SMALL, QEMU)


class ReadPlanner:
    """A driver that can say what a read takes, so that other threads can do it."""

    def alike_from(self, offset: int, length: int) -> int:
        """Return how many bytes from `offset` on `BlockNode.status` would tell cluster by cluster.

        All of them data that `plan_read` can plan; 0 where there is anything else, and where
        nobody counted.

        Args:
            offset: first byte.
            length: bytes of interest; no more are counted.

        Raises:
            BlockError: as `BlockNode.status`.
        """
        raise NotImplementedError

    def plan_read(self, offset: int, length: int) -> Callable[[memoryview], None] | None:
        """Return what fills a buffer with a range of the image, None if only `read_into` can.

        Any thread may call it, several at a time; it touches nothing of the image but its file.
        What is written to the range in the meantime may be seen or not.

        Args:
            offset: first byte.
            length: bytes, all within the image; the buffer is as long.

        Raises:
            BlockError: as `BlockNode.read`; also when the buffer is filled.
        """
        raise NotImplementedError


class ClusterPacker:
    """A driver whose compressed clusters can be made beforehand, and in other threads."""

    def pack_cluster(self, data: Buffer, effort: str) -> bytes | None:
        """Return a cluster's data compressed, None if that would save nothing.

        Several threads may call this at a time; it touches nothing of the image.

        Args:
            data: one cluster, or the part of it that the image still has.
            effort: of `Effort`.

        Raises:
            NotSupported: a library is missing.
        """
        raise NotImplementedError

    def write_packed(self, offset: int, data: Buffer, packed: bytes | None) -> None:
        """Store what `pack_cluster` returned for `data`; None stores it as it is.

        Raises:
            BlockError: as `BlockNode.write_compressed`.
        """
        raise NotImplementedError
