"""Compressed clusters, with and without each optional library."""

import errno
import os
import random
import sys
import zlib
from collections.abc import Callable

import pytest

from thinvirt.image.block.abilities import Effort
from thinvirt.image.block.errors import BlockError, NotSupported
from thinvirt.image.block.qcow2 import codecs
from thinvirt.image.block.qcow2.header import ZLIB, ZSTD

SIZE = 64 << 10
LIBRARIES = ("isal", "zlib_ng", "deflate")
Block = Callable[..., None]


def strictly_unpacked(packed: bytes) -> bytes:
    """Inflate a little at a time: then matches farther back than the window are really lost."""
    stream = zlib.decompressobj(-12)
    parts = []
    while packed and not stream.eof:
        parts.append(stream.decompress(packed, 100))
        packed = stream.unconsumed_tail
    while not stream.eof and (more := stream.decompress(b"", 100)):
        parts.append(more)
    return b"".join(parts)


def contents() -> dict[str, bytes]:
    rng = random.Random(5)
    words = [rng.randbytes(rng.randrange(3, 12)) for _ in range(500)]
    page = rng.randbytes(5000)  # repeats just out of the window's reach
    return {
        "zeroes": bytes(SIZE),
        "words": b" ".join(rng.choices(words, k=20000))[:SIZE],
        "far": (page * 20)[:SIZE],
        "half": rng.randbytes(SIZE // 2) + bytes(SIZE // 2),
        "noise": rng.randbytes(SIZE),
    }


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> Block:
    """Return what makes libraries look as if they were not installed."""

    def apply(*names: str) -> None:
        for name in names:
            for module in [name, *(m for m in sys.modules if m.startswith(name + "."))]:
                monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setattr(codecs, "_packers", {})
        monkeypatch.setattr(codecs, "_unpackers", {})

    return apply


@pytest.mark.parametrize("missing", [(), *((name,) for name in LIBRARIES), LIBRARIES])
@pytest.mark.parametrize("effort", Effort.ALL)
def test_deflate_round_trip(block: Block, missing: tuple[str, ...], effort: str) -> None:
    block(*missing)
    for name, data in contents().items():
        packed = codecs.compress(data, ZLIB, effort)
        if packed is None:
            assert name in {"far", "noise"}  # nothing repeats within the window
            continue
        assert len(packed) < SIZE
        assert strictly_unpacked(packed) == data
        assert bytes(codecs.decompress(packed + os.urandom(300), SIZE, ZLIB)) == data
        assert codecs.compress(memoryview(data), ZLIB, effort) == packed


@pytest.mark.parametrize("effort", Effort.ALL)
def test_zstd_round_trip(block: Block, effort: str) -> None:
    block()
    for name, data in contents().items():
        packed = codecs.compress(data, ZSTD, effort)
        assert (packed is None) == (name == "noise")
        if packed is not None:
            assert bytes(codecs.decompress(packed + bytes(300), SIZE, ZSTD)) == data


def test_effort_small_is_no_larger_than_qemu(block: Block) -> None:
    block()
    data = contents()["words"]
    sizes = {effort: len(codecs.compress(data, ZLIB, effort) or data) for effort in Effort.ALL}
    assert sizes[Effort.SMALL] <= sizes[Effort.QEMU]
    packer = zlib.compressobj(6, zlib.DEFLATED, -12, 9)
    assert codecs.compress(data, ZLIB, Effort.QEMU) == packer.compress(data) + packer.flush()


@pytest.mark.parametrize("missing", [(), ("deflate",), ("deflate", "isal")])
def test_damage_is_an_input_output_error(block: Block, missing: tuple[str, ...]) -> None:
    block(*missing)
    data = contents()["words"]
    packed = codecs.compress(data, ZLIB)
    assert packed is not None
    for damaged in (b"", b"\xff" * 512, packed[: len(packed) // 2], bytes(512), b"\3\0"):
        with pytest.raises(BlockError) as caught:
            codecs.decompress(damaged, SIZE, ZLIB)
        assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("missing", [(), ("deflate",), ("deflate", "isal")])
def test_a_stream_that_goes_on_is_cut_as_qemu_cuts_it(
    block: Block, missing: tuple[str, ...]
) -> None:
    block(*missing)
    data = contents()["words"]
    longer = codecs.compress(data + data, ZLIB)
    assert longer is not None
    assert bytes(codecs.decompress(longer, SIZE, ZLIB)) == data


def test_damaged_zstd(block: Block) -> None:
    block()
    import zstandard

    data = contents()["words"]
    packed = codecs.compress(data, ZSTD)
    assert packed is not None
    boast = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 28))  # says it is 256 MiB
    for damaged in (b"", b"\xff" * 512, packed[: len(packed) // 2], b"\x28\xb5\x2f\xfd"):
        with pytest.raises(BlockError) as caught:
            codecs.decompress(damaged, SIZE, ZSTD)
        assert caught.value.errno == errno.EIO
    assert bytes(codecs.decompress(boast, SIZE, ZSTD)) == bytes(SIZE)


def test_zstd_in_two_frames_or_without_its_size(block: Block) -> None:
    block()
    import zstandard

    data = contents()["words"]
    packer = zstandard.ZstdCompressor()
    half = SIZE // 2
    frames = packer.compress(data[:half]) + packer.compress(data[half:])
    assert bytes(codecs.decompress(frames, SIZE, ZSTD)) == data
    stream = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    packed = stream.compress(data) + stream.flush()
    assert bytes(codecs.decompress(packed, SIZE, ZSTD)) == data


def test_without_zstandard_the_error_says_what_to_install(block: Block) -> None:
    block("zstandard")
    for call in (
        lambda: codecs.compress(bytes(SIZE), ZSTD),
        lambda: codecs.decompress(bytes(SIZE), SIZE, ZSTD),
    ):
        with pytest.raises(NotSupported, match="zstd") as caught:
            call()
        assert "thinvirt[compression]" in caught.value.hint
