"""Positioned I/O on host files: exact reads, whole writes, holes, durability, and our errors."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thinvirt.errors import (
    Conflict,
    CorruptImage,
    ImageError,
    NoSpace,
    NotFound,
    StoreUnusable,
    ThinvirtError,
)

BLOCK = 512  # the unit of st_blocks, whatever the file system

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a file system, or a kernel older than the call, answers when it does not have the feature.
NOT_SUPPORTED = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.EXDEV}
)


def explain(error: OSError, path: Path, doing: str) -> ThinvirtError:
    """Return `error`, which came while `doing` something with `path`, as one of ours."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    message = f"cannot {doing}: {reason}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return NoSpace(message, path=path, hint=f"make room: df -h '{path.parent}'")
        case errno.ENOENT | errno.ENOTDIR:
            return NotFound(message, path=path)
        case errno.EEXIST:
            return Conflict(message, path=path)
        case errno.EROFS:
            return StoreUnusable(message, path=path)
        case _:
            return ImageError(message, path=path)


@contextmanager
def os_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` of the block into one of ours that names `path`."""
    try:
        yield
    except OSError as error:
        raise explain(error, path, doing) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to errors of the pure layer, which does not know it."""
    try:
        yield
    except ImageError as error:
        error.path = error.path or path
        raise


@contextmanager
def opened_for_reading(path: Path) -> Iterator[int]:
    """Open an existing regular file and give its descriptor.

    Raises:
        NotFound: there is none.
        ImageError: it cannot be read, or is no regular file (a pipe would block, a device is not
            an image file).
    """
    with os_errors(path, "open"):
        # Without O_NONBLOCK a FIFO would hold us here until somebody writes to it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ImageError("not a regular file", path=path)
        yield fd
    finally:
        os.close(fd)


def read_exactly(fd: int, length: int, offset: int) -> bytes:
    """Return `length` bytes from `offset`.

    Raises:
        CorruptImage: the file ends before.
    """
    parts = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            raise CorruptImage("the file ends here, more was expected", offset=offset)
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_fully(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`; a disk that fills up within it shows at the next call."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], offset + written)


def data_extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of what is data, not hole, between `start` and `end`, in order.

    Where the file system cannot tell, all is data.
    """
    at = start
    while at < end:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            if error.errno not in NOT_SUPPORTED:
                raise
            data, hole = at, end
        if data >= end:
            return
        yield data, min(hole, end) - data
        at = hole


def allocated_bytes(status: os.stat_result) -> int:
    """Return what the file occupies on disk."""
    return status.st_blocks * BLOCK


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network and FUSE file systems have no fsync for directories: no more can be done.
        if error.errno not in NOT_SUPPORTED:
            raise
    finally:
        os.close(fd)
