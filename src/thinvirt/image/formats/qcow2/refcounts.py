"""Refcount blocks: arrays of 1 to 64-bit counts (qcow2 spec, "Reference counts").

In memory every count is an item of an `array`, whatever its width on disk.
"""

from __future__ import annotations

import sys
from array import array

_SWAP = sys.byteorder == "little"
_TYPES = "BBBBHIQ"  # by refcount order: counts of up to 8 bits take a byte


def largest_refcount(order: int) -> int:
    """Return the largest count of 2^order bits."""
    return (1 << (1 << order)) - 1


def empty_refcounts(count: int, order: int) -> array[int]:
    """Return `count` zeroes."""
    kind = _TYPES[order]
    return array(kind, bytes(count * array(kind).itemsize))


def unpack_refcounts(raw: bytes | bytearray | memoryview, order: int) -> array[int]:
    """Return the counts that `raw` packs in widths of 2^order bits."""
    if order >= 3:
        counts = array(_TYPES[order], raw)
        if _SWAP and order > 3:
            counts.byteswap()
        return counts
    # Lowest bits first: count n of a byte is at bit n times the width. Every one is cut out of all
    # bytes at once, as of one large number.
    width, per_byte = 1 << order, 8 >> order
    whole = int.from_bytes(raw, "little")
    mask = int.from_bytes(bytes([(1 << width) - 1]) * len(raw), "little")
    spread = bytearray(len(raw) * per_byte)
    for n in range(per_byte):
        spread[n::per_byte] = (whole >> n * width & mask).to_bytes(len(raw), "little")
    return array("B", bytes(spread))


def pack_refcounts(counts: array[int], order: int) -> bytes:
    """Return the bytes of counts that fit in 2^order bits; sub-byte ones must fill whole bytes."""
    if order >= 3:
        if _SWAP and order > 3:
            counts = counts[:]
            counts.byteswap()
        return counts.tobytes()
    width, per_byte = 1 << order, 8 >> order
    raw = counts.tobytes()
    whole = 0
    for n in range(per_byte):
        whole |= int.from_bytes(raw[n::per_byte], "little") << n * width
    return whole.to_bytes(len(raw) // per_byte, "little")


def count_zeroes(counts: array[int]) -> int:
    """Return how many of the counts are zero."""
    raw = counts.tobytes()
    low = raw if _SWAP else raw[::-1]  # the lowest byte of each count first
    size = counts.itemsize
    if size > 1 and any(low[at::size].strip(b"\0") for at in range(1, size)):
        return counts.count(0)
    return low[::size].count(0)  # many times faster than to look at each as a number


def unpack_table(raw: bytes | bytearray | memoryview) -> array[int]:
    """Return the 64-bit entries of an L1, L2 or refcount table."""
    table = array("Q", raw)
    if _SWAP:
        table.byteswap()
    return table


def pack_table(table: array[int]) -> bytes:
    """Return the bytes of a table."""
    if _SWAP:
        table = table[:]
        table.byteswap()
    return table.tobytes()
