"""Who holds the lock? The kernel lists it with every open file, in /proc/PID/fdinfo."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = "/proc"


class LockHolder:
    """A process that holds locks on a file.

    Attributes:
        pid: its number.
        program: the name of its program.
        writes: whether it may write to the file.
    """

    __slots__ = ("pid", "program", "writes")

    def __init__(self, pid: int, program: str, *, writes: bool) -> None:
        self.pid = pid
        self.program = program
        self.writes = writes

    def __str__(self) -> str:
        who = "this process itself" if self.pid == os.getpid() else f"process {self.pid}"
        return f"{self.program} ({who})"

    def __repr__(self) -> str:
        return f"LockHolder({self.pid}, {self.program!r}, writes={self.writes})"


def find_holders(fd: int, byte: int) -> list[LockHolder]:
    """Return the processes that hold a lock over `byte` of the file open at `fd`, ourselves last.

    Processes of other users show their files to root only: they are not found otherwise.
    """
    status = os.fstat(fd)
    identity = (status.st_dev, status.st_ino)
    own = os.getpid()
    holders = []
    for pid in _processes():
        locked = [
            writes
            for number, writes in _locked_descriptors(pid, identity, byte)
            if (pid, number) != (own, fd)
        ]
        if locked:
            holders.append(LockHolder(pid, _program(pid), writes=any(locked)))
    return sorted(holders, key=lambda holder: (holder.pid == own, holder.pid))


def _processes() -> Iterator[int]:
    try:
        names = os.listdir(_PROC)  # noqa: PTH208 - pathlib is slow to import
    except OSError:  # /proc is not mounted: then nobody can be named
        return
    yield from (int(name) for name in names if name.isdecimal())


def _locked_descriptors(
    pid: int, identity: tuple[int, int], byte: int
) -> Iterator[tuple[int, bool]]:
    """Yield (descriptor, opened for writing) of the process for this file, if locked at `byte`."""
    folder = f"{_PROC}/{pid}"
    try:
        numbers = os.listdir(f"{folder}/fd")  # noqa: PTH208
    except OSError:  # another user's, or gone
        return
    for number in numbers:
        try:
            status = os.stat(f"{folder}/fd/{number}")  # noqa: PTH116
            if (status.st_dev, status.st_ino) != identity:
                continue
            with open(f"{folder}/fdinfo/{number}", encoding="ascii") as info:
                lines = info.read().splitlines()
        except OSError:  # closed meanwhile
            continue
        if any(_covers(line, byte) for line in lines):
            yield int(number), any(_opened_for_writing(line) for line in lines)


def _covers(line: str, byte: int) -> bool:
    """Whether a line of fdinfo is a lock over `byte`: ``lock: 1: OFDLCK … READ -1 … 100 100``."""
    if not line.startswith("lock:"):
        return False
    words = line.split()
    start, end = words[-2:]
    return int(start) <= byte and (end == "EOF" or byte <= int(end))


def _opened_for_writing(line: str) -> bool:
    return line.startswith("flags:") and int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY


def _program(pid: int) -> str:
    try:
        with open(f"{_PROC}/{pid}/cmdline", "rb") as arguments:
            first = arguments.read(4096).split(b"\0", 1)[0]
        if not first:
            with open(f"{_PROC}/{pid}/comm", "rb") as name:
                first = name.read().strip()
    except OSError:
        return "a process"
    return os.fsdecode(os.path.basename(first)) or "a process"  # noqa: PTH119
