"""Compressed clusters: raw deflate with a window of 4 KiB, or Zstandard."""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import NotSupported, failed
from thinvirt.image.block.qcow2.header import ZLIB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import Buffer

_WINDOW_BITS = -12  # negative: no zlib header


def compress(data: Buffer, compression_type: int) -> bytes | None:
    """Return a cluster's data compressed, or None if that would not save a byte."""
    if compression_type == ZLIB:
        import zlib

        packer = zlib.compressobj(-1, zlib.DEFLATED, _WINDOW_BITS, 9)
        packed = packer.compress(data) + packer.flush()
    else:
        packed = _zstandard().ZstdCompressor().compress(data)
    return packed if len(packed) < len(data) else None


def decompress(data: Buffer, size: int, compression_type: int) -> bytes:
    """Return the `size` bytes of a cluster; what follows its compressed data is ignored.

    Raises:
        BlockError: damaged.
    """
    if compression_type == ZLIB:
        import zlib

        try:
            found = zlib.decompressobj(_WINDOW_BITS).decompress(data, size)
        except zlib.error as error:
            raise failed(errno.EIO) from error
    else:
        found = _unpack_zstd(data, size)
    if len(found) != size:
        raise failed(errno.EIO)
    return found


def _unpack_zstd(data: Buffer, size: int) -> bytes:
    """Decode as many frames as it takes; bounded, whatever the frames say of themselves."""
    zstandard = _zstandard()
    decoder = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    try:
        with decoder.stream_reader(bytes(data), read_across_frames=True) as reader:
            found: bytes = reader.read(size)
    except zstandard.ZstdError as error:
        raise failed(errno.EIO) from error
    return found


if TYPE_CHECKING:
    from types import ModuleType


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise NotSupported(
            "the image is compressed with zstd, which is not installed",
            hint="pip install zstandard",
        ) from error
    return zstandard
