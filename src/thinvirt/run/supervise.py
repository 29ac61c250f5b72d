"""Standing between a supervisor and one QEMU: `docs/reference/run.md` is the contract.

This module is two things. Imported, it offers `Supervisor` to `thinvirt run` while that starts a VM
and waits for it to be ready. Executed as a file, in a bare interpreter that replaces that process
(same process id, same child), it is what remains for as long as the VM runs: a few megabytes. So
it imports nothing of weight before the end; the rest of thinvirt is loaded when there is
something to do.
"""

import os
import select
import signal
import sys
import time

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAME_REQUEST_S = 1.0  # supervisors that signal process and group send two; they mean one
PRESS_AGAIN_S = 3.0  # a guest that was still booting did not hear the power button
AT_ONCE_S = 2.0  # what a second request leaves QEMU to write out its disk
POWERED_OFF, QUIT, KILLED, FAILED = "powered off", "ended", "killed", "failed"


class Supervisor:
    """One QEMU that is our child, and what is asked of us by signals.

    Attributes:
        pid: the QEMU.
        stopping: whether a stop was asked for.
        outcome: "" while it runs; then how it ended: POWERED_OFF by the guest, QUIT or KILLED by
            us on request, FAILED by itself.
        wait_status: as waitpid(2) has it, once it has ended.
    """

    def __init__(self, pid: int, qmp_socket: str, stop_timeout_s: float, notify: str = "") -> None:
        """Take charge.

        Args:
            pid: our child.
            qmp_socket: the path of its control socket.
            stop_timeout_s: seconds from the request to stop until it must be gone.
            notify: the address of the service manager's socket, "" without one.
        """
        self.pid = pid
        self.stopping = False
        self.outcome = ""
        self.wait_status = 0
        self._qmp_socket = qmp_socket
        self._stop_timeout_s = stop_timeout_s
        self._notify = notify
        self._asked_at = 0.0
        self._press_at = 0.0  # when to press the power button next
        self._quit_at = 0.0  # when to stop asking the guest
        self._kill_at = 0.0  # when to stop asking QEMU
        self._how = ""
        self._pidfd = os.pidfd_open(pid)
        os.set_inheritable(self._pidfd, False)
        self._wake, wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._pidfd, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        for number in heeded_signals():
            signal.signal(number, _heard)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Do what is asked until QEMU has ended or the time is over; return whether it has ended.

        Args:
            timeout_s: None waits for the end.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self.outcome:
            self._act()
            waits = [t for t in (deadline, self._next_act()) if t is not None]
            left = max(0.0, min(waits) - time.monotonic()) if waits else None
            for fd, _ in self._poll.poll(None if left is None else int(left * 1000) + 1):
                if fd == self._pidfd:
                    self._bury()
                else:
                    self._listen()
            if deadline is not None and time.monotonic() >= deadline:
                break
        return bool(self.outcome)

    def _listen(self) -> None:
        try:
            heard = os.read(self._wake, 64)
        except BlockingIOError:
            return
        if any(number in STOP_SIGNALS for number in heard):
            self.stop()

    def stop(self) -> None:
        """Ask for the end: the first time politely, a second time at once."""
        now = time.monotonic()
        if not self.stopping:
            self.stopping = True
            self._asked_at = self._press_at = now
            # The last part of the time is QEMU's, and the very last ours.
            self._quit_at = now + max(0.0, self._stop_timeout_s * 0.75)
            self._kill_at = now + max(0.0, self._stop_timeout_s * 0.95)
            notify(self._notify, "STOPPING=1\nSTATUS=powering off")
        elif now - self._asked_at >= SAME_REQUEST_S:
            self._press_at = self._quit_at = min(self._quit_at, now)
            self._kill_at = min(self._kill_at, now + AT_ONCE_S)

    def _next_act(self) -> float | None:
        """When there is something to do next, as a monotonic time."""
        if not self.stopping or self._how == KILLED:
            return None
        return self._kill_at if self._how == QUIT else min(self._press_at, self._quit_at)

    def _act(self) -> None:
        if not self.stopping or self._how == KILLED:
            return
        now = time.monotonic()
        if now >= self._kill_at:
            self._how = KILLED
            os.kill(self.pid, signal.SIGKILL)  # our child, not waited for yet: the id is its own
        elif self._how == QUIT:
            return
        elif now >= self._quit_at:
            self._how = QUIT
            self._command("quit", min(AT_ONCE_S, self._kill_at - now))
        elif now >= self._press_at:
            self._press_at = now + PRESS_AGAIN_S
            self._command("system_powerdown", min(AT_ONCE_S, self._quit_at - now))

    def _command(self, command: str, timeout_s: float) -> None:
        from pathlib import Path

        from thinvirt.errors import ThinvirtError
        from thinvirt.run.qmp import QmpClient

        try:
            with QmpClient(Path(self._qmp_socket), timeout_s=max(0.1, timeout_s)) as qmp:
                qmp.execute(command, timeout_s=max(0.1, timeout_s))
        except ThinvirtError:
            pass  # it is ending, or does not answer: the next, ruder step settles both

    def _bury(self) -> None:
        _, self.wait_status = os.waitpid(self.pid, 0)
        if self.wait_status == 0:
            self.outcome = self._how or POWERED_OFF
        else:
            self.outcome = self._how if self._how == KILLED else FAILED


def heeded_signals() -> list[signal.Signals]:
    """Return the signals that ask for the end: all but a SIGHUP that nohup(1) has silenced.

    SIGINT is heeded even where it came ignored: shells without job control start what runs in the
    background so, supervisors among it, and theirs is the very signal meant.
    """
    silenced = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in STOP_SIGNALS if number != signal.SIGHUP or not silenced]


def _heard(*_: object) -> None:
    """Do nothing: the wake-up descriptor has told already."""


def notify(address: str, message: str) -> None:
    """Tell the service manager (sd_notify(3)); a manager that cannot be reached is no error.

    Args:
        address: the value of NOTIFY_SOCKET: a path, or "@" and an abstract name; "" does nothing.
        message: lines of NAME=VALUE.
    """
    if not address or address[0] not in "/@":
        return
    import socket

    target = f"\0{address[1:]}" if address[0] == "@" else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.settimeout(1.0)
        try:
            manager.sendto(message.encode(), target)
        except OSError:
            return


def continue_lean(
    supervisor: Supervisor, *, finish: str, arguments: list[str], keep_fds: list[int]
) -> None:
    """Replace this process by a bare one that goes on supervising.

    Same process id, hence the same parent to QEMU. Signals that arrive meanwhile stay pending; one
    that arrived before has been heard, and then this returns, with `supervisor.stopping` set. It
    returns also if there is nothing to execute any more; the caller supervises on.

    Args:
        supervisor: what is in charge now.
        finish: "module:function", called at the end with the outcome, the wait status and
            `arguments`; returns the exit status.
        arguments: text for `finish`.
        keep_fds: descriptors that stay open, such as locks.
    """
    from pathlib import Path

    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    if supervisor.wait(0) or supervisor.stopping:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return
    for fd in keep_fds:
        os.set_inheritable(fd, True)
    sys.stdout.flush()
    sys.stderr.flush()
    path = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path if folder)
    words = [
        *(sys.executable, "-I", "-S", "-B", str(Path(__file__).absolute())),
        *(path, str(supervisor.pid), supervisor._qmp_socket),
        *(str(supervisor._stop_timeout_s), supervisor._notify, finish, *arguments),
    ]
    try:
        os.execv(sys.executable, words)  # noqa: S606 - no shell, and the interpreter that runs now
    except OSError:  # the interpreter was replaced or removed while it ran: go on as we are
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _main() -> int:
    path, pid, qmp_socket, stop_timeout_s, address, finish, *arguments = sys.argv[1:]
    sys.path[:] = path.split(os.pathsep)
    supervisor = Supervisor(int(pid), qmp_socket, float(stop_timeout_s), address)
    supervisor.wait()
    from importlib import import_module

    module, _, function = finish.partition(":")
    try:
        last_step = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:  # upgraded or removed while the VM ran
        sys.stderr.write(f"thinvirt: {error}; the next command clears up\n")
        return 0 if supervisor.outcome in (POWERED_OFF, QUIT) else 1
    status: int = last_step(supervisor.outcome, supervisor.wait_status, arguments)
    return status


if __name__ == "__main__":
    sys.exit(_main())
