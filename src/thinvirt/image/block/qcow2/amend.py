"""Change the creation options of an existing image."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, NotSupported, with_reason
from thinvirt.image.block.qcow2 import header as head
from thinvirt.image.block.qcow2.core import Freed, Structure, Unsettled
from thinvirt.image.block.qcow2.guard import c_hex
from thinvirt.image.block.qcow2.mapping import find_run
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.entries import (
    COPIED,
    OFFSET_MASK,
    REFCOUNT_TABLE_OFFSET,
    Kind,
    cluster_kind,
)
from thinvirt.image.formats.qcow2.layout import align_up
from thinvirt.image.formats.qcow2.refcounts import (
    empty_refcounts,
    pack_refcounts,
    pack_table,
    unpack_table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator

    from thinvirt.image.block.abilities import Watcher
    from thinvirt.image.block.qcow2.core import Image
    from thinvirt.image.block.schema import Values

_COMPAT = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}
_UPGRADE, _WIDTH, _DOWNGRADE = "upgrade", "refcount width", "downgrade"


class _Progress:
    """Several operations as one: what is to come is guessed from what has been."""

    def __init__(self, watch: Watcher, operations: int) -> None:
        self.watch = watch
        self.operations = operations
        self.completed = 0
        self.offset = 0
        self.last_work = 0
        self.last: str | None = None

    def report(self, operation: str, done: int, total: int) -> None:
        """Tell how far the present operation is."""
        if operation != self.last:
            if self.last is not None:
                self.offset += self.last_work
                self.completed += 1
            self.last = operation
        self.last_work = total
        current = self.offset + total
        left = self.operations - self.completed - 1
        self.watch(self.offset + done, current + current * left // (self.completed + 1))


def amend(image: Image, values: Values, watch: Watcher, *, force: bool) -> None:
    """Change what `values` gives; see `Amendable.amend_image`.

    Raises:
        BlockError: not possible, in QEMU's words.
    """
    header = image.header
    old_version = version = header.version
    if "compat" in values:
        compat = values.text("compat") or ""
        if compat not in _COMPAT:
            raise BlockError(f"Unknown compatibility level {compat}")
        version = _COMPAT[compat]
    changes_keys = any(name.startswith("encrypt.") for name in values.given())
    if changes_keys:
        from thinvirt.image.block.qcow2.encryption import amend_encryption, check_amendable

        check_amendable(image)
    lazy = (
        values.flag("lazy_refcounts") if "lazy_refcounts" in values else image.uses_lazy_refcounts
    )
    bits = values.size("refcount_bits") if "refcount_bits" in values else 1 << image.refcount_order
    if not 1 <= bits <= 64 or bits & (bits - 1):
        raise BlockError("Refcount width must be a power of two and may not exceed 64 bits")
    _check_data_file(image, values)
    changes_width = bits != 1 << image.refcount_order
    progress = _Progress(watch, (version != old_version) + changes_width + changes_keys)
    if version > old_version:
        _upgrade(image, version, progress)
    if changes_keys:
        amend_encryption(image, values, force=force)
    if changes_width:
        if version < 3 and bits != 16:
            raise BlockError(
                "Refcount widths other than 16 bits require compatibility level 1.1 or above (use "
                "compat=1.1 or greater)"
            )
        change_refcount_width(
            image,
            bits.bit_length() - 1,
            lambda done, total: progress.report(_WIDTH, done, total),
        )
    _set_data_file(image, values)
    _check_backing(image, values)
    if lazy != image.uses_lazy_refcounts:
        _set_lazy(image, version, lazy=lazy)
    if values.size("size"):
        image.truncate(values.size("size"), exact=True)
    if version < old_version:
        _downgrade(image, version, progress)


def _check_data_file(image: Image, values: Values) -> None:
    header = image.header
    if "data_file" in values and not header.has_data_file:
        raise BlockError("data-file can only be set for images that use an external data file")
    if "data_file_raw" in values and values.flag("data_file_raw") and not header.data_file_is_raw:
        raise BlockError("data-file-raw cannot be set on existing images")


def _set_data_file(image: Image, values: Values) -> None:
    header = image.header
    if "data_file_raw" in values and not values.flag("data_file_raw"):
        header.autoclear_features &= ~head.RAW_EXTERNAL_DATA
    if "data_file" in values:
        name = values.text("data_file")
        header.data_file_name = name.encode("utf-8", "surrogateescape") if name else None
    _update_header(image)


def _update_header(image: Image) -> None:
    try:
        image.update_header()
    except BlockError as error:
        raise with_reason("Failed to update the image header", error.errno) from error


def _check_backing(image: Image, values: Values) -> None:
    if "backing_file" not in values and "backing_fmt" not in values:
        return
    header = image.header
    present = [
        None if raw is None else raw.decode("utf-8", "surrogateescape")
        for raw in (header.backing_name, header.backing_format)
    ]
    if [values.text("backing_file"), values.text("backing_fmt")] != present:
        raise BlockError(
            "Cannot amend the backing file",
            qemu_hint="You can use 'qemu-img rebase' instead.\n",
        )


def _set_lazy(image: Image, version: int, *, lazy: bool) -> None:
    header = image.header
    if lazy:
        if version < 3:
            raise BlockError(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use "
                "compat=1.1 or greater)"
            )
        header.compatible_features |= head.LAZY_REFCOUNTS
    else:
        _make_clean(image)
        header.compatible_features &= ~head.LAZY_REFCOUNTS
    try:
        _update_header(image)
    except BlockError:
        header.compatible_features ^= head.LAZY_REFCOUNTS
        raise
    image.uses_lazy_refcounts = lazy


def _make_clean(image: Image) -> None:
    try:
        image.mark_clean()
    except BlockError as error:
        raise with_reason("Failed to make the image clean", error.errno) from error


# ---------------------------------------------------------------- versions


def _set_version(image: Image, version: int) -> None:
    before = image.header.version
    image.header.version = version
    try:
        _update_header(image)
    except BlockError:
        image.header.version = before
        raise


def _upgrade(image: Image, version: int, progress: _Progress) -> None:
    progress.report(_UPGRADE, 0, 2)
    if not all(entry.is_complete for entry in image.snapshots):
        from thinvirt.image.block.qcow2.snapshots import write_table

        try:
            write_table(image, image.snapshots)
        except BlockError as error:
            raise with_reason("Failed to update the snapshot table", error.errno) from error
    progress.report(_UPGRADE, 1, 2)
    _set_version(image, version)
    progress.report(_UPGRADE, 2, 2)


def _downgrade(image: Image, version: int, progress: _Progress) -> None:
    header = image.header
    if image.refcount_order != 4:
        raise NotSupported("compat=0.10 requires refcount_bits=16")
    if header.has_data_file:
        raise NotSupported("Cannot downgrade an image with a data file")
    for entry in image.snapshots:
        size = header.virtual_size if entry.disk_size is None else entry.disk_size
        if entry.vm_state_size > 0xFFFFFFFF or size != header.virtual_size:
            raise NotSupported("Internal snapshots prevent downgrade of image")
    _make_clean(image)
    others = header.incompatible_features & ~head.COMPRESSION_TYPE
    if others:
        raise NotSupported(f"Cannot downgrade an image with incompatible features {others:#x} set")
    header.compatible_features = header.autoclear_features = 0
    try:
        _expand_zeroes(image, progress)
    except BlockError as error:
        raise with_reason("Failed to turn zero into data clusters", error.errno) from error
    if header.incompatible_features & head.COMPRESSION_TYPE:
        if _has_compressed(image):
            raise NotSupported(
                "Cannot downgrade an image with zstd compression type and existing compressed "
                "clusters"
            )
        header.incompatible_features &= ~head.COMPRESSION_TYPE
        header.compression_type = head.ZLIB
    _set_version(image, version)


def _has_compressed(image: Image) -> bool:
    offset = 0
    while offset < image.size:
        kind, length, _ = find_run(image, offset, image.size - offset)
        if kind == Kind.COMPRESSED:
            return True
        offset += length
    return False


def _expand_zeroes(image: Image, progress: _Progress) -> None:
    """Version 2 has no zero clusters: make them unallocated or, over a backing file, data."""
    from thinvirt.image.block.qcow2.snapshots import read_l1

    total = len(image.l1) + sum(entry.l1_entries for entry in image.snapshots)
    done = 0
    for index, entry in enumerate(image.l1):
        if entry & OFFSET_MASK:
            _expand_table(image, entry & OFFSET_MASK, index, active=True)
        done += 1
        progress.report(_DOWNGRADE, done, total)
    image.l2_tables.clear()
    for snapshot in image.snapshots:
        for index, entry in enumerate(read_l1(image, snapshot, tell=True)):
            if entry & OFFSET_MASK:
                _expand_table(image, entry & OFFSET_MASK, index, active=False)
            done += 1
            progress.report(_DOWNGRADE, done, total)


def _expand_table(image: Image, place: int, l1_index: int, *, active: bool) -> None:
    if place & image.cluster_size - 1:
        raise image.guard.damaged(
            f"L2 table offset {place:#x} unaligned (L1 index: {c_hex(l1_index)})"
        )
    shared = image.refcounts.get(place >> image.cluster_bits)
    if active:
        values = image.l2_tables.load(place).values
    else:
        values = unpack_table(image.file.read(place, image.cluster_size))
    changed = {}
    for index, entry in enumerate(values):
        kind = cluster_kind(entry)
        if kind == Kind.ZERO_PLAIN and image.backing is None:
            changed[index] = 0
        elif kind in (Kind.ZERO_PLAIN, Kind.ZERO_RESERVED):
            offset = entry & OFFSET_MASK
            if offset & image.cluster_size - 1:
                raise image.guard.damaged(
                    f"Cluster allocation offset {offset:#x} unaligned (L2 offset: {place:#x}, L2 "
                    f"index: {c_hex(index)})"
                )
            offset = _zero_data(image, offset, shared)
            changed[index] = offset | (COPIED if shared == 1 else 0)
    if not changed:
        return
    if active:
        table = image.l2_tables.load(place)
        for index, entry in changed.items():
            table.values[index] = entry
            table.touch(index)
        image.l2_tables.depends_on_flush = True
        image.l2_tables.depend_on(image.refcounts.cache)
        return
    for index, entry in changed.items():
        values[index] = entry
    image.refcounts.cache.flush()
    image.guard.check(place, image.cluster_size, ignore=Structure.INACTIVE_L2 | Structure.ACTIVE_L2)
    image.file.write(place, pack_table(values))


def _zero_data(image: Image, offset: int, references: int) -> int:
    """Return the host offset of a cluster of zeroes, the one reserved already if there is one."""
    size = image.cluster_size
    is_new = not offset
    if is_new:
        offset = image.refcounts.allocate(size)
    try:
        if is_new and references > 1:
            image.refcounts.change(offset, size, references - 1)
        image.guard.check_data(offset, size)
        image.data_file.write_zeroes(offset, size)
    except BlockError:
        if is_new:
            image.refcounts.free(offset, size, Freed.ALWAYS)
        raise
    return offset


# ---------------------------------------------------------------- refcount width


def change_refcount_width(image: Image, order: int, watch: Callable[[int, int], None]) -> None:
    """Write all refcounts anew in another width.

    Args:
        image: the image.
        order: binary logarithm of the new width.
        watch: told how far it is; may raise to cancel.

    Raises:
        BlockError: a count does not fit, or the new structure could not be written; the old one is
            in force still.
    """
    _Widening(image, order, watch).run()


class _Widening:
    def __init__(self, image: Image, order: int, watch: Callable[[int, int], None]) -> None:
        self.image = image
        self.order = order
        self.watch = watch
        self.per_block = image.cluster_size * 8 >> order
        self.table: array[int] = unpack_table(b"")
        self.offset = self.allocated = 0
        self.walks = 0

    def run(self) -> None:
        image = self.image
        try:
            while self._allocate():
                if self.offset:
                    image.refcounts.free(self.offset, self.allocated, Freed.NEVER)
                self.allocated = len(self.table) * 8
                self.offset = image.refcounts.allocate(self.allocated, "refcount table")
                image.guard.check(self.offset, self.allocated)
            if not self.table:  # nothing counts, not even the header
                raise image.guard.damaged("There are no references in the refcount table.")
            self._write_blocks()
            image.guard.check(self.offset, self.allocated)
            image.file.write(self.offset, pack_table(self.table))
            image.refcounts.cache.flush()
            old = self._switch()
        except Unsettled:
            raise
        except BlockError:
            self._free(self.table, self.offset, self.allocated)
            raise
        self._free(*old)

    def _free(self, table: array[int], offset: int, size: int) -> None:
        for entry in table:
            if entry & REFCOUNT_TABLE_OFFSET:
                place = entry & REFCOUNT_TABLE_OFFSET
                self.image.refcounts.free(place, self.image.cluster_size, Freed.OTHER)
        if offset:
            self.image.refcounts.free(offset, size, Freed.OTHER)

    def _blocks(self, *, is_last: bool) -> Iterator[tuple[int, array[int]]]:
        """Yield (index of a new block, its counts) for all that the old blocks cover."""
        refcounts = self.image.refcounts
        old, new = self.image.refcounts_per_block, self.per_block
        table = len(refcounts.table)
        present = [number for number, entry in enumerate(refcounts.table) if entry]
        if not present:
            raise self.image.guard.damaged("There are no references in the refcount table.")
        total = (present[-1] + 1) * old
        walks = self.walks + 1 if is_last else max(self.walks + 2, 3)
        for index in range(-(-total // new)):
            first, end = index * new, min((index + 1) * new, total)
            self.watch(self.walks * table + first // old, walks * table)
            numbers = range(first // old, -(-end // old))
            if not any(refcounts.table[number] for number in numbers):
                continue
            counts = empty_refcounts(0, 6)
            for number in numbers:
                low, high = max(first, number * old), min(end, (number + 1) * old)
                values = refcounts.values_at(low, high - low)
                self._check_fit(values, low)
                counts.fromlist(values.tolist())
            counts.frombytes(bytes((new - len(counts)) * 8))
            yield index, counts
        self.walks += 1
        self.watch(self.walks * table, walks * table)

    def _check_fit(self, values: array[int], first: int) -> None:
        bits = 1 << self.order
        if bits >= 64 or max(values, default=0) >> bits == 0:
            return
        for index, count in enumerate(values):
            if count >> bits:
                offset = first + index << self.image.cluster_bits
                raise BlockError(
                    f"Cannot decrease refcount entry width to {bits} bits: Cluster at offset "
                    f"{offset:#x} has a refcount of {count}"
                )

    def _allocate(self) -> bool:
        """Give every new block that is needed a place; return whether there were any without."""
        image = self.image
        unit = image.cluster_size
        found = False
        for index, counts in self._blocks(is_last=False):
            if not any(counts):
                continue
            if index >= len(self.table):
                entries = align_up(index + 1, unit // 8)
                if entries * 8 > limits.MAX_REFCOUNT_TABLE_BYTES:
                    raise NotSupported(
                        "This operation would make the refcount table grow beyond the maximum size "
                        "supported by QEMU, aborting"
                    )
                self.table.frombytes(bytes((entries - len(self.table)) * 8))
            if not self.table[index]:
                try:
                    self.table[index] = image.refcounts.allocate(unit, "refcount block")
                    image.guard.check(self.table[index], unit)
                except BlockError as error:
                    raise with_reason("Failed to allocate refblock", error.errno) from error
                found = True
        return found

    def _write_blocks(self) -> None:
        image = self.image
        kind = empty_refcounts(0, self.order).typecode
        for index, counts in self._blocks(is_last=True):
            if index >= len(self.table) or not self.table[index]:
                continue
            narrow = empty_refcounts(0, self.order)
            if kind == "Q":
                narrow.extend(counts)
            else:
                narrow.fromlist(counts.tolist())
            image.guard.check(self.table[index], image.cluster_size)
            image.file.write(self.table[index], pack_refcounts(narrow, self.order))

    def _switch(self) -> tuple[array[int], int, int]:
        """Let the header name the new structure; return table, offset and size of the old one."""
        image = self.image
        header, refcounts = image.header, image.refcounts
        old = refcounts.table, header.refcount_table_offset, len(refcounts.table) * 8
        before = header.refcount_table_offset, header.refcount_table_clusters, image.refcount_order
        header.refcount_table_offset = self.offset
        header.refcount_table_clusters = self.allocated // image.cluster_size
        header.refcount_order = self.order
        try:
            image.file.flush()
            image.update_header()
        except BlockError as error:
            header.refcount_table_offset, header.refcount_table_clusters, order = before
            header.refcount_order = order
            raise with_reason("Failed to update the qcow2 header", error.errno) from error
        image.flush_file()
        refcounts.cache.forget_all()
        image.set_refcount_order(self.order)
        refcounts.set_table(self.table)
        return old
