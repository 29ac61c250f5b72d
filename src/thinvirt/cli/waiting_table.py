"""The live table of VMs that are waited for, drawn by rich (loaded only here)."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from thinvirt.service.waiting import Until, WaitResult
from thinvirt.units import format_duration

_MARGIN = 5  # terminal lines that are not rows of the table


class LiveTable:
    """NAME, STAGE and ELAPSED of each VM, and a line that counts.

    Where there are more VMs than lines, those that are not there yet come first.
    """

    def __init__(self, names: Sequence[str], until: Until) -> None:
        self._console = Console(stderr=True)
        self._results: dict[str, tuple[WaitResult, float]] = {}
        self._names = list(names)
        self._until = until
        self._live = Live(
            get_renderable=self._draw, console=self._console, refresh_per_second=4, transient=True
        )

    def update(self, result: WaitResult) -> None:
        """Take in how far a VM is."""
        self._results[result.name] = result, time.monotonic()

    def _draw(self) -> Group:
        room = max(3, self._console.height - _MARGIN)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("NAME")
        table.add_column("STAGE")
        table.add_column("ELAPSED", justify="right")
        known = [self._results[name] for name in self._names if name in self._results]
        if len(known) > room:
            known.sort(key=lambda item: item[0].is_done)
        for result, seen_at in known[:room]:
            elapsed = result.elapsed_s + (0.0 if result.is_done else time.monotonic() - seen_at)
            style = "green" if result.reached else "red" if result.reason else ""
            table.add_row(
                Text(result.name), Text(result.state_text, style=style), format_duration(elapsed)
            )
        there = sum(result.reached for result, _ in known)
        counted = Text(f"{there} of {len(self._names)} at {self._until}", style="bold")
        if len(known) > room:
            counted.append(f"  ({len(known) - room} not shown)", style="dim")
        return Group(table, counted)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
