"""What the parts of an open image ask of each other, so that none has to import another.

`Image` is what all of them see of the node; the classes above it are the parts.
"""

from __future__ import annotations

from thinvirt.image.block.base import BaseNode
from thinvirt.image.block.errors import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from typing import Final, Protocol

    from thinvirt.image.block.abilities import Bitmap
    from thinvirt.image.block.node import BlockNode, Buffer
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.qcow2.header import ImageHeader
    from thinvirt.image.crypto.volume import Volume
    from thinvirt.image.formats.qcow2.snapshots import SnapshotEntry

    class SectorCipher(Protocol):
        """Encrypts guest data; `offset` (bytes) is what initial vectors are made from."""

        sector_size: int

        def encrypt(self, offset: int, data: Buffer) -> bytes:
            """Return data as it is stored."""

        def decrypt(self, offset: int, data: Buffer) -> bytes:
            """Return data as the guest sees it."""

        def encrypt_into(self, offset: int, data: Buffer, out: memoryview) -> None:
            """Put data as it is stored into `out`."""

        def decrypt_into(self, offset: int, data: Buffer, out: memoryview) -> None:
            """Put data as the guest sees it into `out`, which may be the same memory."""

    class TableLike(Protocol):
        """A table in memory; see `tables.Table`."""

        offset: int
        values: array[int]

        def touch(self, index: int, count: int = 1) -> None:
            """Note that numbers were changed."""

    class CacheLike(Protocol):
        """A cache of tables; see `tables.TableCache`."""

        depends_on_flush: bool

        def load(self, offset: int) -> TableLike:
            """Return the table at a host offset."""

        def new(self, offset: int, values: array[int] | None = None) -> TableLike:
            """Return a table that is not read."""

        def forget(self, offset: int, length: int = 1) -> None:
            """Drop the tables in a range."""

        def forget_all(self) -> None:
            """Drop all tables, changed or not."""

        def depend_on(self, other: CacheLike) -> None:
            """Write nothing before what `other` holds is durable."""

        def settle(self) -> None:
            """Make durable what this cache depends on."""

        def write(self) -> None:
            """Write what was changed."""

        def flush(self) -> None:
            """Write what was changed and make it durable."""

        def clear(self) -> None:
            """Write what was changed, then forget everything."""

    class ClustersLike(Protocol):
        """See `guard.ClusterSet`."""

        def change(self, old: int, new: int) -> None:
            """An entry of the table changed."""

    class GuardLike(Protocol):
        """See `guard.Guard`."""

        @property
        def l2_tables(self) -> ClustersLike:
            """Where the active L2 tables lie."""

        @property
        def refcount_blocks(self) -> ClustersLike:
            """Where the refcount blocks lie."""

        def reload(self) -> None:
            """Look at the tables anew."""

        def check(self, offset: int, length: int, *, ignore: int = 0) -> None:
            """Refuse a write that touches metadata."""

        def check_data(self, offset: int, length: int) -> None:
            """Refuse a write of guest data that touches metadata."""

        def signal(self, message: str, *, fatal: bool) -> None:
            """Tell of a damage."""

        def damaged(self, message: str, *, offset: int | None = None) -> BlockError:
            """Signal fatal damage; return the error to raise."""

    class RefcountsLike(Protocol):
        """See `allocator.Refcounts`."""

        table: array[int]
        free_index: int
        free_byte: int
        gathers_discards: bool

        @property
        def cache(self) -> CacheLike:
            """The refcount blocks."""

        def get(self, cluster: int) -> int:
            """Return a refcount."""

        def values_at(self, first: int, count: int) -> array[int]:
            """Return refcounts of one block."""

        def count_unused(self, first: int, count: int) -> int:
            """Return how many of `count` clusters of one block nobody uses."""

        def last_used(self, size: int) -> int:
            """Return the last cluster in use."""

        def change(self, offset: int, length: int, amount: int, freed: int = 0) -> None:
            """Add to refcounts."""

        def release(self) -> None:
            """Let clusters be used that durable tables let go of."""

        def pass_on_discards(self) -> None:
            """Tell the file below of what was freed."""

        def drop_discards(self) -> None:
            """Forget what was freed without telling."""

        def keep_guest_data(self, offset: int, clusters: int) -> None:
            """Let nothing forget clusters of the data file that are used again."""

        def allocate(self, size: int, use: str = "") -> int:
            """Return the host offset of new clusters."""

        def allocate_header(self, size: int) -> None:
            """Take the first clusters of all."""

        def allocate_at(self, offset: int, clusters: int) -> int:
            """Take clusters at a host offset."""

        def allocate_bytes(self, size: int) -> int:
            """Return the host offset for compressed data."""

        def free(self, offset: int, size: int, freed: int) -> None:
            """Take clusters back."""

        def free_entry(self, entry: int, freed: int) -> None:
            """Take back what an L2 entry refers to."""

        def set_table(self, table: array[int]) -> None:
            """Take another refcount table into use."""

        def make_area(
            self, start: int, clusters: int, *, exact: bool, extra: tuple[int, int] | None = None
        ) -> int:
            """Write a larger refcount structure."""

        def drop_empty_blocks(self) -> None:
            """Free refcount blocks that count nothing."""

    class PlacementLike(Protocol):
        """See `writing.Placement`."""

        is_reserved: bool

        @property
        def copies(self) -> bool:
            """Whether anything must be copied."""

    class WriterLike(Protocol):
        """See `writing.Writer`."""

        def write(self, offset: int, data: Buffer) -> None:
            """Store guest data."""

    class BitmapsLike(Protocol):
        """See `bitmaps.BitmapSet`."""

        def check_resizable(self) -> None:
            """Refuse to resize where a bitmap cannot follow."""

        def resized(self, size: int) -> None:
            """The disk has another size."""

        def facts(self) -> list[Bitmap]:
            """Return the bitmaps."""


class Structure:
    """The kinds of metadata, as bits in the order they are looked at."""

    HEADER: Final = 1 << 0
    ACTIVE_L1: Final = 1 << 1
    ACTIVE_L2: Final = 1 << 2
    REFCOUNT_TABLE: Final = 1 << 3
    REFCOUNT_BLOCK: Final = 1 << 4
    SNAPSHOT_TABLE: Final = 1 << 5
    INACTIVE_L1: Final = 1 << 6
    INACTIVE_L2: Final = 1 << 7
    BITMAP_DIRECTORY: Final = 1 << 8

    # How much is looked at before a write: what `overlap-check` can be.
    NOTHING: Final = 0
    CONSTANT: Final = HEADER | ACTIVE_L1 | REFCOUNT_TABLE | SNAPSHOT_TABLE | BITMAP_DIRECTORY
    CACHED: Final = CONSTANT | ACTIVE_L2 | REFCOUNT_BLOCK | INACTIVE_L1
    ALL: Final = CACHED | INACTIVE_L2


class Freed:
    """Why clusters are freed: that decides whether the file below is told."""

    NEVER: Final = 0
    ALWAYS: Final = 1
    REQUEST: Final = 2  # a guest's discard
    SNAPSHOT: Final = 3
    OTHER: Final = 4


class Unsettled(BlockError):
    """Something was written, and then the flush failed: it may be on disk, or not.

    What it replaced and what it refers to must both be left alone.
    """


class Image(BaseNode):
    """An open image, as its parts see it; `image.Qcow2Node` is the one there is.

    Attributes:
        header: the first cluster.
        l1: the active L1 table.
        refcounts, l2_tables, guard: who knows of what.
        writer: who stores guest data.
        bitmaps: the persistent bitmaps; None as long as nobody asked for them and there are none.
        cipher: of an encrypted image.
        encryption_options: those given when it was opened.
        luks_volume: of an image encrypted with LUKS.
        is_dead: damage was met; nothing can be done any more.
        uses_lazy_refcounts: refcounts are written late.
        snapshots: the snapshot table, in its order.
        snapshots_size: bytes of the snapshot table.
        cluster_bits, l2_bits, l2_size, subcluster_bits, subcluster_size, extended, refcount_order,
            refcounts_per_block: follow from the header.
    """

    header: ImageHeader
    l1: array[int]
    refcounts: RefcountsLike
    l2_tables: CacheLike
    guard: GuardLike
    writer: WriterLike
    bitmaps: BitmapsLike | None
    cipher: SectorCipher | None
    encryption_options: Options
    luks_volume: Volume | None
    is_dead: bool
    uses_lazy_refcounts: bool
    snapshots: list[SnapshotEntry]
    snapshots_size: int
    cluster_bits: int
    l2_bits: int
    l2_size: int
    subcluster_bits: int
    subcluster_size: int
    extended: bool
    refcount_order: int
    refcounts_per_block: int

    @property
    def data_file(self) -> BlockNode:
        """The node that guest data lies in."""
        raise NotImplementedError

    @property
    def needs_accurate_refcounts(self) -> bool:
        """Whether refcounts must be on disk before what refers to the clusters."""
        raise NotImplementedError

    def set_refcount_order(self, order: int) -> None:
        """Take another width of refcounts into use."""
        raise NotImplementedError

    def read_guest(self, offset: int, length: int) -> bytes:
        """Return guest bytes; the guest's disk may end before."""
        raise NotImplementedError

    def encrypt(self, host: int, guest: int, data: Buffer) -> bytearray:
        """Return guest data as it is to be stored at a host offset."""
        raise NotImplementedError

    def table_for(self, offset: int) -> tuple[TableLike, int]:
        """Return the L2 table for a guest offset, ready to be changed, and the index in it."""
        raise NotImplementedError

    def grow_l1(self, entries: int, *, exact: bool = False) -> None:
        """Make the L1 table at least so long."""
        raise NotImplementedError

    def write_caches(self) -> None:
        """Write changed tables, in their order, without making them durable."""
        raise NotImplementedError

    def flush_caches(self) -> None:
        """Write changed tables and make them durable."""
        raise NotImplementedError

    def update_header(self) -> None:
        """Write the whole first cluster."""
        raise NotImplementedError

    def flush_file(self) -> None:
        """Make durable what was written to the image file.

        Raises:
            Unsettled: it failed.
        """
        try:
            self.file.flush()
        except BlockError as error:
            raise Unsettled(error.message, number=error.errno) from error

    def write_durably(self, offset: int, data: bytes) -> None:
        """Write to the image file, and go on when it is durable."""
        raise NotImplementedError

    def set_l1(self, index: int, entry: int) -> None:
        """Change an L1 entry in memory."""
        raise NotImplementedError

    def write_l1_entry(self, index: int) -> None:
        """Write an L1 entry durably."""
        raise NotImplementedError

    def mark_dirty(self) -> None:
        """Note that refcounts on disk may be stale from now on."""
        raise NotImplementedError

    def mark_clean(self) -> None:
        """Bring refcounts up to date on disk and say so."""
        raise NotImplementedError

    def mark_consistent(self) -> None:
        """Take the mark of corruption off."""
        raise NotImplementedError

    def snapshot_l1_tables(self) -> list[tuple[int, int]]:
        """Return (host offset, entries) of every snapshot's L1 table."""
        raise NotImplementedError

    def change_backing(self, name: str | None, image_format: str | None) -> None:
        """Name another backing file in the header."""
        raise NotImplementedError
