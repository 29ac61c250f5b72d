"""Seconds as options take them."""

from pathlib import Path

import pytest

from thinvirt.cli.main import main

COMMANDS = (
    ("start", "web", "--wait", "--timeout"),
    ("stop", "web", "--timeout"),
    ("reboot", "web", "--timeout"),
    ("wait", "web", "--timeout"),
    ("clone", "tiny", "web", "--timeout"),
    ("console", "web", "--linger"),
    ("run", "tiny", "--timeout"),
    ("run", "tiny", "--stop-timeout"),
)


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e300", "3000000", "soon", ""])
def test_seconds_that_cannot_be_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], value: str
) -> None:
    status = main([*words[:-1], f"{words[-1]}={value}", "--store", str(tmp_path)])
    assert status == (78 if words[0] == "run" else 2)
    assert f"{words[-1]}: '{value}' is not possible" in capsys.readouterr().err
