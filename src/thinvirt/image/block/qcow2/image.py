"""The node: opens and closes an image, and hands requests to those who know how."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import ReadPlanner, Repair, StatusRuns
from thinvirt.image.block.errors import BlockError, NotSupported, with_reason
from thinvirt.image.block.flags import SECTOR, Open, Role, Status, WriteFlags
from thinvirt.image.block.node import Extent
from thinvirt.image.block.qcow2 import header as head
from thinvirt.image.block.qcow2.mapping import find_run
from thinvirt.image.block.qcow2.operations import Operations
from thinvirt.image.block.qcow2.options import RunTime
from thinvirt.image.block.schema import OptionsIn
from thinvirt.image.formats.qcow2.entries import SUBCLUSTERS, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from thinvirt.image.block.abilities import StatusRun
    from thinvirt.image.block.node import BlockNode, Buffer, Graph
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.qcow2.allocator import Refcounts
    from thinvirt.image.block.qcow2.bitmaps import BitmapSet
    from thinvirt.image.block.qcow2.core import TableLike
    from thinvirt.image.block.qcow2.guard import Guard
    from thinvirt.image.block.qcow2.tables import L2Cache
    from thinvirt.image.block.qcow2.writing import Writer

_CREATION = "thinvirt.image.block.qcow2.creation_options"
_VERSION_3_ZERO_FLAGS = WriteFlags.MAY_UNMAP | WriteFlags.NO_FALLBACK


class Qcow2Node(Operations, StatusRuns, ReadPlanner):
    """A qcow2 image.

    Attributes:
        writer: who stores guest data.
        run_time: the run-time options in effect.
        cipher_by_host_offset: what initial vectors are made from.
    """

    refcounts: Refcounts
    l2_tables: L2Cache
    guard: Guard
    writer: Writer
    bitmaps: BitmapSet | None
    driver = "qcow2"
    is_format = True
    supports_backing = True
    strong_options = ("encrypt.key-secret",)
    create_options = OptionsIn(_CREATION, "CREATE_OPTIONS")
    amend_options = OptionsIn(_CREATION, "AMEND_OPTIONS")
    can_write_zeroes = True
    can_discard = True
    can_report_status = True
    can_compress = True
    can_truncate = True

    def __init__(self, graph: Graph, options: Options, flags: int) -> None:
        super().__init__(graph, options, flags)
        self.header = head.ImageHeader()
        self.run_time: RunTime
        self.cipher = None
        self.cipher_by_host_offset = False
        self.luks_volume = None
        self.is_dead = False
        self.uses_lazy_refcounts = False
        self.snapshots = []
        self.snapshots_size = 0
        self.encryption_options = {}
        self.bitmaps = None
        self._raw_tables = b"", b""
        self._data_file: BlockNode | None = None
        self._is_preallocated: bool | None = None

    # ---------------------------------------------------------------- sizes that follow

    def _set_sizes(self) -> None:
        """Compute what follows from the header; it is asked for with every request."""
        header = self.header
        self.cluster_bits = header.cluster_bits
        self._cluster_size = 1 << header.cluster_bits
        self.extended = header.extended_l2
        self.l2_bits = header.l2_bits
        self.l2_size = 1 << header.l2_bits
        self.subcluster_size = self._cluster_size // (SUBCLUSTERS if self.extended else 1)
        self.subcluster_bits = self.subcluster_size.bit_length() - 1
        self.set_refcount_order(header.refcount_order)

    def set_refcount_order(self, order: int) -> None:
        """Take another width of refcounts into use."""
        self.header.refcount_order = self.refcount_order = order
        self.refcounts_per_block = self._cluster_size * 8 >> order

    @property
    def cluster_size(self) -> int:
        """The unit of allocation, bytes."""
        return self._cluster_size

    @property
    def data_file(self) -> BlockNode:
        """The node that guest data lies in."""
        return self._data_file if self._data_file is not None else self.file

    @property
    def is_encrypted(self) -> bool:
        """Whether guest data cannot be read without a key."""
        return self.header.crypt_method != 0

    @property
    def is_dirty(self) -> bool:
        """Whether the image was not closed properly while its refcounts were lazy."""
        return bool(self.header.incompatible_features & head.DIRTY)

    # ---------------------------------------------------------------- open

    def _open(self, options: Options) -> None:
        self.graph.open_file_child(self, options)
        header, flags = self.header, self.open_flags
        header.read_fields(self.file, flags)
        header.virtual_size = header.virtual_size // SECTOR * SECTOR
        self._set_sizes()
        l1 = self._read_table("read L1 table", header.l1_table_offset, header.l1_entries * 8)
        self.run_time = RunTime.of(options, self)
        self.uses_lazy_refcounts = self.run_time.lazy_refcounts
        length = header.refcount_table_clusters << header.cluster_bits
        self.file.debug_event("reftable_load")
        refcounts = self._read_table(
            "initialize refcount handling", header.refcount_table_offset, length
        )
        self._raw_tables = l1, refcounts
        if not flags & Open.NO_IO:
            self._set_up_tables()
        outdated = header.read_extensions(self.file, self.graph.warn)
        self._open_data_file(options)
        self._set_up_cipher()
        header.read_backing_name(self.file)
        if header.backing_name is not None:
            self.backing_file = self.auto_backing_file = _text(header.backing_name)
        if header.backing_format is not None:
            self.backing_format = _text(header.backing_format)
        self.zero_flags = _VERSION_3_ZERO_FLAGS if header.version >= 3 else 0
        self.truncate_flags = WriteFlags.ZERO
        if not flags & Open.CHECK:
            self._read_snapshots()
        self._mend(outdated=outdated)

    def _read_table(self, what: str, offset: int, length: int) -> bytes:
        try:
            return self.file.read(offset, length)
        except BlockError as error:
            raise with_reason(f"Could not {what}", error.errno) from error

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            """Set up what works on the tables when it is first used: `info` never does."""
            if name == "writer":  # and who only reads needs nobody who writes
                from thinvirt.image.block.qcow2.writing import Writer

                self.writer = Writer(self)
                return self.writer
            if name in ("guard", "l1", "l2_tables", "refcounts"):
                self._set_up_tables()
                return self.__dict__[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _set_up_tables(self) -> None:
        from thinvirt.image.block.qcow2.allocator import Refcounts
        from thinvirt.image.block.qcow2.core import Structure
        from thinvirt.image.block.qcow2.guard import Guard
        from thinvirt.image.block.qcow2.tables import L2Cache, RefcountCache
        from thinvirt.image.formats.qcow2.refcounts import unpack_table

        run_time = self.run_time
        l1, refcount_table = self._raw_tables
        self._raw_tables = b"", b""
        self.l1 = unpack_table(l1)
        self.guard = Guard(self, run_time.overlap_check)
        self.l2_tables = L2Cache(
            self,
            run_time.l2_tables,
            own=Structure.ACTIVE_L2,
            load_event="l2_load",
            write_event="l2_update",
        )
        blocks = RefcountCache(
            self,
            run_time.refcount_blocks,
            own=Structure.REFCOUNT_BLOCK,
            load_event="refblock_load",
            write_event="refblock_update_part",
        )
        self.refcounts = Refcounts(self, unpack_table(refcount_table), blocks)
        self.refcounts.passed_on = run_time.passed_on
        self.guard.reload()

    def _open_data_file(self, options: Options) -> None:
        header = self.header
        if self.open_flags & Open.NO_IO:
            for key in [key for key in options if key.startswith("data-file.")]:
                del options[key]
            options.pop("data-file", None)
            return
        node = self.graph.open_child(self, options, "data-file", Role.DATA, allow_none=True)
        if not header.has_data_file:
            if node is not None:
                raise BlockError(
                    "'data-file' can only be set for images with an external data file"
                )
            if header.data_file_is_raw:
                raise BlockError("data-file-raw requires a data file")
            return
        if node is None and header.data_file_name is not None:
            name = _text(header.data_file_name)
            node = self.graph.open_child(self, options, "data-file", Role.DATA, filename=name)
        if node is None:
            raise BlockError("'data-file' is required for this image")
        self._data_file = node
        self.children["file"].role &= ~Role.DATA

    def _set_up_cipher(self) -> None:
        method = self.header.crypt_method
        if method == head.CRYPT_NONE:
            return
        from thinvirt.image.block.qcow2.encryption import open_cipher

        self.cipher, self.cipher_by_host_offset = open_cipher(self)

    def _read_snapshots(self) -> None:
        if self.header.snapshot_count:
            from thinvirt.image.block.qcow2.snapshots import read_snapshots

            self.snapshots, self.snapshots_size = read_snapshots(self)

    def _mend(self, *, outdated: bool) -> None:
        """Clear unknown autoclear bits and repair a dirty image, if it is opened for writing."""
        header = self.header
        unknown = header.autoclear_features & ~head.KNOWN_AUTOCLEAR
        update = (outdated or bool(unknown)) and not self.read_only
        if update:
            header.autoclear_features &= head.KNOWN_AUTOCLEAR
        if header.bitmap_count:
            update = not self.loaded_bitmaps.load() and update
        if self.read_only:
            return
        if update:
            try:
                self.update_header()
            except BlockError as error:
                raise with_reason("Could not update qcow2 header", error.errno) from error
        if header.incompatible_features & head.DIRTY and not self.open_flags & Open.CHECK:
            number = 0
            try:
                result = self.check_image(Repair.LEAKS | Repair.ERRORS, self.graph.warn)
                number = errno.EIO if result.check_errors else 0
            except BlockError as error:
                number = error.errno
            if number:
                raise with_reason("Could not repair dirty image", number)

    def _refresh_limits(self) -> None:
        if self.cipher is not None:
            self.request_alignment = self.cipher.sector_size
        self.zeroes_alignment = self.subcluster_size
        self.discard_alignment = self.cluster_size

    def _length(self) -> int:
        return self.header.virtual_size

    # ---------------------------------------------------------------- close and flush

    def _close(self) -> None:
        if self.is_dead:
            return
        if not self.read_only:
            self._store_bitmaps()
            self.l2_tables.flush()
            self.refcounts.cache.flush()
            self.mark_clean()

    def _store_bitmaps(self) -> None:
        if self.bitmaps is None:
            return
        try:
            self.bitmaps.store()
        except BlockError as error:
            self.graph.warn(
                f"error: Lost persistent bitmaps during inactivation of node '{self.node_name}': "
                f"{error.message}"
            )

    def _written(self, offset: int, length: int) -> None:
        if self.bitmaps is not None:
            self.bitmaps.record(offset, length)

    def _flush_to_os(self) -> None:
        if self.is_dead:
            return
        self.write_caches()

    def flush(self) -> None:
        """Make durable; what was discarded can be used again then."""
        super().flush()
        if not (self.read_only or self.is_dead):
            self.refcounts.release()

    def _reopening(self, *, read_only: bool) -> None:
        if read_only and not self.is_dead:
            self._store_bitmaps()
            self.flush()
            self.mark_clean()

    # ---------------------------------------------------------------- what the parts ask

    def table_for(self, offset: int) -> tuple[TableLike, int]:
        """Return the L2 table for a guest offset, ready to be changed, and the index in it."""
        return self.writer.table_for(offset)

    def grow_l1(self, entries: int, *, exact: bool = False) -> None:
        """Make the L1 table at least so long."""
        self.writer.grow_l1(entries, exact=exact)

    def snapshot_l1_tables(self) -> list[tuple[int, int]]:
        """Return (host offset, entries) of every snapshot's L1 table."""
        return [(s.l1_table_offset, s.l1_entries) for s in self.snapshots if s.l1_entries]

    # ---------------------------------------------------------------- requests

    def _read(self, offset: int, length: int) -> bytes:
        return self.read_guest(offset, length)

    def read_guest(self, offset: int, length: int) -> bytes:
        """Return guest bytes; the guest's disk may end before."""
        self._alive()
        parts = []
        end = offset + length
        while offset < end:
            kind, run, place = find_run(self, offset, end - offset)
            parts.append(self._read_run(kind, offset, run, place))
            offset += run
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_run(self, kind: int, offset: int, length: int, place: int) -> bytes:
        if kind == Kind.NORMAL:
            self.file.debug_event("read_aio")
            data = self.data_file.read(place, length)
            if self.cipher is not None:
                where = place if self.cipher_by_host_offset else offset
                return self.cipher.decrypt(where, data)
            return data
        if kind == Kind.COMPRESSED:
            from thinvirt.image.block.qcow2.compressed import read_cluster

            return bytes(read_cluster(self, place, offset % self.cluster_size, length))
        unallocated = kind in (Kind.UNALLOCATED, Kind.UNALLOCATED_RESERVED)
        if unallocated and self.backing is not None:
            self.file.debug_event("read_backing_aio")
            return self.backing.read(offset, length)
        return bytes(length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read into a buffer, without a copy where that is possible."""
        length = len(buffer)
        is_odd = (offset | length) & self.request_alignment - 1 or offset + length > self.size
        if is_odd or self.copy_on_read or self.max_transfer:
            super().read_into(offset, buffer)
            return
        self._alive()
        done = 0
        while done < length:
            at = offset + done
            kind, run, place = find_run(self, at, length - done)
            if kind == Kind.COMPRESSED:
                from thinvirt.image.block.qcow2.compressed import read_clusters

                run = read_clusters(self, at, place, buffer[done:])
            else:
                self._fill(kind, at, place, buffer[done : done + run])
            done += run

    def alike_from(self, offset: int, length: int) -> int:
        """Return how many bytes from a cluster's start on are compressed clusters."""
        if offset % self.cluster_size:
            return 0
        from thinvirt.image.block.qcow2.compressed import count_clusters

        self._alive()
        return count_clusters(self, offset, length)

    def plan_read(self, offset: int, length: int) -> Callable[[memoryview], None] | None:
        """Return what reads a range of compressed clusters in any thread; None for others."""
        if self.copy_on_read or self.max_transfer:
            return None
        from thinvirt.image.block.qcow2.compressed import plan_clusters

        self._alive()
        return plan_clusters(self, offset, length)

    def _fill(self, kind: int, offset: int, place: int, view: memoryview) -> None:
        """Read a run that is not compressed."""
        unallocated = kind in (Kind.UNALLOCATED, Kind.UNALLOCATED_RESERVED)
        if kind == Kind.NORMAL:
            self.file.debug_event("read_aio")
            self.data_file.read_into(place, view)
            if self.cipher is not None:
                self.cipher.decrypt_into(
                    place if self.cipher_by_host_offset else offset, view, view
                )
        elif unallocated and self.backing is not None:
            self.file.debug_event("read_backing_aio")
            self.backing.read_into(offset, view)
        else:
            view[:] = self._read_run(kind, offset, len(view), place)

    def encrypt(self, host: int, guest: int, data: Buffer) -> bytearray:
        """Return guest data as it is to be stored at a host offset."""
        result = bytearray(len(data))
        if data:
            assert self.cipher is not None
            where = host if self.cipher_by_host_offset else guest
            self.cipher.encrypt_into(where, data, memoryview(result))
        return result

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        self._alive()
        self.writer.write(offset, data)
        self._written(offset, len(data))

    def _write_compressed(self, offset: int, data: Buffer) -> None:
        from thinvirt.image.block.qcow2.compressed import write_clusters

        self._alive()
        write_clusters(self, offset, data)
        self._written(offset, len(data))

    def pack_cluster(self, data: Buffer, effort: str) -> bytes | None:
        """Return a cluster's data compressed; see `compressed.pack`."""
        from thinvirt.image.block.qcow2.compressed import pack

        return pack(self, data, effort)

    def write_packed(self, offset: int, data: Buffer, packed: bytes | None) -> None:
        """Store what `pack_cluster` returned."""
        from thinvirt.image.block.qcow2.compressed import write_packed

        self._check_writable(offset, len(data))
        self._alive()
        self._unflushed = True
        write_packed(self, offset, data, packed)
        self._written(offset, len(data))

    def _copy_from_file(self, file: BlockNode, file_offset: int, offset: int, length: int) -> None:
        self._alive()
        self.writer.copy_from_file(file, file_offset, offset, length)
        self._written(offset, length)

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        from thinvirt.image.block.qcow2.zeroing import write_zeroes

        self._alive()
        write_zeroes(self, offset, length, flags)
        self._written(offset, length)

    def _discard(self, offset: int, length: int) -> None:
        from thinvirt.image.block.qcow2.core import Freed
        from thinvirt.image.block.qcow2.zeroing import discard_clusters

        self._alive()
        if self.header.version < 3 and self.backing is not None:
            raise NotSupported
        size = self.cluster_size
        if (offset | length) % size and (offset % size or offset + length != self.size):
            raise NotSupported
        discard_clusters(self, offset, length, Freed.REQUEST)
        self._written(offset, length)

    def _status(self, offset: int, length: int, *, want_zero: bool) -> Extent:
        self._alive()
        kind, run, place = find_run(self, offset, length)
        flags, node = 0, None
        if kind in Kind.PLACED and self.cipher is None:
            flags, node = Status.OFFSET_VALID, self.data_file
        else:
            place = 0
        if kind in (Kind.ZERO_PLAIN, Kind.ZERO_RESERVED):
            flags |= Status.ZERO
        elif kind in (Kind.NORMAL, Kind.COMPRESSED):
            flags |= Status.DATA
            if flags & Status.OFFSET_VALID and self._has_metadata_preallocation():
                flags |= Status.RECURSE
        return Extent(run, flags, place, node)

    def status_runs(self, start: int, end: int, *, want_zero: bool) -> Iterator[StatusRun] | None:
        """Return the status of a range piece by piece."""
        from thinvirt.image.block.qcow2.runs import status_runs

        self._alive()
        if self.cipher is not None or self.request_alignment > SECTOR:
            return None
        looks_below = want_zero and self._has_metadata_preallocation()
        return status_runs(self, start, end, want_zero=want_zero, looks_below=looks_below)

    def _has_metadata_preallocation(self) -> bool:
        """Whether much of what is counted as used takes no space on the host (then ask it)."""
        if self._is_preallocated is None:
            from thinvirt.image.block.qcow2.preallocated import has_metadata_preallocation

            try:
                self._is_preallocated = has_metadata_preallocation(self)
            except BlockError:
                self._is_preallocated = False
        return self._is_preallocated

    def _truncate(self, size: int, *, exact: bool, preallocation: str, flags: int) -> None:
        from thinvirt.image.block.qcow2.resize import resize

        self._alive()
        resize(self, size, exact=exact, preallocation=preallocation, flags=flags)

    # ---------------------------------------------------------------- facts

    def has_zero_init(self) -> bool:
        """Whether the image, newly made, reads as zeroes."""
        if not self.l1 or not self.l1[0]:
            return True
        return self.cipher is None and self.data_file.has_zero_init()

    def format_specific(self) -> Mapping[str, Any] | None:
        """Return what only qcow2 has to tell."""
        from thinvirt.image.block.qcow2.info import format_specific

        return format_specific(self)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
