"""A copy has the source's bytes, its digest, and no fewer holes; whatever the pattern."""

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinvirt.errors import Conflict, ImageError, NoSpace, NotFound
from thinvirt.image.ops import copy
from thinvirt.image.ops.copy import copy_sparse, file_sha256
from thinvirt.progress import Silent

PIECES = st.lists(
    st.tuples(
        st.sampled_from(["data", "zeros", "hole"]),
        st.one_of(st.integers(1, 9000), st.sampled_from([4096, 65536, 1 << 20, 3 << 20])),
    ),
    min_size=1,
    max_size=8,
)


def write_pieces(path: Path, pieces: list[tuple[str, int]]) -> None:
    with path.open("wb") as file:
        at = 0
        for kind, length in pieces:
            if kind == "data":
                os.pwrite(file.fileno(), os.urandom(length), at)
            elif kind == "zeros":
                os.pwrite(file.fileno(), bytes(length), at)
            at += length
        file.truncate(at)


@settings(max_examples=40)
@given(PIECES, st.booleans())
def test_any_pattern_of_holes(pieces: list[tuple[str, int]], detect_zeroes: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "source"), Path(name, "target")
        write_pieces(source, pieces)
        result = copy_sparse(source, target, detect_zeroes=detect_zeroes)
        expected = hashlib.sha256(source.read_bytes()).hexdigest()
        assert target.read_bytes() == source.read_bytes()
        assert result.sha256 == expected == file_sha256(source)
        assert result.size == source.stat().st_size
        assert result.allocated_bytes == target.stat().st_blocks * 512
        assert target.stat().st_blocks <= source.stat().st_blocks + 16


def test_written_zeros_become_holes(tmp_path: Path) -> None:
    write_pieces(tmp_path / "a", [("zeros", 8 << 20), ("data", 4096), ("zeros", 8 << 20)])
    assert copy_sparse(tmp_path / "a", tmp_path / "b").allocated_bytes <= 64 << 10


def without(number: int) -> Callable[..., int]:
    def refused(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_tell_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write_pieces(tmp_path / "a", [("data", 5000), ("hole", 1 << 20), ("data", 5000)])
    monkeypatch.setattr(os, "lseek", without(number))
    copy_sparse(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOTTY, errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_reflinks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write_pieces(tmp_path / "a", [("data", 5000)])
    monkeypatch.setattr(fcntl, "ioctl", without(number))
    copy_sparse(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pieces(tmp_path / "a", [("data", 3 << 20)])
    monkeypatch.setattr(copy, "write_fully", without(errno.ENOSPC))
    with pytest.raises(NoSpace, match="b"):
        copy_sparse(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"]


def test_an_existing_target_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"precious")
    with pytest.raises(Conflict):
        copy_sparse(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"precious"


def test_a_source_that_changes_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "a"
    write_pieces(source, [("data", 3 << 20)])

    class Writer(Silent):
        def advance(self, amount: int) -> None:
            with source.open("r+b") as file:
                file.write(os.urandom(8))

    with pytest.raises(Conflict, match="somebody wrote"):
        copy_sparse(source, tmp_path / "b", progress=Writer())
    assert os.listdir(tmp_path) == ["a"]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(ImageError, match="not a regular file"):
            copy_sparse(tmp_path / name, tmp_path / "b")
    with pytest.raises(NotFound):
        copy_sparse(tmp_path / "none", tmp_path / "b")
    assert not (tmp_path / "b").exists()
