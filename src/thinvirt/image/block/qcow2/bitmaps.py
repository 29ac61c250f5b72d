"""Persistent dirty bitmaps: loaded while an image is open for writing, stored when it is closed.

While they are in memory only, the image says "in use": whoever finds that after a crash knows that
the bitmap is not to be believed.
"""

from __future__ import annotations

import errno

from thinvirt.errors import CorruptImage
from thinvirt.image.block.abilities import Bitmap
from thinvirt.image.block.errors import BlockError, NotSupported, failed, prefixed, with_reason
from thinvirt.image.block.qcow2 import header as head
from thinvirt.image.block.qcow2.bits import Bits, all_ones
from thinvirt.image.block.qcow2.core import Freed, Structure, Unsettled
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.bitmaps import BitmapEntry
from thinvirt.image.formats.qcow2.entries import OFFSET_MASK
from thinvirt.image.formats.qcow2.layout import divide_up
from thinvirt.image.formats.qcow2.refcounts import pack_table, unpack_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable
    from typing import Any

    from thinvirt.image.block.qcow2.core import Image

_IN_USE, _AUTO = 1 << 0, 1 << 1
_RESERVED_FLAGS = ~(_IN_USE | _AUTO)
_ALL_ONES = 1 << 0  # in a table entry without an offset
_TABLE_RESERVED = 0xFF00_0000_0000_01FE
_MAX_BYTES = 0x20000000  # of a bitmap's data, as QEMU limits it
_MAX_DIRECTORY = 1024 * limits.MAX_BITMAPS
_TRACKING = 1  # the one type of bitmap there is
_DEFAULT_GRANULARITY = 4096, 65536  # the cluster size, within these


class StoredBitmap:
    """A directory entry, and the bits while they are in memory.

    Attributes:
        bits: None where they are not loaded.
        enabled: writes are recorded.
    """

    def __init__(self, name: str, granularity_bits: int) -> None:
        self.name = name
        self.granularity_bits = granularity_bits
        self.table_offset = self.table_entries = 0
        self.flags = 0
        self.bits: Bits | None = None
        self.enabled = True
        self.inconsistent = False

    @property
    def granularity(self) -> int:
        """Bytes of a grain."""
        return 1 << self.granularity_bits

    def pack(self) -> bytes:
        """Return the directory entry, padded."""
        name = self.name.encode("utf-8", "surrogateescape")
        entry = BitmapEntry(
            self.table_offset,
            self.table_entries,
            self.flags,
            _TRACKING,
            self.granularity_bits,
            len(name),
            0,
        )
        return (entry.pack() + name).ljust(entry.entry_size, b"\0")

    def resize(self, size: int) -> None:
        """Let it cover a disk of that size; what is added is clean."""
        assert self.bits is not None
        self.bits.resize(divide_up(size, self.granularity))

    def record(self, offset: int, length: int) -> None:
        """Mark the grains of a range."""
        assert self.bits is not None
        if length > 0:
            first = offset >> self.granularity_bits
            self.bits.record(first, offset + length - 1 >> self.granularity_bits)


# ---------------------------------------------------------------- directory


def read_directory(image: Image) -> list[StoredBitmap]:
    """Return the bitmaps that the image names, without their bits.

    Raises:
        BlockError: the directory is damaged.
    """
    header = image.header
    size = header.bitmap_directory_size
    if not header.bitmap_count:
        return []
    if not size:
        raise BlockError("Requested bitmap directory size is zero")
    if size > _MAX_DIRECTORY:
        raise BlockError("Requested bitmap directory size is too big")
    try:
        raw = image.file.read(header.bitmap_directory_offset, size)
    except BlockError as error:
        raise with_reason("Failed to read bitmap directory", error.errno) from error
    found: list[StoredBitmap] = []
    tables = at = 0
    while at < size:
        found.append(_read_entry(image, raw, at, len(found)))
        at += _entry_size(found[-1])
        tables += found[-1].table_entries * 8
        if tables > image.file.size:
            raise BlockError("The bitmap tables are larger than the image file")
    if len(found) != header.bitmap_count:
        raise BlockError("Less bitmaps found than specified in header extension")
    return found


def _entry_size(bitmap: StoredBitmap) -> int:
    return len(bitmap.pack())


def _read_entry(image: Image, raw: bytes, at: int, number: int) -> StoredBitmap:
    try:
        entry = BitmapEntry.unpack(raw[at : at + BitmapEntry.LAYOUT.size], at=at)
    except CorruptImage as error:
        raise BlockError("Broken bitmap directory") from error
    if number + 1 > image.header.bitmap_count:
        raise BlockError("More bitmaps found than specified in header extension")
    if at + entry.entry_size > len(raw):
        raise BlockError("Broken bitmap directory")
    if entry.extra_data_size:
        raise BlockError("Bitmap extra data is not supported")
    start = at + BitmapEntry.LAYOUT.size
    name = raw[start : start + entry.name_size].decode("utf-8", "surrogateescape")
    if not _is_sound(image, entry):
        raise BlockError(f"Bitmap '{name}' doesn't satisfy the constraints")
    bitmap = StoredBitmap(name, entry.granularity_bits)
    bitmap.table_offset, bitmap.table_entries = entry.table_offset, entry.table_entries
    bitmap.flags = entry.flags
    bitmap.enabled = bool(entry.flags & _AUTO)
    bitmap.inconsistent = bool(entry.flags & _IN_USE)
    return bitmap


def _is_sound(image: Image, entry: BitmapEntry) -> bool:
    finest, coarsest = limits.MIN_BITMAP_GRANULARITY_BITS, limits.MAX_BITMAP_GRANULARITY_BITS
    space = entry.table_entries * image.cluster_size
    covered = space * 8 << min(entry.granularity_bits, coarsest)
    return (
        0 < entry.table_entries <= limits.MAX_BITMAP_TABLE_ENTRIES
        and bool(entry.table_offset)
        and entry.table_offset % image.cluster_size == 0
        and finest <= entry.granularity_bits <= coarsest
        and not entry.flags & _RESERVED_FLAGS
        and entry.name_size <= limits.MAX_BITMAP_NAME
        and entry.kind == _TRACKING
        and space <= _MAX_BYTES
        and (bool(entry.flags & _IN_USE) or image.header.virtual_size <= covered)
    )


def _read_table(image: Image, bitmap: StoredBitmap) -> array[int]:
    table = unpack_table(image.file.read(bitmap.table_offset, bitmap.table_entries * 8))
    for entry in table:
        offset = entry & OFFSET_MASK
        misplaced = offset and (entry & _ALL_ONES or offset % image.cluster_size)
        if entry & _TABLE_RESERVED or misplaced:
            raise failed(errno.EINVAL)
    return table


def _checked_table(image: Image, bitmap: StoredBitmap) -> array[int]:
    """Return the table of a bitmap that is to be loaded.

    Raises:
        BlockError: it cannot be read, or does not fit the disk.
    """
    try:
        table = _read_table(image, bitmap)
    except BlockError as error:
        raise with_reason(
            f"Could not read bitmap_table table from image for bitmap '{bitmap.name}'",
            error.errno,
        ) from error
    length = _bytes_needed(image.header.virtual_size, bitmap.granularity)
    if divide_up(length, image.cluster_size) != len(table):
        raise with_reason(f"Could not read bitmap '{bitmap.name}' from image", errno.EINVAL)
    return table


def _load_bits(image: Image, bitmap: StoredBitmap, seen: set[int]) -> Bits:
    """Return the bits of a bitmap from the image.

    Args:
        image: the image.
        bitmap: of it.
        seen: clusters that hold bits; each can do so once.

    Raises:
        BlockError: they cannot be read.
    """
    size = image.cluster_size
    bits = Bits(_bytes_needed(image.header.virtual_size, bitmap.granularity), size)
    for index, entry in enumerate(_checked_table(image, bitmap)):
        place = entry & OFFSET_MASK
        if not place:
            if entry & _ALL_ONES:
                bits.put(index, all_ones(size))
            continue
        if place >= image.file.size:
            continue  # zeroes
        message = f"Could not read bitmap '{bitmap.name}' from image"
        if place in seen:
            raise with_reason(message, errno.EINVAL)
        seen.add(place)
        try:
            bits.put(index, image.file.read(place, size))
        except BlockError as error:
            raise with_reason(message, error.errno) from error
    return bits


def _bytes_needed(size: int, granularity: int) -> int:
    return divide_up(divide_up(size, granularity), 8)


def _free_stored(image: Image, offset: int, table_entries: int) -> None:
    """Free table and data of a bitmap that nothing names any more."""
    stale = StoredBitmap("", limits.MIN_BITMAP_GRANULARITY_BITS)
    stale.table_offset, stale.table_entries = offset, table_entries
    try:
        table = _read_table(image, stale)
    except BlockError:
        return  # leaked, and told by the next check
    for entry in table:
        if entry & OFFSET_MASK:
            image.refcounts.free(entry & OFFSET_MASK, image.cluster_size, Freed.ALWAYS)
    image.refcounts.free(offset, table_entries * 8, Freed.OTHER)


def _write_header(image: Image) -> None:
    image.update_header()
    image.flush_file()


def _write_directory(image: Image, bitmaps: list[StoredBitmap]) -> None:
    """Write the directory somewhere else, and let the header name it."""
    header = image.header
    before = (
        header.bitmap_directory_offset,
        header.bitmap_directory_size,
        header.bitmap_count,
        header.autoclear_features,
    )
    raw = b"".join(bitmap.pack() for bitmap in bitmaps)
    place = 0
    if len(raw) > _MAX_DIRECTORY or len(bitmaps) > limits.MAX_BITMAPS:
        raise failed(errno.EINVAL)
    try:
        if raw:
            place = image.refcounts.allocate(len(raw))
            image.guard.check(place, len(raw))
            image.file.write(place, raw)
            image.flush_caches()
            header.autoclear_features |= head.BITMAPS
        else:
            header.autoclear_features &= ~head.BITMAPS
        header.bitmap_directory_offset, header.bitmap_directory_size = place, len(raw)
        header.bitmap_count = len(bitmaps)
        _write_header(image)
    except BlockError as error:
        if isinstance(error, Unsettled):
            raise
        (
            header.bitmap_directory_offset,
            header.bitmap_directory_size,
            header.bitmap_count,
            header.autoclear_features,
        ) = before
        if place:
            image.refcounts.free(place, len(raw), Freed.OTHER)
        raise
    if before[1]:
        image.refcounts.free(before[0], before[1], Freed.OTHER)


def _mark_in_use(image: Image, bitmaps: list[StoredBitmap]) -> None:
    """Write the directory in place; meanwhile the header does not vouch for it."""
    header = image.header
    header.autoclear_features &= ~head.BITMAPS
    _write_header(image)
    raw = b"".join(bitmap.pack() for bitmap in bitmaps)
    place = header.bitmap_directory_offset
    image.guard.check(place, len(raw), ignore=Structure.BITMAP_DIRECTORY)
    image.file.write(place, raw)
    _write_header(image)
    header.autoclear_features |= head.BITMAPS
    _write_header(image)


# ---------------------------------------------------------------- the bitmaps of an open image


class BitmapSet:
    """The bitmaps of an image, loaded if it is open for writing."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.bitmaps: list[StoredBitmap] = []
        self._old: list[tuple[int, int]] = []  # tables that are stale once all is stored
        self._is_changed = False

    def load(self) -> bool:
        """Load the bitmaps; return whether the header was written on the way.

        Raises:
            BlockError: they cannot be read, or not be marked as in use.
        """
        image = self.image
        self.bitmaps = read_directory(image)
        usable = [bitmap for bitmap in self.bitmaps if not bitmap.inconsistent]
        if image.read_only:
            for bitmap in usable:
                _checked_table(image, bitmap)  # the bits themselves are rarely asked for
            return False
        seen: set[int] = set()
        for bitmap in usable:
            bitmap.bits = _load_bits(image, bitmap, seen)
        if not usable:
            return False
        for bitmap in usable:
            bitmap.flags |= _IN_USE
        try:
            _mark_in_use(image, self.bitmaps)
        except BlockError as error:
            raise with_reason("Can't update bitmap directory", error.errno) from error
        self._is_changed = True
        return True

    def record(self, offset: int, length: int) -> None:
        """A guest range was written."""
        for bitmap in self.bitmaps:
            if bitmap.enabled and bitmap.bits is not None:
                bitmap.record(offset, length)

    def store(self) -> None:
        """Write the bitmaps and take the marks off.

        Raises:
            BlockError: it failed; the bitmaps count as inconsistent.
        """
        if not self._is_changed:
            return
        image = self.image
        old = list(self._old)
        written = []
        try:
            for bitmap in self.bitmaps:
                if bitmap.bits is None:
                    continue
                if bitmap.table_offset:
                    old.append((bitmap.table_offset, bitmap.table_entries))
                bitmap.flags = _AUTO if bitmap.enabled else 0
                bitmap.table_offset, bitmap.table_entries = _store_bits(image, bitmap)
                written.append(bitmap)
            try:
                _write_directory(image, self.bitmaps)
            except BlockError as error:
                if isinstance(error, Unsettled):
                    written = []  # the directory may name them
                raise with_reason("Failed to update bitmap extension", error.errno) from error
        except BlockError:
            for bitmap in written:
                _free_stored(image, bitmap.table_offset, bitmap.table_entries)
            raise
        for offset, entries in old:
            _free_stored(image, offset, entries)
        self._old = []
        self._is_changed = False

    # what users ask for

    def _find(self, name: str) -> StoredBitmap:
        for bitmap in self.bitmaps:
            if bitmap.name == name:
                return bitmap
        raise BlockError(f"Dirty bitmap '{name}' not found")

    def _usable(self, name: str, *, writable: bool = True) -> StoredBitmap:
        bitmap = self._find(name)
        if writable and self.image.read_only:
            raise BlockError(f"Bitmap '{name}' is readonly and cannot be modified")
        if bitmap.inconsistent:
            raise BlockError(
                f"Bitmap '{name}' is inconsistent and cannot be used",
                qemu_hint="Try block-dirty-bitmap-remove to delete this bitmap from disk\n",
            )
        return bitmap

    def add(self, name: str, granularity: int | None, *, enabled: bool) -> None:
        """Add an empty bitmap."""
        image = self.image
        if not name:
            raise BlockError("Bitmap name cannot be empty")
        if granularity is None:
            least, most = _DEFAULT_GRANULARITY
            granularity = min(max(image.cluster_size, least), most)
        elif granularity < 512 or granularity & (granularity - 1):
            raise BlockError("Granularity must be power of 2 and at least 512")
        if any(bitmap.name == name for bitmap in self.bitmaps):
            raise BlockError(f"Bitmap already exists: {name}")
        with prefixed(f"Can't make bitmap '{name}' persistent in '{image.node_name}': "):
            self._check_new(name, granularity)
        if image.read_only:
            raise failed(errno.EPERM)
        bitmap = StoredBitmap(name, granularity.bit_length() - 1)
        bitmap.enabled = enabled
        length = _bytes_needed(image.header.virtual_size, granularity)
        bitmap.bits = Bits(length, image.cluster_size)
        # QEMU stores those that are new with the newest first, after those it found there.
        found = sum(other.table_offset != 0 for other in self.bitmaps)
        self.bitmaps.insert(found, bitmap)
        self._is_changed = True

    def _check_new(self, name: str, granularity: int) -> None:
        image = self.image
        if image.header.version < 3:
            raise BlockError("Cannot store dirty bitmaps in qcow2 v2 files")
        largest = 1 << limits.MAX_BITMAP_GRANULARITY_BITS
        if granularity > largest:
            raise BlockError(f"Granularity exceeds maximum ({largest} bytes)")
        needed = _bytes_needed(image.header.virtual_size, granularity)
        if needed > min(_MAX_BYTES, limits.MAX_BITMAP_TABLE_ENTRIES * image.cluster_size):
            raise BlockError(
                "Too much space will be occupied by the bitmap. Use larger granularity"
            )
        if len(name.encode("utf-8", "surrogateescape")) > limits.MAX_BITMAP_NAME:
            raise BlockError(f"Name length exceeds maximum ({limits.MAX_BITMAP_NAME} characters)")
        if len(self.bitmaps) >= limits.MAX_BITMAPS:
            raise BlockError("Maximum number of persistent bitmaps is already reached")

    def remove(self, name: str) -> None:
        """Remove a bitmap; at once if it stands in the image."""
        bitmap = self._find(name)
        if self.image.read_only:
            raise BlockError(f"Bitmap '{name}' is readonly and cannot be modified")
        left = [other for other in self.bitmaps if other is not bitmap]
        if bitmap.table_offset:
            try:
                _write_directory(self.image, [other for other in left if other.table_offset])
            except BlockError as error:
                raise with_reason("Failed to update bitmap extension", error.errno) from error
            _free_stored(self.image, bitmap.table_offset, bitmap.table_entries)
        self.bitmaps = left
        self._is_changed = any(other.bits is not None for other in left)

    def clear(self, name: str) -> None:
        """Set all bits to zero."""
        bits = self._usable(name).bits
        assert bits is not None
        bits.clear()

    def enable(self, name: str, *, enabled: bool) -> None:
        """Say whether writes are recorded."""
        self._usable(name).enabled = enabled

    def merge(self, name: str, source: BitmapSet, source_name: str) -> None:
        """Add the bits of another bitmap."""
        target = self._usable(name)
        other = source._usable(source_name, writable=False)
        size, other_size = self.image.header.virtual_size, source.image.header.virtual_size
        if size != other_size:
            raise BlockError(
                f"Bitmaps are of different sizes (destination size is {size}, source size is "
                f"{other_size}) and can't be merged"
            )
        assert target.bits is not None
        if other.bits is None:
            other.bits = _load_bits(source.image, other, set())
        if target.granularity_bits == other.granularity_bits:
            target.bits.merge(other.bits)
            return
        grain = other.granularity
        for number in other.bits.grains():
            target.record(number * grain, min(grain, size - number * grain))

    def resized(self, size: int) -> None:
        """The disk has another size."""
        for bitmap in self.bitmaps:
            if bitmap.bits is not None:
                bitmap.resize(size)

    def check_resizable(self) -> None:
        """Refuse to resize an image one of whose bitmaps cannot follow.

        Raises:
            BlockError: there is one that is not to be believed.
        """
        for bitmap in self.bitmaps:
            try:
                self._usable(bitmap.name)
            except BlockError as error:
                raise NotSupported(error.message, qemu_hint=error.qemu_hint) from error

    def facts(self) -> list[Bitmap]:
        """Return the bitmaps as others see them."""
        return [
            Bitmap(b.name, b.granularity, enabled=b.enabled, inconsistent=b.inconsistent)
            for b in self.bitmaps
        ]


def _store_bits(image: Image, bitmap: StoredBitmap) -> tuple[int, int]:
    """Write data and table of a bitmap; return (offset, entries) of the table."""
    size = image.cluster_size
    bits = bitmap.bits
    assert bits is not None
    table = unpack_table(bytes(divide_up(bits.length, size) * 8))
    taken: list[tuple[int, int]] = []
    message = f"Failed to allocate clusters for bitmap '{bitmap.name}'"
    try:
        for index, piece in bits.stored():
            table[index] = image.refcounts.allocate(size)
            taken.append((table[index], size))
            message = f"Failed to write bitmap '{bitmap.name}' to file"
            image.guard.check(table[index], size)
            image.file.write(table[index], piece)
            message = f"Failed to allocate clusters for bitmap '{bitmap.name}'"
        place = image.refcounts.allocate(len(table) * 8)
        taken.append((place, len(table) * 8))
        message = f"Failed to write bitmap '{bitmap.name}' to file"
        image.guard.check(place, len(table) * 8)
        image.file.write(place, pack_table(table))
    except BlockError as error:
        for offset, length in taken:
            image.refcounts.free(offset, length, Freed.ALWAYS)
        raise with_reason(message, error.errno) from error
    return place, len(table)


# ---------------------------------------------------------------- for check and info


def count_bitmaps(image: Image, count: Callable[[int, int], None]) -> None:
    """Call `count` with the host ranges of directory, tables and data.

    Raises:
        BlockError: the directory or a table is damaged.
    """
    header = image.header
    count(header.bitmap_directory_offset, header.bitmap_directory_size)
    for bitmap in read_directory(image):
        count(bitmap.table_offset, bitmap.table_entries * 8)
        for entry in _read_table(image, bitmap):
            if entry & OFFSET_MASK:
                count(entry & OFFSET_MASK, image.cluster_size)


def describe_bitmaps(image: Image) -> list[dict[str, Any]]:
    """Return what ``info`` tells of the bitmaps."""
    return [
        {
            "name": bitmap.name,
            "granularity": bitmap.granularity,
            "flags": [
                name for bit, name in ((_IN_USE, "in-use"), (_AUTO, "auto")) if bitmap.flags & bit
            ],
        }
        for bitmap in read_directory(image)
    ]
