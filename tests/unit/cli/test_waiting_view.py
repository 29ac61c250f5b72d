"""How waiting is told: summaries, and what is said of VMs that did not come."""

from dataclasses import replace

import pytest

from thinvirt.cli.waiting_view import percentile, require_reached, stuck_text, summary
from thinvirt.errors import Timeout
from thinvirt.service.waiting import WaitResult


def result(name: str, elapsed_s: float, *, reached: bool = True, reason: str = "") -> WaitResult:
    return WaitResult(
        name=name,
        until="login",
        reached=reached,
        stage="login" if reached else "kernel",
        elapsed_s=elapsed_s,
        stages={},
        hostname=name if reached else None,
        last_lines=() if reached else tuple(f"line {number}" for number in range(10)),
        reason=reason,
    )


@pytest.mark.parametrize(
    ("values", "percent", "value"),
    [([1.0], 50, 1.0), ([1.0], 95, 1.0), ([1, 2, 3, 4], 50, 2), (list(range(1, 101)), 95, 95)],
)
def test_percentiles_are_values_that_were_seen(
    values: list[float], percent: int, value: float
) -> None:
    assert percentile(values, percent) == value


def test_summaries() -> None:
    late = result("c", 60, reached=False, reason="not within 60 s")
    assert summary([result("a", 5.04)]) == "1 of 1 at login, 5.0 s after its start"
    assert summary([result("a", 5), result("b", 7), late]) == (
        "2 of 3 at login; from start: p50 5.0 s, p95 7.0 s, longest 7.0 s"
    )
    assert summary([late]) == "0 of 1 at login"


def test_the_stuck_are_told_with_stage_and_last_lines(capsys: pytest.CaptureFixture[str]) -> None:
    late = [result(f"vm-{i}", 60, reached=False, reason="not within 60 s") for i in range(7)]
    assert stuck_text(late[0]).startswith(
        "vm-0: not within 60 s; stage kernel after 1 min 00 s, which usually waits for its root"
    )
    with pytest.raises(Timeout, match=r"7 of 8 did not come to its login prompt") as caught:
        require_reached([result("a", 5), *late])
    assert "--log vm-0" in caught.value.hint
    told = capsys.readouterr().err
    assert told.count("not within") == 5
    assert "    | line 9" in told
    assert "line 4" not in told
    assert "and 2 more" in told


def test_a_flood_on_the_console_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    late = replace(result("web", 60, reached=False, reason="late"), last_lines=("x" * 5000,))
    with pytest.raises(Timeout):
        require_reached([late])
    assert max(map(len, capsys.readouterr().err.splitlines())) < 250


def test_nothing_is_said_when_all_came(capsys: pytest.CaptureFixture[str]) -> None:
    require_reached([result("a", 5)])
    assert capsys.readouterr().err == ""
