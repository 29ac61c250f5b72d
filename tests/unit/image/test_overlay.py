"""Overlays as files: exclusive, all or nothing, twelve kilobytes."""

import errno
import os
from pathlib import Path

import pytest

from thinvirt.errors import Conflict, NoSpace, NotFound, UsageError
from thinvirt.image.ops import overlay
from thinvirt.image.ops.overlay import OverlayOptions, create_overlay, create_overlays
from thinvirt.progress import Silent

OPTIONS = OverlayOptions(
    virtual_size=10 << 30, backing_name="../base.qcow2", backing_format="qcow2"
)


class Cancelled(Exception):
    pass


class Watcher(Silent):
    def __init__(self, cancel_after: int = 1 << 60) -> None:
        self.total: int | None = None
        self.done = 0
        self.cancel_after = cancel_after

    def step(self, title: str, total: int | None = None, unit: str = "") -> None:
        self.total = total

    def advance(self, amount: int) -> None:
        self.done += amount
        if self.done >= self.cancel_after:
            raise Cancelled


def test_an_overlay_is_three_blocks_and_a_hole(tmp_path: Path) -> None:
    create_overlay(tmp_path / "a.qcow2", OPTIONS)
    status = (tmp_path / "a.qcow2").stat()
    assert status.st_size == 3 * 65536 + 40 * 8
    assert status.st_blocks * 512 <= 12 * 1024


def test_a_batch_is_complete_and_reported(tmp_path: Path) -> None:
    names = [f"{i}.qcow2" for i in range(600)]
    watcher = Watcher()
    create_overlays(tmp_path / "batch", names, OPTIONS, progress=watcher)
    assert sorted(os.listdir(tmp_path / "batch")) == sorted(names)
    assert (watcher.total, watcher.done) == (600, 600)
    assert len({p.read_bytes() for p in (tmp_path / "batch").iterdir()}) == 1


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    path.write_bytes(b"precious")
    with pytest.raises(Conflict):
        create_overlay(path, OPTIONS)
    assert path.read_bytes() == b"precious"


def test_a_batch_onto_an_existing_name_leaves_only_that(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"precious")
    with pytest.raises(Conflict, match="File exists"):
        create_overlays(tmp_path, ["a", "b", "c", "d"], OPTIONS)
    assert os.listdir(tmp_path) == ["c"]
    assert (tmp_path / "c").read_bytes() == b"precious"


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        create_overlay(tmp_path / "a", OPTIONS)
    assert not (tmp_path / "elsewhere").exists()


def test_cancelling_removes_the_batch(tmp_path: Path) -> None:
    names = [str(i) for i in range(300)]
    with pytest.raises(Cancelled):
        create_overlays(tmp_path / "batch", names, OPTIONS, progress=Watcher(cancel_after=100))
    assert not (tmp_path / "batch").exists()


def test_a_full_disk_removes_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def failing(fd: int, data: bytes, offset: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 500:
            raise OSError(errno.ENOSPC, "full")
        os.pwrite(fd, data, offset)

    monkeypatch.setattr(overlay, "write_fully", failing)
    with pytest.raises(NoSpace):
        create_overlays(tmp_path / "batch", [str(i) for i in range(300)], OPTIONS)
    assert not (tmp_path / "batch").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        create_overlay(tmp_path / "nowhere" / "a", OPTIONS)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0b"])
def test_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        create_overlays(tmp_path / "batch", ["ok", name], OPTIONS)
    assert not (tmp_path / "batch").exists()


def test_a_name_given_twice(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="'b' is given twice"):
        create_overlays(tmp_path / "batch", ["a", "b", "b"], OPTIONS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("virtual_size", 0),
        ("virtual_size", -512),
        ("virtual_size", 1 << 63),
        ("backing_name", ""),
        ("backing_name", "a" * 1024),
        ("backing_name", "nbd:unix:/tmp/x"),
        ("backing_name", 'json:{"driver":"null-co"}'),
        ("backing_format", ""),
        ("backing_format", "vmdk"),
        ("cluster_size", 1000),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, field: str, value: str | int) -> None:
    values = {"virtual_size": 1 << 20, "backing_name": "b", "backing_format": "raw", field: value}
    with pytest.raises(UsageError):
        create_overlay(tmp_path / "a", OverlayOptions(**values))  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()
