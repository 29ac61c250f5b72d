"""Kernels taken apart and repacked: our LZ4 blocks undone by a decoder written for the test."""

import lzma
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinvirt.build.kernel import (
    KernelNotUnderstood,
    SetupHeader,
    lz4_blocks,
    memory_image,
    repack,
)

START = 0x1000000


def decode_blocks(data: bytes) -> bytes:
    """Undo LZ4 blocks as the stub does, byte by byte."""
    out, at = bytearray(), 0
    while size := struct.unpack_from("<I", data, at)[0]:
        at += 4
        end = at + size
        while at < end:
            token = data[at]
            at += 1
            literals, at = _length(data, at, token >> 4)
            out += data[at : at + literals]
            at += literals
            if at >= end:
                break
            distance = data[at] | data[at + 1] << 8
            at += 2
            match, at = _length(data, at, token & 15)
            for _ in range(match + 4):
                out.append(out[-distance])
    return bytes(out)


def _length(data: bytes, at: int, length: int) -> tuple[int, int]:
    if length == 15:
        while True:
            length += data[at]
            at += 1
            if data[at - 1] != 255:
                break
    return length, at


def elf(*segments: tuple[int, bytes, int], entry: int = START) -> bytes:
    """Return a 64-bit ELF file with segments (physical address, content, size in memory)."""
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, len(segments), 0, 0, 0
    )
    offset = 64 + 56 * len(segments)
    table, body = b"", b""
    for physical, content, memory_bytes in segments:
        place = offset + len(body)
        virtual = (0xFFFFFFFF80000000 + physical) & ((1 << 64) - 1)
        table += struct.pack(
            "<IIQQQQQQ", 1, 5, place, virtual, physical, len(content), memory_bytes, 0x1000
        )
        body += content
    return header + table + body


def bzimage(payload: bytes, *, version: int = 0x20F) -> bytes:
    setup = bytearray(2 * 512)
    setup[SetupHeader.SETUP_SECTS] = 1
    setup[SetupHeader.MAGIC : SetupHeader.MAGIC + 4] = b"HdrS"
    struct.pack_into("<H", setup, SetupHeader.VERSION, version)
    setup[SetupHeader.RELOCATABLE] = 1
    stub = b"\x90" * 100
    struct.pack_into("<II", setup, SetupHeader.PAYLOAD, len(stub), len(payload) + 4)
    return bytes(setup) + stub + payload + struct.pack("<I", 12345)


def test_memory_image_places_the_segments() -> None:
    image = memory_image(elf((START, b"text", 4), (START + 0x2000, b"data", 0x1003)))
    assert (image.start, image.entry, image.end) == (START, START, START + 0x3008)
    assert image.data == b"text" + bytes(0x2000 - 4) + b"data"


@pytest.mark.parametrize(
    "wrong",
    [b"", b"\x7fELF\x01\x01".ljust(64, b"\0"), elf(), elf((0, b"a", 1), (1 << 40, b"b", 1))],
    ids=["empty", "32-bit", "nothing to load", "far apart"],
)
def test_memory_image_refuses_what_is_no_kernel(wrong: bytes) -> None:
    with pytest.raises(KernelNotUnderstood):
        memory_image(wrong)


@pytest.mark.parametrize(
    "image",
    [
        b"MZ" * 10,
        bzimage(lzma.compress(b"x"), version=0x20B),
        bzimage(b"\x1f\x8b gzip"),
        bzimage(lzma.compress(b"no ELF file")),
    ],
    ids=["short", "old protocol", "gzip", "no elf"],
)
def test_repack_refuses_what_it_does_not_know(image: bytes, tmp_path: Path) -> None:
    with pytest.raises(KernelNotUnderstood):
        repack(image, tmp_path)


def test_repack_keeps_the_setup_and_replaces_the_rest(tmp_path: Path) -> None:
    text = b"\xf4" + bytes(range(256)) * 2000
    image = bzimage(lzma.compress(elf((START, text, len(text) + 5000))))
    packed = repack(image, tmp_path)
    (syssize,) = struct.unpack_from("<I", packed, SetupHeader.SYSSIZE)
    assert len(packed) == 1024 + syssize * 16
    assert packed[SetupHeader.RELOCATABLE] == 0
    assert struct.unpack_from("<II", packed, SetupHeader.PAYLOAD) == (0, 0)
    assert decode_blocks(packed[2048:]) == text.rstrip(b"\0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stub.bin", "stub.o"]


def test_repack_refuses_a_kernel_that_would_overwrite_itself(tmp_path: Path) -> None:
    with pytest.raises(KernelNotUnderstood, match="does not fit"):
        repack(bzimage(lzma.compress(elf((0x101000, b"\xf4" * 9, 9)))), tmp_path)


@settings(max_examples=25)
@given(
    parts=st.lists(
        st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 400)), min_size=1, max_size=20
    )
)
def test_lz4_blocks_hold_the_data(
    parts: list[tuple[bytes, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = b"".join(part * count for part, count in parts)
    work = tmp_path_factory.mktemp("lz4")
    assert decode_blocks(lz4_blocks(data, work)) == data
