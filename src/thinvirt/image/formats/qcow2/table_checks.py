"""Can these L1, L2 and refcount table entries be? Pure: bytes of a table in, an error or nothing.

Pieces of a table hold thousands of entries, so what is asked of all of them is asked at once, with
the whole piece as one big integer and a mask laid over it; only a piece with something odd in it is
looked at entry by entry.
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

    Raises:
        CorruptImage: there are such.
    """
    if header.extended_l2:
        _check_extended(raw, at, header, file_size)
    elif _masked(raw, entries.COMPRESSED):
        for index, entry in enumerate(numbers_of(raw)):
            if entry:
                _check_entry(entry, at + index * _ENTRY, header, file_size)
    else:
        _check_standard(raw, at, header, file_size)


@lru_cache(maxsize=16)
def _repeated(mask: int, length: int) -> int:
    """Return `mask` laid side by side over `length` bytes."""
    return int.from_bytes(mask.to_bytes(_ENTRY, "big") * (length // _ENTRY), "big")


def _masked(raw: bytes, mask: int) -> int:
    """Return all entries at once under `mask`: zero means that none has any of its bits."""
    return int.from_bytes(raw, "big") & _repeated(mask, len(raw))


def _bad_bits(header: Header) -> int:
    """Return what no entry of a standard cluster may have set."""
    misplaced = entries.OFFSET_MASK & (header.geometry.cluster_size - 1)
    zero = entries.ZERO if header.extended_l2 or header.version == 2 else 0
    return entries.L2_RESERVED | misplaced | zero


def _check_standard(raw: bytes, at: int, header: Header, file_size: int) -> None:
    """Check entries of 8 bytes, none of them compressed, all at once."""
    offsets = numbers_of(_masked(raw, entries.OFFSET_MASK).to_bytes(len(raw), "big"))
    if _masked(raw, _bad_bits(header)) or max(offsets) >= file_size:
        for index, entry in enumerate(numbers_of(raw)):
            _check_entry(entry, at + index * _ENTRY, header, file_size)


def _check_extended(raw: bytes, at: int, header: Header, file_size: int) -> None:
    """Check entries of 16 bytes: a descriptor, then the bitmap of its subclusters."""
    numbers = numbers_of(raw)
    for index in range(0, len(numbers), 2):
        entry, bitmap = numbers[index], numbers[index + 1]
        if not entry and not bitmap:
            continue
        place = at + index * _ENTRY
        _check_entry(entry, place, header, file_size)
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
