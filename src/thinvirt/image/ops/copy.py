"""Copy an image file with its holes kept, and its SHA-256 computed on the way."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thinvirt.errors import Conflict
from thinvirt.image.block.hostfile import (
    NO_SPACE,
    allocated_bytes,
    data_extents,
    opened_for_reading,
    os_errors,
    sync_directory,
    write_fully,
)
from thinvirt.progress import Progress, Silent

if TYPE_CHECKING:
    from concurrent.futures import Future

_SILENT = Silent()
_CHUNK = 1 << 20
_ZERO_BLOCK = 4096  # runs of zeros are found in units of a page: no file system has smaller holes
_ZEROS = bytes(_CHUNK)
_FICLONE = 0x40049409  # ioctl: share all blocks of another file (Btrfs, XFS, bcachefs)


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What a copy came out as: digest of the plain bytes, length, and bytes on disk."""

    sha256: str
    size: int
    allocated_bytes: int


def copy_sparse(
    source: Path, target: Path, *, progress: Progress = _SILENT, detect_zeroes: bool = True
) -> CopyResult:
    """Copy `source` to the new file `target`: same bytes, holes stay holes, durable.

    Blocks are shared with the source where the file system can do that.

    Args:
        source: a regular file.
        target: must not exist; nothing is left behind if the copy fails.
        progress: told the bytes of `source`, holes included.
        detect_zeroes: make holes also of zeros that are written out in `source`.

    Raises:
        Conflict: `target` exists, or `source` was changed meanwhile.
        NotFound: there is no `source`.
        NoSpace: the file system is full.
        ImageError: `source` cannot be read or is no regular file.
    """
    with ExitStack() as undo, opened_for_reading(source) as source_fd:
        with os_errors(target, "create the copy"):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            target_fd = os.open(target, flags, 0o644)
            undo.callback(target.unlink, missing_ok=True)
        with ExitStack() as close, os_errors(target, f"copy {source}"):
            close.callback(os.close, target_fd)
            before = os.fstat(source_fd)
            size = before.st_size
            progress.step(f"copying {source.name}", size, "bytes")
            if _share_blocks(source_fd, target_fd):
                digest = _digest(target_fd, size, progress)
            else:
                os.ftruncate(target_fd, size)
                digest = _copy_data(source_fd, target_fd, size, progress, detect_zeroes)
            _refuse_if_changed(source, source_fd, before)
            os.fsync(target_fd)
            sync_directory(target.parent)
            allocated = allocated_bytes(os.fstat(target_fd))
        undo.pop_all()
    return CopyResult(digest, size, allocated)


def file_sha256(path: Path, *, progress: Progress = _SILENT) -> str:
    """Return the SHA-256 of a file's plain bytes, hexadecimal, as ``sha256sum`` prints it.

    Raises:
        Conflict: the file was changed meanwhile.
        NotFound: there is none.
        ImageError: it cannot be read.
    """
    with opened_for_reading(path) as fd, os_errors(path, "read"):
        before = os.fstat(fd)
        progress.step(f"checking {path.name}", before.st_size, "bytes")
        digest = _digest(fd, before.st_size, progress)
        _refuse_if_changed(path, fd, before)
    return digest


def _refuse_if_changed(path: Path, fd: int, before: os.stat_result) -> None:
    now = os.fstat(fd)
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Conflict("somebody wrote to the file while it was being read", path=path)


def _share_blocks(source_fd: int, target_fd: int) -> bool:
    """Make `target_fd` a reflink of `source_fd`; return whether that was possible."""
    import fcntl

    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        return False  # whatever the reason, an ordinary copy will meet it again or do
    return True


def _pieces(fd: int, size: int) -> Iterator[tuple[bool, int, int]]:
    """Yield (is data, offset, length) over the whole file, in order, in pieces of a chunk."""
    at = 0
    for offset, length in data_extents(fd, 0, size):
        yield from _chunks(False, at, offset)
        at = offset + length
        yield from _chunks(True, offset, at)
    yield from _chunks(False, at, size)


def _chunks(is_data: bool, start: int, end: int) -> Iterator[tuple[bool, int, int]]:
    for offset in range(start, end, _CHUNK):
        yield is_data, offset, min(_CHUNK, end - offset)


def _digest(fd: int, size: int, progress: Progress) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    zeros = memoryview(_ZEROS)
    for is_data, offset, length in _pieces(fd, size):
        if is_data:
            _fill(fd, buffer[:length], offset)
            digest.update(buffer[:length])
        else:
            digest.update(zeros[:length])
        progress.advance(length)
    return digest.hexdigest()


def _copy_data(
    source_fd: int, target_fd: int, size: int, progress: Progress, detect_zeroes: bool
) -> str:
    """Copy what is data; a second thread computes the digest, which takes longer than the copy."""
    from concurrent.futures import ThreadPoolExecutor

    digest = hashlib.sha256()
    zeros = memoryview(_ZEROS)
    buffers = [bytearray(_CHUNK), bytearray(_CHUNK)]
    in_use: list[Future[None] | None] = [None, None]  # the digest's job on each buffer
    turn = 0
    with ThreadPoolExecutor(1) as digester:  # one: the order of the jobs is that of the bytes
        for is_data, offset, length in _pieces(source_fd, size):
            job = in_use[turn]
            if job is not None:
                job.result()
            if is_data:
                buffer = buffers[turn]
                piece = memoryview(buffer)[:length]
                _fill(source_fd, piece, offset)
                in_use[turn] = digester.submit(digest.update, piece)
                for start, end in _runs(buffer, length) if detect_zeroes else [(0, length)]:
                    write_fully(target_fd, piece[start:end], offset + start)
            else:
                in_use[turn] = digester.submit(digest.update, zeros[:length])
            turn = 1 - turn
            progress.advance(length)
    return digest.hexdigest()


def _fill(fd: int, buffer: memoryview, offset: int) -> None:
    """Read exactly `len(buffer)` bytes."""
    done = os.preadv(fd, [buffer], offset)
    while done < len(buffer):
        more = os.preadv(fd, [buffer[done:]], offset + done)
        if more == 0:
            raise Conflict(
                f"the file became shorter while it was being read, {offset + done} bytes"
            )
        done += more


def _runs(buffer: bytearray, length: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the runs of blocks that are not all zeros."""
    zero = _ZEROS[:_ZERO_BLOCK]
    start = -1
    for at in range(0, length, _ZERO_BLOCK):
        end = min(at + _ZERO_BLOCK, length)
        is_zero = buffer.startswith(zero if end - at == _ZERO_BLOCK else zero[: end - at], at, end)
        if is_zero and start >= 0:
            yield start, at
            start = -1
        elif not is_zero and start < 0:
            start = at
    if start >= 0:
        yield start, length
