"""``thinvirt template build`` as typed: what it refuses, and what it fetches."""

import json
from pathlib import Path

import pytest

from thinvirt.cli.main import main


@pytest.fixture(autouse=True)
def empty_home(home: Path) -> Path:
    return home


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["windows"], "there is no guest 'windows' to build"),
        (["tiny", "windows"], "there is no guest 'windows' to build"),
        (["--fetch-only", "windows"], "there is no guest 'windows' to build"),
        (["tiny", "debian", "--name", "one"], "--name names one template"),
        (["tiny", "--name", "../x"], "cannot name a template"),
        (["tiny", "--package", "nginx"], "takes no more packages"),
        ([], "GUEST"),
    ],
)
def test_refuses_a_wrong_request_before_anything_is_built(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["template", "build", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list((home / "templates").glob("*"))


def test_no_archive_and_nothing_cached_is_for_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["--fetch-only", "tiny", "--json", "--mirror", "file:/nonexistent/archive"]
    assert main(["template", "build", *words]) == 75
    error = json.loads(capsys.readouterr().err.splitlines()[-1])["error"]
    assert error["kind"] == "temporary"
    assert "--mirror" in error["hint"]


def test_what_is_cached_is_told_without_asking_anybody(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--fetch-only", "tiny", "--json", "--mirror", "file:/nonexistent/archive"]
    assert main(["template", "build", *words]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["name"] == "tiny"
    assert facts["packages"] > 15
    assert facts["size_bytes"] > 60_000_000
