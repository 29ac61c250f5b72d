"""Rates shared by all nodes of a group: leaky buckets, as QEMU's ``--object throttle-group``."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.options import flatten
from thinvirt.image.block.schema import Option, OptionList, OptionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thinvirt.image.block.options import Value
    from thinvirt.image.block.schema import Values

_KINDS = ("bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write")
_LARGEST = 1_000_000_000_000_000
_NANOSECONDS = 1e9

LIMITS = OptionList(
    "throttle-group",
    [
        *(Option(kind, OptionType.NUMBER, "average rate") for kind in _KINDS),
        *(Option(f"{kind}-max", OptionType.NUMBER, "rate in a burst") for kind in _KINDS),
        *(
            Option(f"{kind}-max-length", OptionType.NUMBER, "seconds a burst may last")
            for kind in _KINDS
        ),
        Option("iops-size", OptionType.NUMBER, "bytes that count as one operation"),
    ],
)


class _Bucket:
    """One rate: it fills with what is done and leaks at the rate allowed."""

    __slots__ = ("average", "burst_length", "burst_level", "burst_rate", "level")

    def __init__(self, average: int, burst_rate: int, burst_length: int) -> None:
        self.average = average
        self.burst_rate = burst_rate
        self.burst_length = burst_length
        self.level = 0.0
        self.burst_level = 0.0

    def leak(self, elapsed_ns: int) -> None:
        seconds = elapsed_ns / _NANOSECONDS
        self.level = max(self.level - self.average * seconds, 0)
        if self.burst_length > 1:
            self.burst_level = max(self.burst_level - self.burst_rate * seconds, 0)

    def fill(self, amount: float) -> None:
        self.level += amount
        if self.burst_length > 1:
            self.burst_level += amount

    def wait_ns(self) -> int:
        """Return how long it takes until there is room again."""
        if not self.average:
            return 0
        if not self.burst_rate:
            room, burst_room = self.average / 10, 0.0  # short bursts are always possible
        else:
            room, burst_room = float(self.burst_rate * self.burst_length), self.burst_rate / 10
        excess = self.level - room
        if excess > 0:
            return int(excess * _NANOSECONDS / self.average)
        excess = self.burst_level - burst_room
        if self.burst_length > 1 and excess > 0:
            return int(excess * _NANOSECONDS / self.burst_rate)
        return 0


class ThrottleGroup:
    """A group of nodes that share rates.

    Args:
        properties: as given with ``--object``: ``x-bps-total`` or ``limits.bps-total``, ….
        now_ns: a clock in nanoseconds; the default is the monotonic one.
        sleep: waits so many seconds.

    Raises:
        BlockError: rates that contradict each other.
    """

    def __init__(
        self,
        properties: Mapping[str, Value],
        *,
        now_ns: Callable[[], int] | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        import time

        self._now_ns = now_ns or time.monotonic_ns
        self._sleep = sleep or time.sleep
        tree = {
            name.removeprefix("limits.").removeprefix("x-"): value
            for name, value in flatten(properties).items()
            if name not in ("id", "qom-type")
        }
        values = LIMITS.absorb(tree)
        for name in tree:
            raise BlockError(f"Invalid parameter '{name}'")
        self._buckets = {kind: _bucket(values, kind) for kind in _KINDS}
        self._operation_size = values.size("iops-size")
        self._check()
        self._last_ns = self._now_ns()

    def _check(self) -> None:
        for what in ("bps", "iops"):
            total, *parts = (self._buckets[f"{what}-{of}"] for of in ("total", "read", "write"))
            if (total.average and any(part.average for part in parts)) or (
                total.burst_rate and any(part.burst_rate for part in parts)
            ):
                raise BlockError(
                    "bps/iops/max total values and read/write values cannot be used at the same "
                    "time"
                )
        if self._operation_size and not any(
            bucket.average for kind, bucket in self._buckets.items() if kind.startswith("iops")
        ):
            raise BlockError("iops size requires an iops value to be set")
        for bucket in self._buckets.values():
            _check_bucket(bucket)

    def account(self, length: int, *, is_write: bool) -> None:
        """Wait until a request may go, and count it."""
        direction = "write" if is_write else "read"
        mine = [
            (f"{what}-{which}", amount)
            for what, amount in (("bps", float(length)), ("iops", self._operations(length)))
            for which in ("total", direction)
        ]
        while wait := self._wait_ns(kind for kind, _ in mine):
            self._sleep(wait / _NANOSECONDS)
        for kind, amount in mine:
            self._buckets[kind].fill(amount)

    def _wait_ns(self, kinds: Iterable[str]) -> int:
        now = self._now_ns()
        for bucket in self._buckets.values():
            bucket.leak(now - self._last_ns)
        self._last_ns = now
        return max(self._buckets[kind].wait_ns() for kind in kinds)

    def _operations(self, length: int) -> float:
        size = self._operation_size
        return length / size if size and length > size else 1.0


if TYPE_CHECKING:
    from collections.abc import Iterable


def _bucket(values: Values, kind: str) -> _Bucket:
    return _Bucket(
        values.size(kind), values.size(f"{kind}-max"), values.size(f"{kind}-max-length", 1)
    )


def _check_bucket(bucket: _Bucket) -> None:
    if bucket.average > _LARGEST or bucket.burst_rate > _LARGEST:
        raise BlockError(f"bps/iops/max values must be within [0, {_LARGEST}]")
    if not bucket.burst_length:
        raise BlockError("the burst length cannot be 0")
    if bucket.burst_length > 1 and not bucket.burst_rate:
        raise BlockError("burst length set without burst rate")
    if bucket.burst_rate and bucket.burst_length > _LARGEST // bucket.burst_rate:
        raise BlockError("burst length too high for this burst rate")
    if bucket.burst_rate and not bucket.average:
        raise BlockError("bps_max/iops_max require corresponding bps/iops values")
    if bucket.burst_rate and bucket.burst_rate < bucket.average:
        raise BlockError("bps_max/iops_max cannot be lower than bps/iops")
