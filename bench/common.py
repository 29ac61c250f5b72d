"""What the benchmarks share: interleaved rounds, and a ratio with its spread."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Minimum, median and maximum of one figure over the rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise the rounds."""
        return cls(min(values), statistics.median(values), max(values))

    def text(self, unit: str = "", digits: int = 3) -> str:
        """Return ``median unit (low to high)``."""
        low, median, high = (f"{v:.{digits}g}" for v in (self.low, self.median, self.high))
        return f"{median}{unit} ({low} to {high})"


def paired(
    ours: Callable[[], float], peers: Callable[[], float], rounds: int
) -> tuple[Spread, Spread, Spread]:
    """Run both in turn, `rounds` times, and return our figure, the peer's, and ours / peer's."""
    our_values: list[float] = []
    peer_values: list[float] = []
    for _ in range(rounds):
        our_values.append(ours())
        peer_values.append(peers())
    ratios = [a / b for a, b in zip(our_values, peer_values, strict=True)]
    return Spread.of(our_values), Spread.of(peer_values), Spread.of(ratios)
