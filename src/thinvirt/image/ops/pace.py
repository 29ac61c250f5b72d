"""Hold an operation to a number of bytes a second."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def pacer(rate: int) -> Callable[[int], None] | None:
    """Return what is told of bytes written and waits; None for a rate of 0."""
    if not rate:
        return None
    begun = time.monotonic()
    written = 0

    def wait(amount: int) -> None:
        nonlocal written
        written += amount
        ahead = written / rate - (time.monotonic() - begun)
        if ahead > 0:
            time.sleep(ahead)

    return wait
