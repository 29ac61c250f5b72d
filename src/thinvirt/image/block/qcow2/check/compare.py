"""Compare what was counted with the refcounts of the image, and set right those that may be."""

from __future__ import annotations

from thinvirt.image.block.abilities import Repair
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.qcow2.core import Freed
from thinvirt.image.formats.qcow2.layout import divide_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from thinvirt.image.block.qcow2.check.state import CheckState


def compare_counts(state: CheckState, repair: int) -> None:
    """Compare block by block; only clusters of a block that differs are looked at one by one.

    Args:
        state: its result is added to.
        repair: of `Repair`, what may be set right this time.
    """
    per_block = state.image.refcounts_per_block
    state.highest = 0
    for first in range(0, len(state.counts), per_block):
        wanted = state.counts[first : first + per_block]
        try:
            found = state.image.refcounts.values_at(first, len(wanted))
        except BlockError as error:
            for cluster in range(first, first + len(wanted)):
                state.note(f"Can't get refcount for cluster {cluster}: {error.reason}")
            state.result.check_errors += len(wanted)
            continue
        used = max(_last_used(wanted), _last_used(found))
        if used >= 0:
            state.highest = first + used
        if found != wanted:
            state.differs = True
            for index, (present, counted) in enumerate(zip(found, wanted, strict=True)):
                if present != counted:
                    _settle(state, first + index, present, counted, repair)


def _settle(state: CheckState, cluster: int, present: int, counted: int, repair: int) -> None:
    """Tell of a refcount that is not what was counted, and correct it if that may be."""
    result = state.result
    leaked = present > counted
    fixes = False
    if not present:
        state.needs_rebuild = True
    else:
        fixes = bool(repair & (Repair.LEAKS if leaked else Repair.ERRORS))
    verb = "Repairing" if fixes else "Leaked" if leaked else "ERROR"
    state.note(f"{verb} cluster {cluster} refcount={present} reference={counted}")
    if fixes:
        try:
            state.image.refcounts.change(cluster << state.bits, 1, counted - present, Freed.ALWAYS)
        except BlockError:
            pass  # it stays as it is, and is counted so
        else:
            if leaked:
                result.leaks_fixed += 1
            else:
                result.corruptions_fixed += 1
            return
    if leaked:
        result.leaks += 1
    else:
        result.corruptions += 1


def _last_used(counts: array[int]) -> int:
    """Return the index of the last count above zero, -1 if there is none."""
    if counts and counts[-1]:
        return len(counts) - 1
    used = len(counts.tobytes().rstrip(b"\0"))
    return divide_up(used, counts.itemsize) - 1
