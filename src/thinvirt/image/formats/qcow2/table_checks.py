"""Can these L1, L2 and refcount table entries be? Pure: bytes of a table in, an error or nothing.

Pieces of a table hold thousands of entries, so what is asked of all of them is asked at once, with
the whole piece as one big integer and a mask laid over it: a hundred times faster than a loop. Only
a piece with something odd in it is looked at entry by entry.
"""

import sys
from array import array
from collections.abc import Iterator
from functools import lru_cache

from thinvirt.errors import CorruptImage
from thinvirt.image.formats.qcow2 import entries
from thinvirt.image.formats.qcow2.header import Header

_ENTRY = 8  # bytes of one number of a table


def numbers_of(raw: bytes) -> "array[int]":
    """Return a table's big-endian 64-bit numbers."""
    numbers = array("Q", raw)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def check_refcount_table(raw: bytes, *, at: int, header: Header, file_size: int) -> None:
    """Refuse a refcount block that is not on a cluster inside the file.

    Args:
        raw: a piece of the refcount table.
        at: its place in the file, for messages.
        header: of the image.
        file_size: bytes.

    Raises:
        CorruptImage: there is such a one.
    """
    misplaced = header.geometry.cluster_size - 1
    for index, block in enumerate(numbers_of(raw)):
        if block & misplaced or block >= file_size:
            raise CorruptImage(
                f"a refcount block cannot lie at byte {block} of a file of {file_size}",
                offset=at + index * _ENTRY,
            )


def l2_tables(raw: bytes, *, at: int, header: Header, file_size: int) -> Iterator[tuple[int, int]]:
    """Yield (host offset of the L2 table, place of the entry that names it) for a piece of L1.

    Raises:
        CorruptImage: reserved bits are set, or the L2 table is not on a cluster inside the file.
    """
    size = header.geometry.cluster_size
    bad = entries.L1_RESERVED | (entries.OFFSET_MASK & (size - 1))
    for index, entry in enumerate(numbers_of(raw)):
        if not entry:
            continue
        place = at + index * _ENTRY
        if entry & bad:
            raise CorruptImage(f"0x{entry:016x} is no L1 entry", offset=place)
        offset = entry & entries.OFFSET_MASK
        if offset + size > file_size:
            raise CorruptImage(
                f"an L2 table cannot lie at byte {offset} of a file of {file_size}", offset=place
            )
        if offset:
            yield offset, place


def check_l2_table(raw: bytes, *, at: int, header: Header, file_size: int) -> None:
    """Refuse entries with reserved bits, and data that does not begin inside the file.

    Data may end beyond the file's end by less than a cluster, as QEMU leaves it.

    Args:
        raw: a piece of the L2 table, of whole entries.
        at: its place in the file, for messages.
        header: of the image.
        file_size: bytes.

    Raises:
        CorruptImage: there are such.
    """
    numbers = numbers_of(raw)
    if header.extended_l2:
        descriptors, bitmaps = numbers[::2], numbers[1::2]
        odd = _odd_descriptors(descriptors, header, file_size) or _odd_bitmaps(descriptors, bitmaps)
    else:
        descriptors, bitmaps = numbers, array("Q")
        odd = _odd_descriptors(descriptors, header, file_size)
    if not odd:
        return
    for index, entry in enumerate(descriptors):
        place = at + index * header.geometry.l2_entry_size
        _check_entry(entry, place, header, file_size)
        if bitmaps:
            _check_bitmap(entry, bitmaps[index], place)


@lru_cache(maxsize=16)
def _repeated(mask: int, length: int) -> int:
    """Return `mask` laid side by side over `length` entries."""
    return int.from_bytes(mask.to_bytes(_ENTRY, sys.byteorder) * length, sys.byteorder)


def _as_one(numbers: "array[int]") -> int:
    """Return all numbers side by side as one, for masks to be laid over all of them at once."""
    return int.from_bytes(numbers.tobytes(), sys.byteorder)


def _bad_bits(header: Header) -> int:
    """Return what no entry of a standard cluster may have set."""
    misplaced = entries.OFFSET_MASK & (header.geometry.cluster_size - 1)
    zero = entries.ZERO if header.extended_l2 or header.version == 2 else 0
    return entries.L2_RESERVED | misplaced | zero


def _odd_descriptors(descriptors: "array[int]", header: Header, file_size: int) -> bool:
    """Whether some must be looked at one by one: compressed, with bad bits, or far out."""
    count = len(descriptors)
    whole = _as_one(descriptors)
    if whole & _repeated(entries.COMPRESSED | _bad_bits(header), count):
        return True
    offsets = (whole & _repeated(entries.OFFSET_MASK, count)).to_bytes(
        count * _ENTRY, sys.byteorder
    )
    return max(array("Q", offsets)) >= file_size


def _odd_bitmaps(descriptors: "array[int]", bitmaps: "array[int]") -> bool:
    """Whether some must be looked at one by one: a subcluster both there and zero, or nowhere."""
    whole = _as_one(bitmaps)
    if whole & whole >> 32 & _repeated(entries.SUBCLUSTERS_ALLOCATED, len(bitmaps)):
        return True
    return any(
        bitmap & entries.SUBCLUSTERS_ALLOCATED
        for entry, bitmap in zip(descriptors, bitmaps, strict=True)
        if not entry & entries.OFFSET_MASK
    )


def _check_bitmap(entry: int, bitmap: int, place: int) -> None:
    """Refuse a subcluster bitmap that contradicts itself or its entry."""
    allocated = bitmap & entries.SUBCLUSTERS_ALLOCATED
    if entry & entries.COMPRESSED:
        impossible = bitmap != 0
    else:
        nowhere = allocated and not entry & entries.OFFSET_MASK
        impossible = bool(nowhere or allocated & bitmap >> 32)
    if impossible:
        raise CorruptImage("the subclusters of an L2 entry contradict each other", offset=place)


def _check_entry(entry: int, place: int, header: Header, file_size: int) -> None:
    if entry & entries.COMPRESSED:
        offset, length = entries.compressed_range(entry, header.cluster_bits)
        over = offset + length - file_size >= header.geometry.cluster_size
        if entry & entries.COPIED or over or offset >= file_size:
            raise CorruptImage(
                f"compressed data cannot lie at byte {offset} of a file of {file_size}",
                offset=place,
            )
        return
    if entry & _bad_bits(header):
        raise CorruptImage(f"0x{entry:016x} is no L2 entry", offset=place)
    offset = entry & entries.OFFSET_MASK
    if offset >= file_size:
        raise CorruptImage(
            f"a data cluster cannot lie at byte {offset} of a file of {file_size}", offset=place
        )
