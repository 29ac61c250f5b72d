"""Holes and reservations in host files: fallocate(2), which Python does not have.

The kernel offers the same through an ioctl of regular files (Linux 5.6 and later); with an older
one the C library is called, which takes milliseconds to load.
"""

from __future__ import annotations

import errno
import fcntl
import os
from struct import Struct

# struct space_resv of <linux/falloc.h>: type, whence, start, length, and padding.
_SPACE = Struct("@hhqqiI16x")
_RESERVE, _PUNCH, _ZERO = 0x4030582A, 0x4030582B, 0x40305839  # FS_IOC_(UN)RESVSP64, …ZERO_RANGE
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16  # FALLOC_FL_…
_MODES = {_RESERVE: _KEEP_SIZE, _PUNCH: _KEEP_SIZE | _PUNCH_HOLE, _ZERO: _KEEP_SIZE | _ZERO_RANGE}


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make a range a hole; the size stays.

    Raises:
        OSError: the file system cannot (EOPNOTSUPP), or failed.
    """
    _call(_PUNCH, fd, offset, length)


def zero_range(fd: int, offset: int, length: int) -> None:
    """Make a range read as zeroes and keep its space; a file that ends before grows.

    Raises:
        OSError: the file system cannot (EOPNOTSUPP), or failed.
    """
    _call(_ZERO, fd, offset, length)
    _grow(fd, offset + length)


def reserve(fd: int, offset: int, length: int) -> None:
    """Reserve the space of a range; holes in it read as zeroes still; the file grows.

    Raises:
        OSError: the file system cannot (EOPNOTSUPP), or failed.
    """
    _call(_RESERVE, fd, offset, length)
    _grow(fd, offset + length)


def _grow(fd: int, end: int) -> None:
    if os.fstat(fd).st_size < end:
        os.ftruncate(fd, end)


def _call(request: int, fd: int, offset: int, length: int) -> None:
    try:
        fcntl.ioctl(fd, request, _SPACE.pack(0, os.SEEK_SET, offset, length, 0, 0))
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        _call_library(_MODES[request], fd, offset, length)


def _call_library(mode: int, fd: int, offset: int, length: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
