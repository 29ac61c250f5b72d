"""Unpacking a compressed image: xz, gzip, bzip2 and zstd, recognised by content.

What a file unpacks to may be without bound (a few kilobytes of xz hold terabytes of zeros), so the
result is bounded by a fixed size and by the free space, and zeros become holes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from thinvirt.errors import CorruptImage, HostileImage, ProgramMissing
from thinvirt.progress import Progress
from thinvirt.store.fetch.download import require_room
from thinvirt.units import GIB, MIB, format_size

MAX_UNPACKED: Final = 256 * GIB
_CHUNK: Final = MIB  # also the grain of the holes
_MAGIC: Final = {
    b"\xfd7zXZ\x00": "xz",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def compression_of(path: Path) -> str:
    """Return "xz", "gzip", "bzip2" or "zstd", or an empty text for a file that is none of them."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def unpack(packed: Path, target: Path, progress: Progress, *, limit: int = MAX_UNPACKED) -> None:
    """Unpack `packed` into the new file `target`, which is removed again if that fails.

    Args:
        packed: what `compression_of` knows.
        target: the file to write; an old one is replaced.
        progress: told the compressed bytes that were read.
        limit: the largest result accepted, in bytes.

    Raises:
        CorruptImage: the compressed data is damaged or cut short.
        HostileImage: it unpacks to more than `limit`.
        NoSpace: the result does not fit.
        ProgramMissing: zstd is not installed.
    """
    kind = compression_of(packed)
    progress.step(f"unpacking ({kind})", packed.stat().st_size, "bytes")
    target.unlink(missing_ok=True)
    try:
        with packed.open("rb") as raw, _reader(kind, packed, raw) as source:
            _write_sparse(source, raw, target, progress, limit=limit)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _write_sparse(
    source: BinaryIO, raw: BinaryIO, target: Path, progress: Progress, *, limit: int
) -> None:
    at = told = 0
    with target.open("xb") as out:
        while chunk := source.read(_CHUNK):
            if at + len(chunk) > limit:
                raise HostileImage(
                    f"unpacks to more than {format_size(limit)}",
                    path=target,
                    hint="unpack it by hand if that is meant, and: thinvirt template import FILE",
                )
            if chunk.count(0) != len(chunk):
                require_room(target.parent, len(chunk), kept="the download is kept")
                os.pwrite(out.fileno(), chunk, at)
            at += len(chunk)
            progress.advance(raw.tell() - told)
            told = raw.tell()
        out.truncate(at)


@contextmanager
def _reader(kind: str, packed: Path, raw: BinaryIO) -> Iterator[BinaryIO]:
    """Give a stream of the unpacked bytes; what is wrong with them is told as `CorruptImage`."""
    import lzma
    import zlib

    hint = "its checksum fitted, so it is damaged at its publisher's too"
    try:
        if kind == "zstd":
            with _zstd(packed, raw) as stream:
                yield stream
        elif kind == "xz":
            with lzma.LZMAFile(raw) as xz:
                yield cast("BinaryIO", xz)
        elif kind == "gzip":
            import gzip

            with gzip.GzipFile(fileobj=raw) as gz:
                yield cast("BinaryIO", gz)
        else:
            import bz2

            with bz2.BZ2File(raw) as bz:
                yield cast("BinaryIO", bz)
    except (lzma.LZMAError, zlib.error, EOFError) as error:
        raise CorruptImage(
            f"the {kind} data is damaged: {error}", path=packed, hint=hint
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # bz2 and gzip tell of damaged data by an OSError without a number
        raise CorruptImage(
            f"the {kind} data is damaged: {error}", path=packed, hint=hint
        ) from error


@contextmanager
def _zstd(packed: Path, raw: BinaryIO) -> Iterator[BinaryIO]:
    import subprocess

    try:
        process = subprocess.Popen(
            ["zstd", "--decompress", "--stdout", "--quiet"],
            stdin=raw,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise ProgramMissing(
            "zstd is not installed, and the image is compressed with it", hint="apt install zstd"
        ) from error
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield cast("BinaryIO", process.stdout)
        except BaseException:
            process.kill()
            raise
        complaint = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise CorruptImage(f"the zstd data is damaged: {complaint}", path=packed)
