"""Attaching to a VM's serial console, from a terminal or a pipe, one client at a time.

QEMU serves one client of the console socket and lets further ones wait unheard, so whoever attaches
holds a lock that names it. What the guest prints is recorded whether somebody is attached or not.
"""

import errno
import fcntl
import os
import select
import signal
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from thinvirt.errors import Busy, Conflict, UsageError
from thinvirt.run import liveness, sockets
from thinvirt.run.folder import VmFolder
from thinvirt.run.process import send_signal
from thinvirt.run.watch import LogTail

DEFAULT_ESCAPE = "^]"
LINGER_S = 1.0  # of silence, after the end of piped input
TAKE_OVER_TIMEOUT_S = 5.0
RECENT_BYTES, RECENT_LINES = 4096, 20
_CHUNK = 65536
_LOCK = "console.lock"
_LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)

End = Literal["detached", "ended", "silent", "signal"]


def parse_escape(text: str) -> bytes:
    """Return the byte that detaches: ``^]`` and the like, or one plain character.

    Raises:
        UsageError: it is neither.
    """
    if len(text) == 2 and text[0] == "^" and 0x3F <= ord(text[1].upper()) <= 0x5F:
        return bytes([ord(text[1].upper()) ^ 0x40])
    if len(text) == 1 and text.isascii():
        return text.encode()
    raise UsageError(
        f"'{text}' is no escape character", hint="one character, or ^ and one: ^], ^A, ^X"
    )


@contextmanager
def claim(folder: VmFolder, name: str, *, force: bool = False) -> Iterator[None]:
    """Hold the console of a VM as its only client.

    Args:
        folder: the VM's files.
        name: its name, for messages.
        force: make another holder leave.

    Raises:
        Busy: another process is attached; the message names it.
        Conflict: the VM does not run.
    """
    path = folder.run / _LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise not_running(name) from None
    try:
        if not _try_flock(fd):
            if not force:
                raise Busy(
                    f"{_holder(fd)} is attached to the console of '{name}'",
                    hint=f"thinvirt console --force {name}",
                )
            _expel(fd, name)
        os.ftruncate(fd, 0)
        ticks = liveness.start_ticks(os.getpid()) or 0
        os.pwrite(fd, f"{os.getpid()} {ticks} {_terminal()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def not_running(name: str) -> Conflict:
    """Return the error for a VM that has no console because it does not run."""
    return Conflict(
        f"VM '{name}' is not running",
        hint=f"thinvirt start {name}; what it printed last: thinvirt console --log {name}",
    )


def _try_flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _terminal() -> str:
    try:
        return os.ttyname(0)
    except OSError:
        return "a pipe"


def _holder(fd: int) -> str:
    words = os.pread(fd, 256, 0).decode(errors="replace").split(maxsplit=2)
    return f"process {words[0]} ({words[2].strip()})" if len(words) == 3 else "another process"


def _expel(fd: int, name: str) -> None:
    """Ask the holder to leave, and wait until it has."""
    words = os.pread(fd, 256, 0).split()
    if len(words) >= 2:
        send_signal(int(words[0]), int(words[1]), signal.SIGTERM)
    deadline = time.monotonic() + TAKE_OVER_TIMEOUT_S
    while not _try_flock(fd):
        if time.monotonic() >= deadline:
            raise Busy(f"{_holder(fd)} does not let go of the console of '{name}'")
        time.sleep(0.02)


def recent(folder: VmFolder) -> bytes:
    """Return what the console showed last, from its record: a prompt, usually."""
    try:
        with folder.console_log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = os.pread(file.fileno(), RECENT_BYTES, max(0, size - RECENT_BYTES))
    except FileNotFoundError:
        return b""
    return b"\n".join(data.split(b"\n")[-RECENT_LINES:])


def attach(
    folder: VmFolder,
    name: str,
    *,
    stdin: int = 0,
    stdout: int = 1,
    escape: bytes = b"\x1d",
    linger_s: float = LINGER_S,
) -> End:
    """Join descriptors with a running VM's console until one side ends; the caller has claimed it.

    A terminal at `stdin` is raw meanwhile and is put back on every way out, signals included; the
    byte `escape` typed there detaches. At the end of piped input the guest is listened to until it
    has been silent for `linger_s` seconds.

    Returns:
        "detached" by the escape character, "ended" with the VM, "silent" after piped input, or
        "signal": somebody took the console over, or the terminal was closed.

    Raises:
        Conflict: the VM does not run.
    """
    try:
        console = sockets.connect(folder.console_socket)
    except (FileNotFoundError, ConnectionRefusedError):
        raise not_running(name) from None
    with console, _leaving() as wake, raw_terminal(stdin):
        is_terminal = os.isatty(stdin)
        return _Joint(console.fileno(), stdin, stdout, wake).run(
            escape if is_terminal else b"", linger_s
        )


class _Joint:
    """Carries bytes between the console and two descriptors."""

    def __init__(self, console: int, stdin: int, stdout: int, wake: int) -> None:
        self._console, self._stdin, self._stdout, self._wake = console, stdin, stdout, wake

    def run(self, escape: bytes, linger_s: float) -> End:
        poll = select.poll()
        for fd in (self._console, self._stdin, self._wake):
            poll.register(fd, select.POLLIN)
        input_over = False
        while True:
            ready = dict(poll.poll(linger_s * 1000 if input_over else None))
            if not ready:
                return "silent"
            if self._wake in ready:
                if _read(self._wake)[0] == signal.SIGINT:
                    raise KeyboardInterrupt
                return "signal"
            if self._console in ready:
                data = _read(self._console)
                if not data:
                    return "ended"
                _write(self._stdout, data)
            if self._stdin in ready:
                data = _read(self._stdin)
                head, found, _ = data.partition(escape) if escape else (data, b"", b"")
                if not self._say(head):
                    return "ended"
                if found:
                    return "detached"
                if not data:
                    if escape:  # the terminal is gone
                        return "signal"
                    poll.unregister(self._stdin)
                    input_over = True

    def _say(self, data: bytes) -> bool:
        """Send to the guest; return False if the VM has ended."""
        try:
            _write(self._console, data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except ConnectionResetError:
        return b""
    except OSError as error:
        if error.errno == errno.EIO:  # the other side of our terminal was closed
            return b""
        raise


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """Switch a terminal to raw and back on the way out; do nothing with anything else.

    Stopped and continued by job control, it is made raw again.
    """
    if not os.isatty(fd):
        yield
        return
    saved = termios.tcgetattr(fd)
    raw = termios.tcgetattr(fd)
    raw[0] &= ~(
        termios.BRKINT
        | termios.ICRNL
        | termios.INPCK
        | termios.ISTRIP
        | termios.IXON
        | termios.INLCR
    )
    raw[1] &= ~termios.OPOST
    raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0

    def again(*_: object) -> None:
        termios.tcsetattr(fd, termios.TCSANOW, raw)

    before = signal.signal(signal.SIGCONT, again)
    try:
        termios.tcsetattr(fd, termios.TCSANOW, raw)
        yield
    finally:
        signal.signal(signal.SIGCONT, before)
        with suppress(termios.error):  # the terminal itself may be gone
            termios.tcsetattr(fd, termios.TCSANOW, saved)


@contextmanager
def _leaving() -> Iterator[int]:
    """Give a descriptor that becomes readable when a signal asks us to leave."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def leave(number: int, _: object) -> None:
        os.write(writer, bytes([number]))

    before = [(number, signal.signal(number, leave)) for number in _LEAVE_SIGNALS]
    try:
        yield reader
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def print_log(folder: VmFolder, write: Callable[[bytes], object], *, follow: bool = False) -> None:
    """Hand over what the console recorded, from its beginning.

    Args:
        folder: the VM's files.
        write: takes the bytes, in pieces.
        follow: go on with what is added, until the VM has ended.

    Raises:
        FileNotFoundError: nothing was ever recorded.
    """
    path: Path = folder.console_log
    path.stat()
    tail = LogTail(path)
    while True:
        alive = liveness.is_alive(folder.run)
        data, _, _ = tail.read()
        if data:
            write(data)
        elif not (follow and alive):
            return
        else:
            time.sleep(0.1)
