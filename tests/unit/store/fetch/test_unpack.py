"""Compressed images: every kind, damaged, cut short, and larger than anybody wants."""

import bz2
import gzip
import lzma
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from thinvirt.errors import CorruptImage, HostileImage, NoSpace, ProgramMissing
from thinvirt.progress import Silent
from thinvirt.store.fetch import download
from thinvirt.store.fetch.unpack import compression_of, unpack

DATA = b"start" + bytes(4 << 20) + random.Random(2).randbytes(1 << 20) + bytes(2 << 20)


def _zstd(data: bytes) -> bytes:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lzma.compress,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "zstd": _zstd,
}


@pytest.mark.parametrize("kind", PACKERS)
def test_round_trip_with_holes(tmp_path: Path, kind: str) -> None:
    packed, target = tmp_path / "packed", tmp_path / "target"
    packed.write_bytes(PACKERS[kind](DATA))
    assert compression_of(packed) == kind
    unpack(packed, target, Silent())
    assert target.read_bytes() == DATA
    assert target.stat().st_blocks * 512 <= 3 << 20, "zeros become holes"


@pytest.mark.parametrize("kind", PACKERS)
def test_damage_and_missing_ends_are_told(tmp_path: Path, kind: str) -> None:
    packed, target = tmp_path / "packed", tmp_path / "target"
    good = PACKERS[kind](DATA)
    broken = bytearray(good)
    broken[len(good) // 2] ^= 0xFF
    for bad in (good[: len(good) // 2], bytes(broken)):
        packed.write_bytes(bad)
        with pytest.raises(CorruptImage, match=f"the {kind} data is damaged"):
            unpack(packed, target, Silent())
        assert not target.exists()


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_is_stopped(tmp_path: Path, kind: str) -> None:
    packed, target = tmp_path / "packed", tmp_path / "target"
    packed.write_bytes(PACKERS[kind](bytes(64 << 20)))
    assert packed.stat().st_size < 1 << 20
    with pytest.raises(HostileImage, match="more than 16 MiB"):
        unpack(packed, target, Silent(), limit=16 << 20)
    assert not target.exists()


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RESERVE", 1 << 60)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(DATA))
    with pytest.raises(NoSpace, match="are free"):
        unpack(packed, tmp_path / "target", Silent())
    assert not (tmp_path / "target").exists()


def test_zstd_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(_zstd(DATA))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramMissing, match="zstd"):
        unpack(packed, tmp_path / "target", Silent())


@pytest.mark.parametrize("data", [b"", b"QFI\xfb", b"B", bytes(512)])
def test_an_image_is_not_taken_for_compressed(tmp_path: Path, data: bytes) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(data)
    assert compression_of(plain) == ""
