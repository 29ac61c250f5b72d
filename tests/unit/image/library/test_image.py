"""An opened image as a Python programmer holds it."""

import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

import thinvirt.image
from thinvirt.errors import Busy, NotFound, ThinvirtError, UsageError
from thinvirt.image import BlockError, Extent, Image, ImageFile, create, info, open_image

SIZE = 1 << 20
CLUSTER = 65536
PASSWORD = {"key": "open sesame"}
ENCRYPTED: dict[str, str | int] = {
    "encrypt.format": "luks",
    "encrypt.key-secret": "key",
    "encrypt.iter-time": 10,
}


FOREIGN = (
    *("pycdlib", "rich", "urllib3", "numpy", "cryptography", "asyncio", "subprocess"),
    *(f"thinvirt.{room}" for room in ("cli", "store", "vm", "run", "build", "service")),
)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    create(path, SIZE)
    return path


def test_everything_named_is_there() -> None:
    for name in thinvirt.image.__all__:
        assert getattr(thinvirt.image, name) is not None
    assert set(thinvirt.image.__all__) <= set(dir(thinvirt.image))
    with pytest.raises(AttributeError, match="no attribute 'sausage'"):
        _ = thinvirt.image.sausage  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import thinvirt.image", ("thinvirt.image.", "typing", "dataclasses")),
        (
            "from thinvirt.image import open_image, create, convert, check, ImageFile",
            FOREIGN,
        ),
    ],
)
def test_imports_no_more_than_is_used(code: str, absent: tuple[str, ...]) -> None:
    source = f"{code}\nimport sys\nprint(*sys.modules)"
    loaded = subprocess.run(
        (sys.executable, "-S", "-c", source),
        env={"PYTHONPATH": str(Path(thinvirt.image.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "thinvirt.image" in loaded
    assert [name for name in loaded if name.startswith(absent)] == []


def test_reads_what_was_written(disk: Path) -> None:
    with open_image(disk, writable=True) as image:
        image.write(1000, b"guest data")
        image.write(CLUSTER, memoryview(b"x" * CLUSTER))
        image.write_zeroes(CLUSTER + 512, 512)
        image.discard(CLUSTER * 3, CLUSTER)
        image.flush()
        assert (image.size, image.format, image.cluster_size) == (SIZE, "qcow2", CLUSTER)
    with open_image(disk) as image:
        assert image.read(1000, 10) == b"guest data"
        buffer = bytearray(514)
        image.read_into(CLUSTER + 511, buffer)
        assert buffer == b"x" + bytes(512) + b"x"
        assert image.info().virtual_size == SIZE
        assert repr(image) == f"<Image {disk}, read-only>"


def test_extents_say_kind_and_layer(disk: Path, tmp_path: Path) -> None:
    with open_image(disk, writable=True) as image:
        image.write(CLUSTER, b"b" * CLUSTER)
        image.write_zeroes(2 * CLUSTER, CLUSTER)
    top = tmp_path / "top.qcow2"
    create(top, backing="disk.qcow2", backing_format="qcow2")
    with open_image(top, writable=True) as image:
        image.write(0, b"t" * CLUSTER)
        found = list(image.extents())
        assert [layer.filename for layer in image.backing_chain] == [str(top), str(disk)]
        offset = found[1].offset
        assert offset is not None
        assert list(image.extents(CLUSTER + 512, CLUSTER + 1024)) == [
            Extent(CLUSTER + 512, 512, "data", 1, str(disk), offset + 512)
        ]
    assert [(e.start, e.length, e.kind, e.depth) for e in found] == [
        (0, CLUSTER, "data", 0),
        (CLUSTER, CLUSTER, "data", 1),
        (2 * CLUSTER, CLUSTER, "zero", 1),
        (3 * CLUSTER, SIZE - 3 * CLUSTER, "unallocated", 1),
    ]
    assert found[0].filename == str(top)
    assert found[-1].end == SIZE
    with open_image(top, backing=False) as image:
        assert image.read(CLUSTER, CLUSTER) == bytes(CLUSTER)


def test_a_path_is_a_file_whatever_it_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    create(Path("nbd:disk"), SIZE)
    assert (tmp_path / "nbd:disk").exists()
    with open_image(Path("nbd:disk"), format="qcow2") as image:
        assert image.format == "qcow2"


def test_a_tree_of_options_names_an_image(tmp_path: Path) -> None:
    path = tmp_path / "secret.qcow2"
    create(path, SIZE, options=ENCRYPTED, secrets=PASSWORD)
    tree = {
        "driver": "qcow2",
        "encrypt.key-secret": "key",
        "file": {"driver": "file", "filename": str(path)},
    }
    with open_image(tree, writable=True, secrets=PASSWORD) as image:
        image.write(0, b"hidden")
    with open_image(tree, secrets=PASSWORD) as image:
        assert image.read(0, 6) == b"hidden"
    assert b"hidden" not in path.read_bytes()
    with pytest.raises(BlockError, match="Invalid password") as caught:
        open_image(tree, secrets={"key": "wrong"})
    assert caught.value.path == path


def test_errors_say_what_and_where(disk: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(NotFound) as not_found:
        open_image(missing)
    assert str(not_found.value) == f"Could not open '{missing}': No such file or directory"
    assert not_found.value.path == missing
    with open_image(disk) as image:
        for request in (
            lambda: image.write(0, b"x"),
            lambda: image.file(writable=True),
            lambda: image.read(SIZE, 1),
            lambda: image.read(-1, 1),
            lambda: image.read(0, -1),
            lambda: next(image.extents(0, SIZE + 1)),
            lambda: image.file(1, SIZE),
        ):
            with pytest.raises(UsageError) as caught:
                request()
            assert caught.value.path == disk
    with pytest.raises(ValueError, match="closed image"):
        image.read(0, 1)
    image.close()  # twice does no harm
    for arguments in ({"cache": "fast"}, {"snapshot": "s", "writable": True}):
        with pytest.raises(UsageError):
            open_image(disk, **arguments)
    with pytest.raises(UsageError):
        open_image("")


def test_two_writers_exclude_each_other(disk: Path) -> None:
    with open_image(disk, writable=True), pytest.raises(Busy) as caught:
        open_image(disk, writable=True)
    assert caught.value.path == disk
    open_image(disk, writable=True).close()  # an image that failed to open left no lock


class TestFile:
    def test_python_reads_an_archive_off_the_disk(self, disk: Path) -> None:
        with open_image(disk, writable=True) as image:
            part = image.file(CLUSTER, 4096)
            with zipfile.ZipFile(part, "w") as archive:
                archive.writestr("hello.txt", "hello")
            end = part.tell()
            file = image.file()
            file.write(b"buffered")
            assert image.read(0, 8) == bytes(8)
            image.flush()
            assert image.read(0, 8) == b"buffered"
        with open_image(disk) as image, zipfile.ZipFile(image.file(CLUSTER, end)) as archive:
            assert archive.read("hello.txt") == b"hello"

    def test_positions(self, disk: Path) -> None:
        with open_image(disk, writable=True) as image:
            image.write(SIZE - 3, b"end")
            file = image.file(512)
            assert file.name == str(disk)
            assert file.seek(-3, os.SEEK_END) == SIZE - 512 - 3
            assert file.read() == b"end"
            assert file.read() == b""
            file.seek(SIZE)
            assert file.read(1) == b""
            with pytest.raises(ValueError, match=r"before|negative"):
                file.seek(-1)

    def test_does_not_grow(self, disk: Path) -> None:
        with open_image(disk, writable=True) as image:
            with ImageFile(image, 0, 1024, writable=True) as file:
                assert file.write(b"x" * 2000) == 1024
                with pytest.raises(UsageError, match="after 1024 bytes"):
                    file.write(b"x")
            with pytest.raises(UsageError), image.file(0, 1024) as buffered:
                buffered.write(b"y" * 2000)
            assert image.read(0, 1025) == b"y" * 1024 + b"\0"

    def test_is_written_out_when_the_image_closes(self, disk: Path) -> None:
        image = open_image(disk, writable=True)
        file = image.file()
        file.write(b"late")
        image.close()
        assert file.closed
        with open_image(disk) as image:
            assert image.read(0, 4) == b"late"


def test_threads_share_an_image(disk: Path) -> None:
    trouble: list[BaseException] = []

    def work(image: Image, number: int) -> None:
        try:
            with image.file(number * CLUSTER, CLUSTER) as file:
                for at in range(0, CLUSTER, 8192):
                    image.write(number * CLUSTER + at, bytes([number]) * 8192)
                    file.seek(at)
                    assert file.read(8192) == bytes([number]) * 8192
                    image.flush()
        except BaseException as error:
            trouble.append(error)

    with open_image(disk, writable=True) as image:
        threads = [threading.Thread(target=work, args=(image, n)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert trouble == []
        for number in range(1, 5):
            assert image.read(number * CLUSTER, CLUSTER) == bytes([number]) * CLUSTER


def test_info_needs_no_key(tmp_path: Path) -> None:
    path = tmp_path / "secret.qcow2"
    create(path, SIZE, options=ENCRYPTED, secrets=PASSWORD)
    assert info(path).encrypted
    with pytest.raises(ThinvirtError, match="key-secret"):
        open_image(path)
