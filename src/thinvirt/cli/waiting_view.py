"""How waiting for VMs looks: a live table on a terminal, a line per change elsewhere, a summary.

``wait``, ``start --wait`` and ``clone --start --wait`` all call `wait_and_tell`.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thinvirt.cli.output import note
from thinvirt.errors import Timeout
from thinvirt.service.waiting import DEFAULT_TIMEOUT_S, TITLES, Until, WaitResult, wait
from thinvirt.units import format_duration

if TYPE_CHECKING:
    from thinvirt.store import Store, Vm

SHOWN_STUCK = 5  # VMs that are told of at length
SHOWN_LINES = 5  # last lines of each
SHOWN_COLUMNS = 200  # of each line: a guest that floods its console prints no others
WAITING_HINT = "thinvirt console --log NAME shows all that a guest has said"


def wait_and_tell(
    store: "Store",
    vms: "Sequence[Vm]",
    *,
    until: Until = "login",
    timeout_s: float = DEFAULT_TIMEOUT_S,
    quiet: bool = False,
) -> list[WaitResult]:
    """Wait for VMs, show how far they are on stderr, and return their results.

    Whether all came is for the caller to ask, usually by `require_reached`.

    Args:
        store: theirs.
        vms: the VMs.
        until: the login prompt, SSH, or the agent.
        timeout_s: how long to wait, from now.
        quiet: show nothing.
    """
    if quiet or not vms:
        return wait(store, vms, until=until, timeout_s=timeout_s)
    names = [vm.name for vm in vms]
    if sys.stderr.isatty():
        from thinvirt.cli.waiting_table import LiveTable

        with LiveTable(names, until) as table:
            results = wait(store, vms, until=until, timeout_s=timeout_s, on_change=table.update)
    else:
        results = wait(store, vms, until=until, timeout_s=timeout_s, on_change=_Lines().update)
    note(summary(results))
    for result in results:
        if result.reached and result.other_name:
            note(f"{result.name} answers by another name: {result.other_name}")
    return results


def require_reached(results: Sequence[WaitResult], *, as_json: bool = False) -> None:
    """Return if every VM came to what was waited for; else tell of the others and raise.

    Args:
        results: of each VM.
        as_json: they have been printed as JSON, which tells of each already.

    Raises:
        Timeout: some did not come. The first few are told of on stderr with stage and last lines.
    """
    stuck = [result for result in results if not result.reached]
    if not stuck:
        return
    if not as_json:
        _tell_stuck(stuck)
    raise Timeout(
        f"{len(stuck)} of {len(results)} did not come to {TITLES[stuck[0].until]}",
        hint=WAITING_HINT.replace("NAME", stuck[0].name),
    )


def _tell_stuck(stuck: Sequence[WaitResult]) -> None:
    for result in stuck[:SHOWN_STUCK]:
        note(stuck_text(result))
        for line in result.last_lines[-SHOWN_LINES:]:
            shown = line if len(line) <= SHOWN_COLUMNS else f"{line[:SHOWN_COLUMNS]}…"
            print(f"    | {shown}", file=sys.stderr)
    if len(stuck) > SHOWN_STUCK:
        note(f"and {len(stuck) - SHOWN_STUCK} more")


def stuck_text(result: WaitResult) -> str:
    """Return a line on a VM that did not come: its stage and what that usually waits for."""
    from thinvirt.vm.stages import STAGE_BY_ID

    text = f"{result.name}: {result.reason}"
    if result.reason.startswith("it is not running"):
        return text
    stage = STAGE_BY_ID[result.stage]
    text += f"; stage {stage.title} after {format_duration(result.elapsed_s)}"
    return f"{text}, which usually waits for {stage.waits_for}"


def summary(results: Sequence[WaitResult]) -> str:
    """Return one line: how many came, and how long they took from their start."""
    times = sorted(result.elapsed_s for result in results if result.reached)
    where = {"login": "at login", "ssh": "answer SSH", "agent": "have their agent"}
    until = results[0].until if results else "login"
    text = f"{len(times)} of {len(results)} {where[until]}"
    if not times:
        return text
    if len(times) == 1:
        return f"{text}, {format_duration(times[0])} after its start"
    p50, p95 = percentile(times, 50), percentile(times, 95)
    return (
        f"{text}; from start: p50 {format_duration(p50)}, p95 {format_duration(p95)}, "
        f"longest {format_duration(times[-1])}"
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the smallest of the ascending values that at least `percent` of them do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


class _Lines:
    """A line for every change: for logs."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def update(self, result: WaitResult) -> None:
        if result.until == "login" and result.stage == "login" and not result.is_done:
            return  # a prompt is believed a moment later, and then dated to when it was shown
        text = result.state_text
        if self._told.get(result.name) != text:
            self._told[result.name] = text
            note(f"{result.name}: {text} ({format_duration(result.elapsed_s)})")
