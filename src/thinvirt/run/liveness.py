"""Whether a VM's QEMU lives, and the facts it was started with.

Nothing that outlives a process is trusted: not its id (ids are used again), not an entry in the
process table (a zombie has one), not a socket file. QEMU inherits a descriptor of ``run/ID/alive``
on whose open file description there is an exclusive lock (an "open file description lock",
fcntl(2)); the kernel drops it when the last holder ends. Asking does not take the lock, so any
number of commands may ask at any time.
"""

import fcntl
import json
import os
import struct
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from thinvirt.errors import Busy

ALIVE, STATE = "alive", "state.json"
# struct flock: l_type, l_whence, l_start, l_len, l_pid; x86-64 and every other 64-bit Linux.
_FLOCK = struct.Struct("hhqqi4x")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What is known of a running QEMU since it was started.

    Attributes:
        pid: its process id.
        start_ticks: when that process began, in clock ticks since the host booted: tells it from
            another process that got the same id later.
        started_at: the same as seconds since the epoch.
        accel: "kvm" or "tcg", and `accel_reason` why.
        ssh_port: the port on 127.0.0.1 that leads to the guest's port 22; None without a user
            network.
        vnc, spice: "ADDRESS:PORT" of the screen, or "".
        qemu_version: as QMP told it.
        argv: the command line.
    """

    pid: int
    start_ticks: int
    started_at: float
    accel: str = "tcg"
    accel_reason: str = ""
    ssh_port: int | None = None
    vnc: str = ""
    spice: str = ""
    qemu_version: str = ""
    argv: tuple[str, ...] = field(default=(), repr=False)

    def to_json(self) -> str:
        """Return the facts as JSON."""
        return json.dumps(asdict(self), indent=1)

    @property
    def screen(self) -> str:
        """Where the screen is shown, for a viewer: ``vnc://…``, ``spice://…``, or ""."""
        if self.vnc:
            return f"vnc://{self.vnc}"
        return f"spice://{self.spice}" if self.spice else ""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the facts that `to_json` wrote; fields of a newer version are passed over."""
        facts: dict[str, Any] = json.loads(text)
        known = {item.name for item in fields(cls)}
        facts = {name: value for name, value in facts.items() if name in known}
        return cls(**facts | {"argv": tuple(facts.get("argv", ()))})


def is_alive(run_dir: Path) -> bool:
    """Tell whether the QEMU of this run folder lives; costs a few microseconds."""
    try:
        fd = os.open(run_dir / ALIVE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return _is_locked(fd)
    finally:
        os.close(fd)


def read_state(run_dir: Path) -> RunState | None:
    """Return the facts of the living QEMU of this folder; None if there is none.

    None also while one is just being started: the facts are written once it answers.
    """
    if not is_alive(run_dir):
        return None
    try:
        return RunState.from_json((run_dir / STATE).read_text())
    except FileNotFoundError:
        return None


def write_state(run_dir: Path, state: RunState) -> None:
    """Record the facts of a QEMU that has just been started; readers see all of them or none."""
    draft = run_dir / f"{STATE}.new"
    draft.write_text(state.to_json())
    draft.rename(run_dir / STATE)


def hold(run_dir: Path) -> int:
    """Create the liveness file, lock it, and return the descriptor for QEMU to inherit.

    Raises:
        Busy: a QEMU of this VM lives, or is being started.
    """
    fd = os.open(run_dir / ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        os.close(fd)
        raise Busy("the VM is running or being started", path=run_dir) from None
    return fd


def start_ticks(pid: int) -> int | None:
    """Return when the process began, in ticks since boot; None if there is none of this id.

    A zombie counts as there: its first thread may have ended while others are still at work, as in
    a QEMU that was just killed. Whether the whole process has ended is for its pidfd to say.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may itself hold parentheses.
    return int(stat.rpartition(")")[2].split()[19])  # proc(5), field 22


def wait_dead(run_dir: Path, timeout_s: float = 2.0) -> bool:
    """Wait until the kernel has dropped the liveness lock; return whether it has.

    For a process known to have ended: its files may be closed a moment after its end is told.
    """
    deadline = time.monotonic() + timeout_s
    while is_alive(run_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def open_process(pid: int, ticks: int) -> int | None:
    """Return a pidfd of exactly that process, to signal and to wait on; None if it is gone.

    The start time is checked after the pidfd is open, so the id cannot change hands in between.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if start_ticks(pid) != ticks:
        os.close(fd)
        return None
    return fd


def _is_locked(fd: int) -> bool:
    query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query)
    kind: int = _FLOCK.unpack(answer)[0]
    return kind != fcntl.F_UNLCK
