"""Copies as they are really made: large enough for threads, and real qemu-img judges them."""

import contextlib
import os
import random
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.oracle.image.ops.conftest import Qemu

from thinvirt.image.block import workers
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.qcow2 import Qcow2Node
from thinvirt.image.block.qcow2.mapping import find_run
from thinvirt.image.formats.qcow2.entries import Kind, compressed_range
from thinvirt.image.ops import convert
from thinvirt.image.qemu_img.main import main

pytestmark = pytest.mark.oracle

SIZE = (24 << 20) + 512 * 37
KEY = ("--object", "secret,id=s,data=pass")


def thin(*words: str | Path) -> int:
    return main(["qemu-img", *map(str, words)])


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use several threads, however many processors there are; none may be left."""
    monkeypatch.setattr(workers, "processors", lambda: 3)
    with contextlib.suppress(ImportError):
        import numpy  # noqa: F401 - it has threads of its own
    before = len(os.listdir("/proc/self/task"))
    yield
    for _ in range(200):
        if len(os.listdir("/proc/self/task")) <= before:
            return
        time.sleep(0.01)
    raise AssertionError("a thread is left")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a raw image with text, noise, zeroes and holes, nothing on a round offset."""
    rng = random.Random(7)
    words = [rng.randbytes(rng.randrange(2, 9)) for _ in range(400)]
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    with path.open("wb") as file:
        while file.tell() < SIZE - (2 << 20):
            length = rng.choice([512, 4096, 70_000, 600_000])
            kind = rng.choice(["text", "text", "noise", "zeroes", "hole"])
            if kind == "hole":
                file.seek(length, 1)
            elif kind == "zeroes":
                file.write(bytes(length))
            elif kind == "noise":
                file.write(rng.randbytes(length))
            else:
                file.write(b" ".join(rng.choices(words, k=length // 4))[:length])
        file.truncate(SIZE)
    return path


@pytest.mark.parametrize("effort", ["fast", "small", "qemu"])
@pytest.mark.parametrize(
    "options",
    ["", "cluster_size=512", "cluster_size=2M", "compression_type=zstd", "extended_l2=on"],
)
def test_compressed_images_are_sound(
    disk: Path,
    tmp_path: Path,
    qemu: Qemu,
    monkeypatch: pytest.MonkeyPatch,
    effort: str,
    options: str,
) -> None:
    if effort != "fast" and "512" in options:
        pytest.skip("slow, and nothing new")
    monkeypatch.setenv("THIN_IMG_COMPRESSION", effort)
    image = tmp_path / "image"
    made = ["-o", options] if options else []
    assert thin("convert", "-c", "-f", "raw", "-O", "qcow2", *made, disk, image) == 0
    qemu.img("check", str(image))
    qemu.img("compare", "-f", "raw", "-F", "qcow2", str(disk), str(image))
    if "zstd" not in options:
        assert strictly_read(image) > 5
    back = tmp_path / "back"
    assert thin("convert", "-f", "qcow2", "-O", "raw", image, back) == 0
    assert back.read_bytes() == disk.read_bytes()


def strictly_read(image: Path) -> int:
    """Return how many compressed clusters there are; each must do with a window of 4 KiB."""
    count = 0
    with BlockGraph().open_root(str(image), {"driver": "qcow2"}) as root:
        node = root.node
        assert isinstance(node, Qcow2Node)
        for offset in range(0, node.size, node.cluster_size):
            kind, _, entry = find_run(node, offset, node.cluster_size)
            if kind != Kind.COMPRESSED:
                continue
            packed = node.file.read(*compressed_range(entry, node.cluster_bits))
            stream, total = zlib.decompressobj(-12), 0
            while not stream.eof and packed:
                total += len(stream.decompress(packed, 300))
                packed = stream.unconsumed_tail
            while more := stream.decompress(b"", 300):
                total += len(more)
            assert total == node.cluster_size
            count += 1
    return count


@pytest.mark.parametrize("options", ["compression_type=zlib", "compression_type=zstd"])
def test_threads_do_not_change_a_byte(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    images = []
    for number in (1, 2, 16):
        monkeypatch.setattr(workers, "processors", lambda number=number: number)
        images.append(tmp_path / f"image{number}")
        words = ["convert", "-c", "-m", str(number), "-O", "qcow2", "-o", options]
        assert thin(*words, "-f", "raw", disk, images[-1]) == 0
    assert images[0].read_bytes() == images[1].read_bytes() == images[2].read_bytes()


def test_effort_qemu_makes_the_image_that_qemu_makes(
    disk: Path, tmp_path: Path, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THIN_IMG_COMPRESSION", "qemu")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    words = ("convert", "-c", "-f", "raw", "-O", "qcow2", str(disk))
    assert thin(*words, ours) == 0
    qemu.img(*words, str(theirs))
    assert ours.read_bytes() == theirs.read_bytes()


def test_an_effort_that_there_is_not(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THIN_IMG_COMPRESSION", "best")
    assert thin("convert", "-c", "-O", "qcow2", "-f", "raw", disk, tmp_path / "image") == 1
    assert "THIN_IMG_COMPRESSION is one of fast, small, qemu, not 'best'" in capfd.readouterr().err


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_reads_what_qemu_compressed(
    disk: Path, tmp_path: Path, qemu: Qemu, compression: str
) -> None:
    packed, back = tmp_path / "packed", tmp_path / "back"
    options = ("-o", f"compression_type={compression}")
    qemu.img("convert", "-c", "-f", "raw", "-O", "qcow2", *options, str(disk), str(packed))
    for words in ((), ("-m1",), ("-W", "-m16"), ("-S0",)):
        assert thin("convert", *words, "-f", "qcow2", "-O", "raw", packed, back) == 0
        assert back.read_bytes() == disk.read_bytes()
        back.unlink()


@pytest.mark.parametrize("options", ["cluster_size=4k", "extended_l2=on", "cluster_size=2M"])
@pytest.mark.parametrize("target", ["raw", "qcow2"])
def test_reads_compressed_and_plain_clusters_in_any_order(
    disk: Path, tmp_path: Path, qemu: Qemu, options: str, target: str
) -> None:
    packed, back, theirs = tmp_path / "packed", tmp_path / "back", tmp_path / "theirs"
    how = ("-c", "-W", "-m", "8", "-f", "raw", "-O", "qcow2", "-o", options)
    qemu.img("convert", *how, str(disk), str(packed))
    for offset in range(1 << 20, 20 << 20, 3_000_000 // 4096 * 4096):
        qemu.io(packed, f"write -P 7 {offset} 12k", f"write -z {offset + (400 << 10)} 64k")
    assert thin("convert", "-f", "qcow2", "-O", target, packed, back) == 0
    qemu.img("convert", "-f", "qcow2", "-O", target, str(packed), str(theirs))
    qemu.img("compare", str(packed), str(back))
    assert qemu.img("map", "--output=json", str(back)) == qemu.img(
        "map", "--output=json", str(theirs)
    )


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
@pytest.mark.parametrize("number", [0, 3, 60])
def test_a_damaged_cluster_stops_both_at_the_same_place(
    disk: Path,
    tmp_path: Path,
    qemu: Qemu,
    capfd: pytest.CaptureFixture[str],
    compression: str,
    number: int,
) -> None:
    packed, back = tmp_path / "packed", tmp_path / "back"
    options = ("-o", f"compression_type={compression}")
    qemu.img("convert", "-c", "-f", "raw", "-O", "qcow2", *options, str(disk), str(packed))
    found = []
    with BlockGraph().open_root(str(packed), {"driver": "qcow2"}) as root:
        node = root.node
        assert isinstance(node, Qcow2Node)
        for offset in range(0, node.size, node.cluster_size):
            kind, _, entry = find_run(node, offset, node.cluster_size)
            if kind == Kind.COMPRESSED:
                found.append(compressed_range(entry, node.cluster_bits))
    with packed.open("r+b") as file:
        file.seek(found[number][0])
        file.write(b"\xff" * 64)
    words: tuple[str, ...] = ("convert", "-f", "qcow2", "-O", "raw", str(packed), str(back))
    theirs = error_of(*words, "-m1")
    capfd.readouterr()
    for more in ((), ("-m1",)):
        assert thin(*words, *more) == 1
        assert capfd.readouterr().err == theirs
    # Compressing anew, the place told is that of the cluster.
    words = ("convert", "-c", "-f", "qcow2", "-O", "qcow2", str(packed), str(back))
    theirs = error_of(*words, "-m1")
    for more in ((), ("-m1",)):
        assert thin(*words, *more) == 1
        assert capfd.readouterr().err == theirs


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("source", ["raw", "qcow2"])
def test_who_cancels_is_obeyed(disk: Path, tmp_path: Path, source: str, compressed: bool) -> None:
    class Enough(Exception):
        pass

    def watch(done: int, total: int) -> None:
        if done > total // 3:
            raise Enough

    image, target = disk, tmp_path / "target"
    if source == "qcow2":
        image = tmp_path / "source"
        assert thin("convert", "-c", "-f", "raw", "-O", "qcow2", disk, image) == 0
    assert thin("create", "-q", "-f", "qcow2", target, str(SIZE)) == 0
    flags = convert_flags()
    graph = BlockGraph()
    with (
        graph.open_root(str(image), {"driver": source}) as opened,
        graph.open_root(str(target), {"driver": "qcow2"}, flags) as new,
    ):
        copy = convert.Conversion(
            [opened], new, is_new=True, compressed=compressed, watch=watch, count_first=True
        )
        assert copy.threads > 1
        with pytest.raises(Enough):
            copy.run()
        assert graph.workers is None
    assert thin("check", "-q", target) == 0


def error_of(*words: str) -> str:
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr


def convert_flags() -> int:
    from thinvirt.image.block.flags import Open

    return Open.RDWR | Open.UNMAP


@pytest.mark.parametrize("options", ["", "cluster_size=4k", "extended_l2=on", "data_file=data"])
def test_the_host_copies_into_qcow2(disk: Path, tmp_path: Path, qemu: Qemu, options: str) -> None:
    options = options.replace("=data", f"={tmp_path}/data")
    image, back = tmp_path / "image", tmp_path / "back"
    made = ["-o", options] if options else []
    assert thin("convert", "-C", "-f", "raw", "-O", "qcow2", *made, disk, image) == 0
    qemu.img("check", str(image))
    qemu.img("compare", "-f", "raw", "-F", "qcow2", str(disk), str(image))
    assert thin("convert", "-C", "-f", "qcow2", "-O", "raw", image, back) == 0
    assert back.read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("source", ["raw", "qcow2"])
@pytest.mark.parametrize("target", ["raw", "qcow2"])
def test_plain_copies_are_laid_out_as_qemu_s(
    disk: Path, tmp_path: Path, qemu: Qemu, source: str, target: str
) -> None:
    image, ours, theirs = disk, tmp_path / "ours", tmp_path / "theirs"
    if source == "qcow2":
        image = tmp_path / "source"
        qemu.img("convert", "-f", "raw", "-O", "qcow2", str(disk), str(image))
    words = ("convert", "-f", source, "-O", target, str(image))
    assert thin(*words, ours) == 0
    qemu.img(*words, str(theirs))
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.stat().st_blocks <= theirs.stat().st_blocks


@pytest.mark.parametrize(
    "encryption", ["encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "luks"]
)
def test_encrypted_copies(
    disk: Path, tmp_path: Path, qemu: Qemu, monkeypatch: pytest.MonkeyPatch, encryption: str
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setattr("thinvirt.image.crypto.ciphers._WIDE_FROM", 1 << 20)
    image, back = tmp_path / "image", tmp_path / "back"
    target, options = "qcow2", encryption
    opened = f"driver=qcow2,file.filename={image},encrypt.key-secret=s"
    if encryption == "luks":
        target, options = "luks", "key-secret=s,iter-time=10"
        opened = f"driver=luks,file.filename={image},key-secret=s"
    words = ("convert", *KEY, "-f", "raw", "-O", target, "-o", options)
    assert thin(*words, disk, image) == 0
    compared = ("--image-opts", f"driver=raw,file.filename={disk}", opened)
    qemu.img("compare", *KEY, *compared)
    assert thin("convert", *KEY, "--image-opts", "-O", "raw", opened, back) == 0
    assert back.read_bytes() == disk.read_bytes()
