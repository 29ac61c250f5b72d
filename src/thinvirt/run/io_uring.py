"""Whether the kernel lets this user have an io_uring: many hosts and containers forbid it."""

import ctypes
import errno
import os

_SETUP = 425  # the number of io_uring_setup(2), the same on every architecture since 5.1
_PARAMETERS_BYTES = 120  # struct io_uring_params


def io_uring_trouble() -> str:
    """Return why there can be no io_uring, "" if there can."""
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    fd: int = syscall(_SETUP, 1, ctypes.create_string_buffer(_PARAMETERS_BYTES))
    if fd >= 0:
        os.close(fd)
        return ""
    number = ctypes.get_errno()
    if number == errno.ENOSYS:
        return "its kernel has none"
    if number == errno.EPERM:
        return "it is forbidden here (sysctl kernel.io_uring_disabled, or a container's filter)"
    return os.strerror(number)
