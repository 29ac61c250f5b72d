"""I/O around the page cache (O_DIRECT): buffers and lengths have to be aligned."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

from thinvirt.image.block.errors import BlockError, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import Buffer

_BLKSSZGET = 0x1268  # <linux/fs.h>: logical block size
_XFS_DIOINFO = 0x800C581E  # struct of three 32-bit numbers, the second is what we need
_STATX_LIMIT = 4096
_TRIED = (1, 512, 1024, 2048, 4096)


def probe_alignment(fd: int) -> int:
    """Return the smallest unit the file can be read and written in, in bytes.

    Raises:
        BlockError: none works.
    """
    for request, size, skip in ((_BLKSSZGET, 4, 0), (_XFS_DIOINFO, 12, 4)):
        try:
            answer = fcntl.ioctl(fd, request, bytes(size))
        except OSError:
            continue
        return int.from_bytes(answer[skip : skip + 4], "little")
    with _buffer(_STATX_LIMIT) as buffer:
        for alignment in _TRIED:
            try:
                os.preadv(fd, [memoryview(buffer)[:alignment]], 0)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    continue
            # Where even single bytes can be read nothing was learnt: be careful.
            return alignment if alignment > 1 else _STATX_LIMIT
    raise BlockError(
        "Could not find working O_DIRECT alignment", qemu_hint="Try cache.direct=off\n"
    )


def _buffer(length: int) -> mmap.mmap:
    """Return memory that begins on a page."""
    return mmap.mmap(-1, length)


def read_direct(fd: int, offset: int, length: int, alignment: int) -> bytes:
    """Return `length` bytes, zeroes after the end; offset and length are aligned.

    Raises:
        OSError: the read failed.
    """
    with _buffer(length) as buffer:
        done = 0
        while done < length:
            step = os.preadv(fd, [memoryview(buffer)[done:]], offset + done)
            done += step
            if not step or done % alignment:
                break  # the end of the file
        return buffer[:]


def write_direct(fd: int, offset: int, data: Buffer, alignment: int) -> None:
    """Write `data`; offset and length are aligned.

    Raises:
        OSError: the write failed.
    """
    length = len(data)
    with _buffer(length) as buffer:
        buffer[:] = bytes(data) if not isinstance(data, bytes) else data
        done = 0
        while done < length:
            step = os.pwritev(fd, [memoryview(buffer)[done:]], offset + done)
            if not step or step % alignment:
                raise failed(errno.ENOSPC, offset=offset + done)
            done += step
