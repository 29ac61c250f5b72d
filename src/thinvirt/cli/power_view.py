"""How starting, stopping and restarting look: a line per VM as it comes, errors on stderr."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from thinvirt.cli.output import note, print_json
from thinvirt.units import format_duration

if TYPE_CHECKING:
    from thinvirt.service.power import PowerResult
    from thinvirt.service.waiting import WaitResult


def teller(*, as_json: bool) -> "Callable[[PowerResult], None] | None":
    """Return what is told each result as it comes; None if they are printed together as JSON."""
    return None if as_json else tell


def tell(result: "PowerResult") -> None:
    """Print one result: a line on stdout, or the reason on stderr."""
    if result.error is None:
        print(line(result), flush=True)
        return
    words = str(result.error)
    print(
        f"thinvirt: {words if result.name in words else f'{result.name}: {words}'}",
        file=sys.stderr,
    )
    if result.error.hint:
        print(f"  hint: {result.error.hint}", file=sys.stderr)


def line(result: "PowerResult") -> str:
    """Return a result as a line of text."""
    text = f"{result.name}: {result.how}"
    if result.elapsed_s >= 0.05:
        text += f" ({format_duration(result.elapsed_s)})"
    if result.action == "start" and result.state is not None:
        if result.state.ssh_port is not None:
            text += f", SSH on port {result.state.ssh_port}"
        if result.state.vnc:
            text += f", screen at {result.state.vnc}"
        elif result.state.spice:
            text += f", screen at {result.state.screen}"
    return text


def finish(
    results: "Sequence[PowerResult]", *, as_json: bool, waited: "Sequence[WaitResult]" = ()
) -> int:
    """Print JSON if that was asked, else count the failures of many; return the exit status.

    Args:
        results: what became of each VM.
        as_json: print the facts, for programs.
        waited: how far those came that were then waited for; their facts join the others, and
            ``elapsed_s`` is then theirs: from the start until what was waited for.
    """
    from thinvirt.service.power import exit_status

    failed = sum(not result.done for result in results)
    if as_json:
        rows = {result.name: result.to_facts() for result in results}
        for outcome in waited:
            rows[outcome.name] = rows.get(outcome.name, {}) | outcome.to_facts()
        print_json(list(rows.values()))
    elif failed and len(results) > 1:
        note(f"{failed} of {len(results)} failed")
    return exit_status(results)
