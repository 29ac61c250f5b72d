"""Starting QEMU so that it outlives the command, or dies with it; ending it; finding who is it."""

import ctypes
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen

from thinvirt.errors import ProgramMissing, QemuFailed
from thinvirt.run import liveness

BLOCKED_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_PR_SET_PDEATHSIG = 1
_children: list[Popen[bytes]] = []  # kept so that a long-lived caller reaps them
_children_lock = threading.Lock()


@dataclass(slots=True)
class Process:
    """A process we started.

    Attributes:
        pid: its id.
        start_ticks: when it began (`liveness.start_ticks`).
    """

    pid: int
    start_ticks: int
    _popen: Popen[bytes]

    def exit_status(self) -> int | None:
        """Return its exit status if it has ended, negative for a signal; else None."""
        return self._popen.poll()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for its end; return its exit status, or None if it still runs after `timeout_s`."""
        from subprocess import TimeoutExpired

        try:
            return self._popen.wait(timeout_s)
        except TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it at once and reap it."""
        self._popen.kill()
        self._popen.wait()


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    pass_fds: Sequence[int],
    die_with_parent: bool = False,
    package: str = "qemu-system-x86",
) -> Process:
    """Start a program in the background and return it.

    It has no terminal, the root as its working directory, a private umask, and no descriptors but
    those passed on.

    Args:
        argv: the command line.
        log: the file its standard output and error are written to, emptied first.
        pass_fds: descriptors it inherits.
        die_with_parent: False: it stands in a session of its own and outlives us. True: the
            kernel kills it when the calling thread ends, and TERM, INT and HUP are blocked in it,
            because a supervisor sends them to every process of a job and QEMU would take them for
            a power cut; the caller answers them in its place.
        package: the Debian package that has the program, for the message.

    Raises:
        ProgramMissing: there is no such program.
        QemuFailed: it cannot be executed.
    """
    reap()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    output = os.open(log, flags, 0o600)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_SIGNALS if die_with_parent else ())
    try:
        popen = Popen(
            list(argv),
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            umask=0o077,
            pass_fds=tuple(pass_fds),
            start_new_session=not die_with_parent,
            # Only in the foreground, where nothing else runs yet: safe with one thread.
            preexec_fn=_parent_death_signal() if die_with_parent else None,  # noqa: PLW1509
        )
    except FileNotFoundError:
        raise ProgramMissing(
            f"{argv[0]} is not installed", hint=f"apt-get install {package}"
        ) from None
    except PermissionError as error:
        raise QemuFailed(f"cannot execute {argv[0]}: {error.strerror}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(output)
    with _children_lock:
        _children.append(popen)
    return Process(popen.pid, liveness.start_ticks(popen.pid) or 0, popen)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C until the block ends, where a child would be lost between two statements.

    A child started inside keeps SIGINT blocked, which is what one in the background wants.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reap() -> None:
    """Take leave of ended children, so that a long-lived caller collects no zombies."""
    with _children_lock:
        _children[:] = [child for child in _children if child.poll() is None]


def _parent_death_signal() -> Callable[[], None]:
    """Return what the child runs before it executes: be killed when the parent dies."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # loaded before the fork
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died between the fork and the prctl
            os._exit(1)

    return arm


def send_signal(pid: int, ticks: int, number: signal.Signals) -> bool:
    """Send a signal to exactly that process; return whether it was there."""
    fd = liveness.open_process(pid, ticks)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def wait_end(pid: int, ticks: int, timeout_s: float | None) -> bool:
    """Wait until exactly that process has ended, whoever's child it is; return whether it has."""
    fd = liveness.open_process(pid, ticks)
    if fd is None:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else max(0, round(timeout_s * 1000))))
    finally:
        os.close(fd)


def wanted_cpu_seconds(pid: int) -> float:
    """Return how much processor time a process has wanted, all its threads together.

    What it used, and what it waited for while others had the processors: on a busy host a guest
    that boots gets little, and must not be taken for one that rests.
    """
    nanoseconds = 0
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            used, waited, _ = (thread / "schedstat").read_text().split()
            nanoseconds += int(used) + int(waited)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it, or one of its threads, has just ended
    return nanoseconds / 1e9


def holder_of(path: Path) -> int | None:
    """Return a living process of ours that has the file open, None if there is none."""
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return None
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            links = list((folder / "fd").iterdir())
        except OSError:
            continue  # it ended, or is another user's
        for link in links:
            try:
                status = link.stat()
            except OSError:
                continue
            if (status.st_ino, status.st_dev) == (wanted.st_ino, wanted.st_dev):
                return int(folder.name)
    return None
