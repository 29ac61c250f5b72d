"""Progress bars on a terminal, drawn by rich (loaded only here)."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)


class Bars:
    """A `thinvirt.progress.Progress` that draws the present step as a bar on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def step(self, title: str, total: int | None = None, unit: str = "") -> None:
        """Finish the bar of the last step and begin one for this."""
        self._end()
        counting = (
            [DownloadColumn(binary_units=True), TransferSpeedColumn()]
            if unit == "bytes"
            else [MofNCompleteColumn()]
            if total is not None
            else []
        )
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            *counting,
            TimeElapsedColumn(),
            console=self._console,
        )
        self._progress.start()
        self._task = self._progress.add_task(title, total=total)

    def advance(self, amount: int) -> None:
        """Move the present bar on."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, amount)

    def _end(self, *, failed: bool = False) -> None:
        if self._progress is not None and self._task is not None:
            task = self._progress.tasks[0]
            if not failed:
                total = task.total if task.total is not None else max(task.completed, 1)
                self._progress.update(self._task, total=total, completed=total)
            self._progress.stop()
        self._progress = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(failed=kind is not None)
