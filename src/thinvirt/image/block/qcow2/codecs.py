"""Compressed clusters: raw deflate with a window of 4 KiB, or Zstandard.

Everything here may be called from several threads at a time. The libraries that are faster than the
interpreter's own zlib are optional: `isal` and `zlib-ng` keep to a window of 4 KiB when they pack,
which QEMU needs to unpack; libdeflate (`deflate`) does not, and only unpacks.
"""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import Effort
from thinvirt.image.block.errors import BlockError, NotSupported, failed
from thinvirt.image.block.qcow2.header import ZLIB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, TypeAlias

    from thinvirt.image.block.node import Buffer

    Packer: TypeAlias = Callable[[Buffer], bytes]
    Unpacker: TypeAlias = Callable[[Buffer, int], Buffer]

_WINDOW_BITS = -12  # negative: no zlib header
_MEMORY_LEVEL = 9
_ISAL_LEVEL = 2
_ZLIB_DEFAULT = -1
_ZLIB_BEST = 9
_ZSTD_DEFAULT = 3
_ZSTD_SMALL = 12
_MAX_ZSTD_WINDOW = 1 << 27


_packers: dict[tuple[int, str], Packer] = {}
_unpackers: dict[int, Unpacker] = {}


def compress(data: Buffer, compression_type: int, effort: str = Effort.FAST) -> bytes | None:
    """Return a cluster's data compressed, or None if that would not save a byte.

    Args:
        data: a whole cluster.
        compression_type: as the image's header has it.
        effort: of `Effort`. The result depends on it and on which libraries are installed, never on
            threads or time.

    Raises:
        NotSupported: Zstandard is not installed.
    """
    pack = _packers.get((compression_type, effort))
    if pack is None:
        find = _zlib_packer if compression_type == ZLIB else _zstd_packer
        pack = _packers[compression_type, effort] = find(effort)
    packed = pack(data)
    return packed if len(packed) < len(data) else None


def decompress(data: Buffer, size: int, compression_type: int) -> Buffer:
    """Return the `size` bytes of a cluster; what follows its compressed data is ignored.

    Raises:
        BlockError: damaged.
        NotSupported: Zstandard is not installed.
    """
    unpack = _unpackers.get(compression_type)
    if unpack is None:
        find = _zlib_unpacker if compression_type == ZLIB else _zstd_unpacker
        unpack = _unpackers[compression_type] = find()
    return unpack(data, size)


# -------------------------------------------------------------------- deflate


def _zlib_packer(effort: str) -> Packer:
    if effort == Effort.FAST:
        try:
            from isal import isal_zlib
        except ImportError:
            pass
        else:
            shrink: Callable[[Buffer, int, int], bytes] = isal_zlib.compress
            return lambda data: shrink(data, _ISAL_LEVEL, _WINDOW_BITS)
    level = _ZLIB_BEST if effort == Effort.SMALL else _ZLIB_DEFAULT
    library = _zlib_of_choice() if effort == Effort.SMALL else _own_zlib()

    def pack(data: Buffer) -> bytes:
        packer = library.compressobj(level, library.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
        packed: bytes = packer.compress(data) + packer.flush()
        return packed

    return pack


def _own_zlib() -> Any:
    import zlib

    return zlib


def _zlib_of_choice() -> Any:
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return _own_zlib()
    return zlib_ng


def _zlib_unpacker() -> Unpacker:
    """Return the fastest there is.

    The optional libraries have their own ideas of damage, so the interpreter's zlib, which is
    QEMU's, has the last word on whatever they refuse.
    """
    quick, error_class = _libdeflate() or _isal() or (_unpack_zlib, BlockError)

    def unpack(data: Buffer, size: int) -> Buffer:
        try:
            found = quick(data, size)
        except error_class:
            return _unpack_zlib(data, size)
        return found if len(found) == size else _unpack_zlib(data, size)

    return unpack


def _libdeflate() -> tuple[Unpacker, type[Exception]] | None:
    try:
        from deflate import DeflateError, deflate_decompress
    except ImportError:
        return None
    return deflate_decompress, DeflateError


def _isal() -> tuple[Unpacker, type[Exception]] | None:
    try:
        from isal.isal_zlib import IsalError, decompressobj
    except ImportError:
        return None
    error_class: type[Exception] = IsalError  # type: ignore[assignment]  # so its stub has it

    def unpack(data: Buffer, size: int) -> Buffer:
        return decompressobj(_WINDOW_BITS).decompress(data, size)

    return unpack, error_class


def _unpack_zlib(data: Buffer, size: int) -> Buffer:
    import zlib

    try:
        found = zlib.decompressobj(_WINDOW_BITS).decompress(data, size)
    except zlib.error as error:
        raise failed(errno.EIO) from error
    if len(found) != size:
        raise failed(errno.EIO)
    return found


# -------------------------------------------------------------------- Zstandard


def _zstd_packer(effort: str) -> Packer:
    from _thread import _local

    library = _zstandard()
    level = _ZSTD_SMALL if effort == Effort.SMALL else _ZSTD_DEFAULT
    local: Any = _local()  # a context is for one thread, and dear to make

    def pack(data: Buffer) -> bytes:
        try:
            packer = local.packer
        except AttributeError:
            packer = local.packer = library.ZstdCompressor(level=level)
        packed: bytes = packer.compress(data)
        return packed

    return pack


def _zstd_unpacker() -> Unpacker:
    from _thread import _local

    library = _zstandard()
    local: Any = _local()

    def unpack(data: Buffer, size: int) -> Buffer:
        try:
            decoder = local.decoder
        except AttributeError:
            decoder = library.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
            local.decoder = decoder
        try:
            # A frame that gives its size is unpacked in memory of that size: look before.
            if library.frame_content_size(data) in (-1, size):
                found: bytes = decoder.decompress(data, max_output_size=size)
                if len(found) == size:
                    return found
        except library.ZstdError:
            pass  # larger than it says, or in several frames, or damaged
        return _unpack_frames(library, decoder, data, size)

    return unpack


def _unpack_frames(library: ModuleType, decoder: Any, data: Buffer, size: int) -> Buffer:
    """Decode as many frames as it takes; bounded, whatever the frames say of themselves."""
    try:
        with decoder.stream_reader(bytes(data), read_across_frames=True) as reader:
            found: bytes = reader.read(size)
    except library.ZstdError as error:
        raise failed(errno.EIO) from error
    if len(found) != size:
        raise failed(errno.EIO)
    return found


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise NotSupported(
            "the image is compressed with zstd, which is not installed",
            hint="pip install 'thinvirt[compression]', or apt install python3-zstandard",
        ) from error
    return zstandard
