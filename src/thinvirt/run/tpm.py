"""A TPM 2.0 for one VM: a swtpm process that lives exactly as long as its QEMU.

The two are joined by a pair of sockets without a name. swtpm ends by itself once the channel for
data is closed that QEMU sends it with its first command; so it is started when that command is
there, and not before. Whoever is killed, and whenever: QEMU without swtpm fails to start, swtpm
without QEMU finds that channel closed, and nothing is left behind.
"""

import fcntl
import os
import select
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from thinvirt.errors import Busy, ProgramMissing
from thinvirt.run.process import spawn

PROGRAM = "swtpm"
_LOCK_WAIT_S = 5.0  # the swtpm of a QEMU that was just killed is writing its state
_LOOK_S = 0.02


class Tpm:
    """The TPM of a VM that is being started; a context manager that lets go of our descriptors."""

    def __init__(self, state: Path) -> None:
        """Take hold of what it remembers.

        Args:
            state: the file; made at the first start.

        Raises:
            ProgramMissing: swtpm is not installed.
            Busy: the TPM of an earlier run still has the file.
        """
        from shutil import which

        if which(PROGRAM) is None:
            raise ProgramMissing(
                "the VM has a TPM, and swtpm is not installed", hint=f"apt-get install {PROGRAM}"
            )
        self._lock = _lock(state)
        self._for_qemu, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    @property
    def qemu_fd(self) -> int:
        """The socket that QEMU inherits."""
        return self._for_qemu.fileno()

    def start(self, log: Path, *, timeout_s: float, die_with_parent: bool = False) -> None:
        """Start swtpm once QEMU, which has been started, asks for it; not if QEMU ends before.

        Args:
            log: what swtpm says.
            timeout_s: how long QEMU may take.
            die_with_parent: see `thinvirt.run.process.spawn`.
        """
        self._for_qemu.close()  # so that QEMU's end is seen
        poll = select.poll()
        poll.register(self._ours, select.POLLIN)
        events = poll.poll(int(timeout_s * 1000))
        if not events or not self._has_command():
            return
        argv = [
            *(PROGRAM, "socket", "--tpm2", "--terminate"),
            # By descriptor: a path may have a comma, which swtpm takes for its own.
            *("--tpmstate", f"backend-uri=file:///proc/self/fd/{self._lock}"),
            *("--ctrl", f"type=unixio,clientfd={self._ours.fileno()}"),
        ]
        spawn(
            argv,
            log=log,
            pass_fds=(self._lock, self._ours.fileno()),  # with the first goes the file's lock
            die_with_parent=die_with_parent,
            package=PROGRAM,
        )

    def _has_command(self) -> bool:
        """Tell whether QEMU has said something, rather than gone; nothing is taken."""
        return bool(self._ours.recv(1, socket.MSG_PEEK))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._for_qemu.close()
        self._ours.close()
        os.close(self._lock)


def _lock(state: Path) -> int:
    """Return a descriptor of the state's file, made if need be, that holds its lock."""
    fd = os.open(state, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            # Not fcntl(2)'s locks: newer versions of swtpm take one of those by themselves.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise Busy(
                    "the TPM of this VM's last run has not ended", path=state, hint="fuser names it"
                ) from None
            time.sleep(_LOOK_S)
        else:
            return fd
