"""Make a whole file system durable with one call, for batches of many small files.

Measured with 1000 overlays on ext4, per second: fdatasync of each 2000, fdatasync of each from
eight threads 3500, one syncfs at the end 9000, syncfs in the background as well 14000. The price:
syncfs waits for everything else that is being written to that file system too.
"""

import os
from threading import Thread


def sync_file_system(fd: int) -> None:
    """Make everything that was written to the file system of `fd` durable.

    Raises:
        OSError: something could not be written (Linux tells since 5.8).
    """
    import ctypes  # takes milliseconds: only a batch pays for it

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
    elif libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class BackgroundSync:
    """Lets the disk work on what is written already while more is being written.

    Args:
        fd: any file or directory of the file system; stays open until `wait` or `finish` returns.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._thread: Thread | None = None
        self._error: OSError | None = None

    def start(self) -> None:
        """Begin to flush, unless that is still going on."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(target=self._flush, name="syncfs", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Return when no flush is going on."""
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """Return when all that has been written is durable.

        Raises:
            OSError: something could not be written, now or by an earlier flush.
        """
        self.wait()
        sync_file_system(self._fd)
        if self._error is not None:  # an error is told once only, to whoever flushed first
            raise self._error

    def _flush(self) -> None:
        try:
            sync_file_system(self._fd)
        except OSError as error:
            self._error = error
