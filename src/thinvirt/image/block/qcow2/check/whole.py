"""The order of a check: snapshot table, references, refcounts, marks."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import CheckResult, Repair
from thinvirt.image.block.errors import BlockError, with_reason
from thinvirt.image.block.qcow2.check.compare import compare_counts
from thinvirt.image.block.qcow2.check.marks import check_marks
from thinvirt.image.block.qcow2.check.references import count_references
from thinvirt.image.block.qcow2.check.snapshot_table import SnapshotCheck
from thinvirt.image.block.qcow2.check.state import (
    MAX_CLUSTERS,
    CheckState,
    Unchecked,
    clusters_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.qcow2.core import Image


def check(image: Image, repair: int, tell: Callable[[str], None]) -> CheckResult:
    """Check an image; see `Checkable.check_image`."""
    state = CheckState(image, repair, tell)
    snapshots = SnapshotCheck(image, repair, tell)
    try:
        snapshots.read()
        _check_refcounts(state)
        snapshots.mend()
    except Unchecked as error:
        raise with_reason("Check failed", error.number) from error
    result, found = state.result, snapshots.result
    result.check_errors += found.check_errors
    result.corruptions += found.corruptions
    result.corruptions_fixed += found.corruptions_fixed
    if repair and not result.check_errors and not result.corruptions:
        image.mark_clean()
        image.mark_consistent()
    return result


def _check_refcounts(state: CheckState) -> None:
    """Count, compare and repair.

    Raises:
        Unchecked: it cannot go on.
    """
    result = state.result
    clusters = clusters_of(state.file_size, state.size)
    if clusters > MAX_CLUSTERS:
        result.check_errors += 1
        raise Unchecked(errno.EFBIG)
    result.total_clusters = clusters_of(state.image.header.virtual_size, state.size)
    state.reset_counts(clusters)
    count_references(state, state.repair)
    before = result.corruptions, result.leaks, result.check_errors
    compare_counts(state, Repair.NOTHING)
    if state.needs_rebuild and state.may(Repair.ERRORS):
        _rebuild(state)
    elif state.repair:
        if state.needs_rebuild:
            raise state.give_up("ERROR need to rebuild refcount structures", errno.EIO)
        if result.leaks or result.corruptions:
            result.corruptions, result.leaks, result.check_errors = before
            compare_counts(state, state.repair)
    check_marks(state)
    result.image_end_offset = (state.highest + 1) * state.size


def _rebuild(state: CheckState) -> None:
    """Write a new refcount structure, and check what came of it."""
    from thinvirt.image.block.qcow2.rebuild import rebuild

    result = state.result
    corruptions, leaks = result.corruptions, result.leaks
    state.note("Rebuilding refcount structure")
    try:
        state.counts = rebuild(state.image, state.counts)
    except BlockError as error:
        raise state.give_up(f"error: {error.message}", error.errno) from error
    result.corruptions = result.leaks = 0
    state.needs_rebuild = False
    state.file_size = state.image.file.size
    state.reset_counts(len(state.counts))
    count_references(state, Repair.NOTHING)
    fresh_leaks = 0
    if state.may(Repair.LEAKS):
        state.result = CheckResult()
        compare_counts(state, Repair.LEAKS)
        if state.needs_rebuild:
            state.note("ERROR rebuilt refcount structure is still broken")
        fresh_leaks, state.result = state.result.leaks, result
    result.corruptions_fixed += max(corruptions - result.corruptions, 0)
    result.leaks_fixed += max(leaks - result.leaks, 0)
    result.leaks += fresh_leaks
