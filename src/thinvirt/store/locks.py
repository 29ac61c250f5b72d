"""Advisory locks of a store: flock on files in ``locks/`` that say who holds them.

The kernel drops a flock when its holder ends, however it ends, so a lock is never stale. The file
is removed while the lock is held; whoever waited for the removed file notices and takes a new one.
"""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from thinvirt.errors import Busy

_POLL_S = 0.02


class Lock:
    """A held lock; a context manager that lets go.

    The file's content is ``PID COMMAND``, for the error message of whoever finds it held.
    """

    def __init__(self, path: Path, fd: int, *, keep_file: bool) -> None:
        self._path = path
        self._fd = fd
        self._keep_file = keep_file

    def release(self) -> None:
        """Let go; the second call does nothing."""
        if self._fd < 0:
            return
        if not self._keep_file:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1

    def survive_exec(self) -> int:
        """Keep the lock when this process executes another program; return its descriptor."""
        os.set_inheritable(self._fd, True)
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def try_lock(
    path: Path, command: str, *, shared: bool = False, keep_file: bool = False
) -> Lock | None:
    """Take the lock at `path` if it is free; return None if another holds it.

    Args:
        path: the lock's file, created if missing; its folder exists.
        command: what is being done, for others to read.
        shared: others may hold it too, as long as they share as well.
        keep_file: leave the file when letting go: needed for locks that are ever shared.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        if _is_at(fd, path):
            if not shared:
                os.ftruncate(fd, 0)
                os.pwrite(fd, os.fsencode(f"{os.getpid()} {command}\n"), 0)
            return Lock(path, fd, keep_file=keep_file or shared)
        os.close(fd)  # its last holder removed it between our open and our lock


def take_lock(
    path: Path,
    command: str,
    *,
    what: str,
    wait_s: float = 0.0,
    shared: bool = False,
    keep_file: bool = False,
) -> Lock:
    """Take the lock at `path`, waiting up to `wait_s` seconds for it.

    Args:
        path: see `try_lock`, like `command`, `shared` and `keep_file`.
        command: what is being done, for others to read.
        what: what the lock protects, for the message.
        wait_s: how long to wait for another holder.
        shared: see `try_lock`.
        keep_file: see `try_lock`.

    Raises:
        Busy: it is held; the message names the holder.
    """
    deadline = time.monotonic() + wait_s
    while True:
        lock = try_lock(path, command, shared=shared, keep_file=keep_file)
        if lock is not None:
            return lock
        if time.monotonic() >= deadline:
            raise busy(what, path)
        time.sleep(_POLL_S)


def busy(what: str, path: Path) -> Busy:
    """Return the error that names the holder of the lock at `path`."""
    return Busy(
        f"{what} is being worked on by {holder(path)}", hint="try again when that is finished"
    )


def holder(path: Path) -> str:
    """Return who holds the lock: ``process 4711 (thinvirt stop web-001)``."""
    try:
        pid, _, command = os.fsdecode(path.read_bytes()).strip().partition(" ")
    except OSError:
        pid = command = ""
    if not pid:
        return "another process"
    return f"process {pid} ({command})" if command else f"process {pid}"


def is_held(path: Path) -> bool:
    """Tell whether somebody holds the lock at `path`, without taking it for longer than that."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)
