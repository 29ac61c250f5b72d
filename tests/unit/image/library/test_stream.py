"""An image as a file: what `io` promises of files holds."""

import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from thinvirt import image as ti
from thinvirt.errors import UsageError

SIZE = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ti.Image]:
    ti.create(tmp_path / "disk.qcow2", SIZE)
    with ti.open_image(tmp_path / "disk.qcow2", writable=True) as image:
        yield image


def test_it_is_a_file_of_pythons(disk: ti.Image) -> None:
    file = disk.file()
    assert isinstance(file, io.BufferedRandom)
    assert isinstance(file.raw, io.RawIOBase)
    assert (file.readable(), file.writable(), file.seekable()) == (True, True, True)
    assert not file.isatty()
    with pytest.raises(io.UnsupportedOperation):
        file.fileno()
    reader = disk.file(writable=False)
    assert isinstance(reader, io.BufferedReader)
    assert not reader.writable()
    with pytest.raises(io.UnsupportedOperation):
        reader.write(b"x")


def test_positions(disk: ti.Image) -> None:
    with disk.file() as file:
        assert file.seek(0, os.SEEK_END) == SIZE
        assert file.read() == b""
        assert file.seek(-4, os.SEEK_END) == SIZE - 4
        assert file.write(b"tail") == 4
        assert file.seek(-4, os.SEEK_CUR) == SIZE - 4
        assert file.read(100) == b"tail"
        assert file.seek(SIZE + 10) == SIZE + 10  # as in any file
        assert file.read(1) == b""
        with pytest.raises((ValueError, OSError)):
            file.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.raw.seek(0, 7)


def test_readinto_and_readall(disk: ti.Image) -> None:
    disk.write(100, b"0123456789")
    raw = ti.ImageFile(disk, 100, 10, writable=True)
    buffer = bytearray(b"." * 16)
    assert raw.readinto(buffer) == 10
    assert buffer == b"0123456789......"
    assert raw.readinto(buffer) == 0
    raw.seek(4)
    assert raw.readall() == b"456789"
    raw.seek(2)
    assert raw.read(3) == b"234"
    words = memoryview(bytearray(8)).cast("I")  # any buffer, counted in bytes
    raw.seek(0)
    assert raw.readinto(words) == 8
    assert words.tobytes() == b"01234567"


def test_nothing_is_written_past_the_end(disk: ti.Image) -> None:
    raw = ti.ImageFile(disk, 0, 8, writable=True)
    assert raw.write(b"0123456789") == 8  # short, as a full disk would be
    with pytest.raises(UsageError, match="ends here"):
        raw.write(b"x")
    assert disk.read(0, 10) == b"01234567\0\0"


def test_libraries_take_it(disk: ti.Image, tmp_path: Path) -> None:
    with zipfile.ZipFile(disk.file(0, 65536), "w") as archive:
        archive.writestr("a", "content")
    with zipfile.ZipFile(disk.file(0, 65536)) as archive:
        assert archive.read("a") == b"content"
    disk.write(4096, "zwei\nZeilen\n".encode("utf-16-le"))
    lines = io.TextIOWrapper(disk.file(4096, 24, writable=False), "utf-16-le").readlines()
    assert lines == ["zwei\n", "Zeilen\n"]
    with disk.file() as source, open(tmp_path / "copy", "wb") as copy:
        shutil.copyfileobj(source, copy)
    assert (tmp_path / "copy").read_bytes() == disk.read(0, SIZE)


def test_it_closes_with_the_image_and_not_the_other_way(disk: ti.Image) -> None:
    first, second = disk.file(), disk.file()
    first.write(b"buffered")
    first.close()
    assert disk.read(0, 8) == b"buffered"
    second.write(b"BUFFERED")
    disk.close()
    assert second.closed
    with pytest.raises(ValueError, match="closed"):
        second.read(1)
    with pytest.raises(ValueError, match="closed"):
        disk.file()
