"""Rates, by a clock of our own."""

import pytest

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.throttle_group import ThrottleGroup

SECOND = 1_000_000_000


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * SECOND) + 1


def group(clock: Clock, **limits: int) -> ThrottleGroup:
    properties = {f"x-{name.replace('_', '-')}": value for name, value in limits.items()}
    return ThrottleGroup(properties, now_ns=clock, sleep=clock.sleep)


def test_an_average_is_kept() -> None:
    clock = Clock()
    rates = group(clock, bps_total=1_000_000)
    for _ in range(100):
        rates.account(100_000, is_write=True)
    assert clock.now == pytest.approx(9.8 * SECOND, rel=0.02)


def test_operations_count_by_size() -> None:
    clock = Clock()
    rates = group(clock, iops_read=10, iops_size=4096)
    for _ in range(10):
        rates.account(8192, is_write=False)
    assert clock.now == pytest.approx(1.7 * SECOND, rel=0.1)
    before = clock.now
    rates.account(1 << 20, is_write=True)  # writes are free
    assert clock.now == before


def test_bursts_are_allowed_for_their_time() -> None:
    clock = Clock()
    rates = group(clock, iops_total=10, iops_total_max=100, iops_total_max_length=2)
    for _ in range(200):
        rates.account(512, is_write=False)
    assert clock.now < 2.1 * SECOND
    for _ in range(60):
        rates.account(512, is_write=False)
    assert clock.now > 4 * SECOND


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"bps_total": 1, "bps_read": 1}, "cannot be used at the same time"),
        ({"iops_size": 1}, "iops size requires an iops value to be set"),
        ({"bps_total_max": 1}, "require corresponding"),
        ({"bps_total": 2, "bps_total_max": 1}, "cannot be lower"),
        ({"bps_total": 1, "bps_total_max_length": 2}, "burst length set without burst rate"),
        ({"bps_total": 10**16}, "must be within"),
        ({"nope": 1}, "Invalid parameter 'nope'"),
    ],
)
def test_contradictions_are_refused(limits: dict[str, int], message: str) -> None:
    with pytest.raises(BlockError, match=message):
        group(Clock(), **limits)


def test_a_node_uses_its_group() -> None:
    clock = Clock()
    graph = BlockGraph({("throttle-group", "g"): group(clock, iops_total=10)})
    options = {"driver": "throttle", "throttle-group": "g", "file.driver": "null-co"}
    with graph.open_root(None, options) as image:
        for _ in range(11):
            image.read(0, 512)
    assert clock.now > 0.8 * SECOND
    for wrong, message in (
        ({"throttle-group": "x"}, "Throttle group 'x' does not exist"),
        ({"throttle-group": None}, "Please specify a throttle group"),
    ):
        with pytest.raises(BlockError, match=message):
            graph.open_root(None, {**options, **wrong})
