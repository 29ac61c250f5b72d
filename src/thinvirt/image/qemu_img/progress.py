"""Progress as qemu-img shows it: on standard output with ``-p``, else when SIGUSR1 asks."""

from __future__ import annotations

from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


class Meter:
    """How far a command is, in percent; a context manager around its work.

    Args:
        shown: print it; otherwise only when SIGUSR1 comes, on standard error.
        step: percent between two prints at least.
    """

    def __init__(self, *, shown: bool, step: float) -> None:
        self._shown = shown
        self._step = step
        self._now = 0.0
        self._printed = 0.0
        self._asked = False

    def __enter__(self) -> Meter:
        if not self._shown:
            # `signal` makes enumerations of all its numbers, which takes longer than most commands.
            from _signal import SIGUSR1, signal  # type: ignore[import-not-found]

            signal(SIGUSR1, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            console.write("\n")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def watch(self, done: int, total: int) -> None:
        """Note that `done` of `total` are done, in any unit."""
        self.percent(100 * done / total if total else 100)

    def percent(self, value: float) -> None:
        """Note a percentage."""
        self._now = min(value, 100.0)
        moved = abs(self._now - self._printed) > self._step
        if moved or self._now in (0.0, 100.0):
            self._printed = self._now
            self._print()
        elif self._asked:
            self._print()

    def _print(self) -> None:
        if self._shown:
            console.write(f"    ({self._now:.2f}/100%)\r")
            console.flush()
        elif self._asked:
            self._asked = False
            console.message(f"    ({self._now:.2f}/100%)\n")
