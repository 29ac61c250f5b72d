"""The "copied" marks of whole tables with numpy; see `marks`."""

from __future__ import annotations

import numpy as np

from thinvirt.image.formats.qcow2.entries import COMPRESSED, COPIED, OFFSET_MASK, ZERO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable

    from thinvirt.image.block.qcow2.check.state import CheckState


def vector_test(
    state: CheckState, refcounts: array[int], *, has_data_file: bool
) -> Callable[[bytes], bool]:
    """Return a test of L2 tables that gives what `MarkCheck._are_right` does.

    Args:
        state: of the check.
        refcounts: of all clusters.
        has_data_file: guest data lies in another file.
    """
    bits, extended = np.uint64(state.bits), state.image.extended
    is_one = np.frombuffer(refcounts, f"u{refcounts.itemsize}") == 1

    def are_right(raw: bytes) -> bool:
        table = np.frombuffer(raw, ">u8").astype(np.uint64)
        table = table[::2] if extended else table
        table = table[(table != 0) & ((table & np.uint64(COMPRESSED)) == 0)]
        copied = (table & np.uint64(COPIED)) != 0
        offsets = table & np.uint64(OFFSET_MASK)
        if has_data_file:
            if not extended:
                copied |= (offsets == 0) & ((table & np.uint64(ZERO)) != 0)
            # What is neither marked nor has an offset is no cluster.
            return bool((copied | (offsets == 0)).all())
        placed = offsets != 0
        clusters = (offsets[placed] >> bits).view(np.int64)
        if not clusters.size:
            return True
        if clusters.max() >= len(is_one):
            return False
        return bool((is_one[clusters] == copied[placed]).all())

    return are_right
