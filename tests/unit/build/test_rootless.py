"""Owning a tree without being root: each way that this host offers."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from thinvirt.build.programs import ProgramFailed
from thinvirt.build.rootless import (
    Way,
    choose_way,
    follow_as_owner,
    remove_tree,
    run_as_owner,
)


@pytest.fixture
def way(tmp_path: Path) -> Way:
    return choose_way(tmp_path)


def test_trees_owner_may_give_files_away(tmp_path: Path, way: Way) -> None:
    script = f'echo x >{tmp_path}/f && chown 42:65534 {tmp_path}/f && stat -c "%u:%g" {tmp_path}/f'
    assert run_as_owner(way, "sh", "-c", script).strip() == "42:65534"
    assert run_as_owner(Way.PRETENCE, "sh", "-c", script).strip() == "42:65534"


def test_removes_what_others_own(tmp_path: Path, way: Way) -> None:
    tree = tmp_path / "tree"
    run_as_owner(
        way,
        "sh",
        "-c",
        f"mkdir -p {tree}/d && : >{tree}/d/f && chown -R 42:42 {tree}/d && chmod 700 {tree}/d",
    )
    remove_tree(way, tree)
    assert not tree.exists()
    remove_tree(way, tree)


def test_lines_come_from_both_streams_and_are_kept(tmp_path: Path, way: Way) -> None:
    log = tmp_path / "log"
    lines = follow_as_owner(
        way, "sh", "-c", "echo one; echo two >&2; umask", writable=tmp_path, log=log
    )
    assert list(lines) == ["one", "two", "0022"]
    assert log.read_text() == "one\ntwo\n0022\n"


def test_failure_carries_what_was_said(tmp_path: Path, way: Way) -> None:
    with pytest.raises(ProgramFailed, match="status 3: E: no") as caught:
        list(
            follow_as_owner(
                way,
                "sh",
                "-c",
                "echo I: begun; echo E: no; exit 3",
                writable=tmp_path,
                log=tmp_path / "log",
            )
        )
    assert "I: begun" in caught.value.output


def test_who_stops_listening_leaves_nothing_running(tmp_path: Path, way: Way) -> None:
    """As Ctrl-C in the middle of a build: what the program started ends too."""
    marker = f"31.41{os.getpid()}"
    lines = follow_as_owner(
        way, "sh", "-c", f"sleep {marker} & echo on; wait", writable=tmp_path, log=tmp_path / "log"
    )
    assert next(lines) == "on"
    lines.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while _running(f"sleep {marker}"):
        assert time.monotonic() < deadline, "still running"
        time.sleep(0.05)


def _running(words: str) -> bool:
    listing = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True)
    return any(words in line and not line.startswith("Z") for line in listing.stdout.splitlines())


def test_only_its_folder_can_be_written(tmp_path: Path, way: Way) -> None:
    """A build must not change the host, whatever is wrong in it and whoever runs it."""
    work, outside = tmp_path / "work", tmp_path / "outside"
    work.mkdir()
    script = f"touch {work}/here /var/lib/apt/there {outside} 2>/dev/null; cat /dev/null; echo done"
    lines = list(follow_as_owner(way, "sh", "-c", script, writable=work, log=tmp_path / "log"))
    assert lines[-1] == "done"
    assert (work / "here").exists()
    assert not Path("/var/lib/apt/there").exists()
    if way is Way.ROOT:
        assert not outside.exists()
