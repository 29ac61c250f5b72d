"""Waiting for VMs, one or a thousand, until they answer: one thread, a few system calls a look."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from thinvirt.run.folder import VmFolder
from thinvirt.run.qemu import is_halted
from thinvirt.run.watch import AgentProbe, GuestWatch, SshProbe
from thinvirt.vm.stages import STAGE_BY_ID

if TYPE_CHECKING:
    from thinvirt.store import Store
    from thinvirt.store.records import Vm

Until = Literal["login", "ssh", "agent"]
DEFAULT_TIMEOUT_S = 600.0
LOOK_EVERY_S, AT_MOST_S, MORE_PER_VM_S = 0.1, 0.5, 0.001
SHOWN_LINES = 10
TITLES: dict[Until, str] = {
    "login": "its login prompt",
    "ssh": "SSH",
    "agent": "its guest agent",
}


@dataclass(frozen=True, slots=True)
class WaitResult:
    """How far one VM has come; the last one of each VM is the outcome.

    Attributes:
        name: the VM.
        until: what was waited for.
        reached: whether it came.
        stage: the id of the stage the boot stands in (`thinvirt.vm.stages.STAGES`).
        elapsed_s: seconds from the VM's start until what was waited for came, or until now. What
            came before anybody looked is dated by the console's record, at the latest.
        stages: seconds from the start at which each stage of this boot was first seen.
        hostname: the name in the guest's prompt; None while there is none.
        last_lines: what the console said last, as plain text; empty once reached.
        reason: why it will not come, or did not in time; "" while it may, and once it came.
    """

    name: str
    until: Until
    reached: bool
    stage: str
    elapsed_s: float
    stages: dict[str, float]
    hostname: str | None
    last_lines: tuple[str, ...] = ()
    reason: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it came, or will not."""
        return self.reached or bool(self.reason)

    @property
    def stage_title(self) -> str:
        """The stage, for people."""
        return STAGE_BY_ID[self.stage].title

    @property
    def state_text(self) -> str:
        """Where it stands, in a few words."""
        if self.reached:
            return {"login": "login", "ssh": "SSH answers", "agent": "agent answers"}[self.until]
        return self.reason or self.stage_title

    @property
    def other_name(self) -> str:
        """The host name the guest answers with, if that is not the VM's name; else ""."""
        if self.hostname is None or self.hostname.partition(".")[0] == self.name:
            return ""
        return self.hostname

    def to_facts(self) -> dict[str, Any]:
        """Return the result JSON-ready."""
        return {
            "name": self.name,
            "until": self.until,
            "reached": self.reached,
            "stage": self.stage,
            "elapsed_s": round(self.elapsed_s, 3),
            "stages": {stage: round(at_s, 3) for stage, at_s in self.stages.items()},
            "hostname": self.hostname,
            "last_lines": list(self.last_lines),
            "reason": self.reason,
        }


class Waiter:
    """One VM that is waited for.

    Attributes:
        name: the VM.
        until: what for.
        guest: what is seen of it.
        reached_at_s: seconds from its start until that came; None while it has not.
        reason: why it will not come; "" while it may.
    """

    def __init__(self, name: str, folder: VmFolder, until: Until) -> None:
        """Begin to wait for the VM whose files are in `folder`."""
        self.name = name
        self.until = until
        self.guest = GuestWatch(folder, name)
        self.reached_at_s: float | None = None
        self.reason = ""
        self._probe: SshProbe | AgentProbe | None = None

    @property
    def is_done(self) -> bool:
        """Whether looking further is of no use."""
        return self.reached_at_s is not None or bool(self.reason)

    def look(self) -> bool:
        """Look once; return whether there is news."""
        news = self.guest.look()
        if self.until == "login":
            self.reached_at_s = self.guest.login_at_s
        elif self.guest.alive and self._answers():
            self.reached_at_s = self.guest.elapsed_s
        if self.reached_at_s is None and not self.guest.alive:
            self._end()
        return news or self.is_done

    def _answers(self) -> bool:
        if self._probe is None:
            if self.guest.state is None:
                return False
            if self.until == "agent":
                self._probe = AgentProbe(self.guest.folder.agent_socket)
            elif self.guest.state.ssh_port is None:
                self.reason = "it has no user network that leads to its SSH port"
                return False
            else:
                self._probe = SshProbe(self.guest.state.ssh_port)
        return self._probe.ask(time.monotonic())

    def _end(self) -> None:
        if not self.guest.seen_alive:
            self.reason = "it is not running"
            return
        words = self.guest.last_words()
        self.reason = f"it has ended; QEMU said: {words}" if words else "it has powered off"

    def give_up(self, timeout_s: float) -> None:
        """Record that the time is over."""
        self.reason = f"not within {timeout_s:g} s"
        if self.guest.alive and is_halted(self.guest.folder):
            self.reason += ": QEMU has halted it, as its disk has no space left"

    def close(self) -> None:
        """Let go of connections to the guest."""
        if self._probe is not None:
            self._probe.close()

    def result(self) -> WaitResult:
        """Return how far it has come."""
        boot = self.guest.boot
        reached = self.reached_at_s is not None
        return WaitResult(
            name=self.name,
            until=self.until,
            reached=reached,
            stage=boot.stage.id,
            elapsed_s=self.guest.elapsed_s if self.reached_at_s is None else self.reached_at_s,
            stages={stage: seen.at_s for stage, seen in boot.reached.items()},
            hostname=boot.hostname,
            last_lines=() if reached else tuple(boot.last_lines(SHOWN_LINES)),
            reason=self.reason,
        )


def wait(
    store: "Store",
    vms: "Sequence[Vm]",
    *,
    until: Until = "login",
    timeout_s: float = DEFAULT_TIMEOUT_S,
    on_change: Callable[[WaitResult], None] | None = None,
) -> list[WaitResult]:
    """Wait until every VM has come to `until`, has ended, or the time is over.

    Args:
        store: their store.
        vms: the VMs. One that reached it long ago is done at the first look.
        until: the login prompt on the serial console, the banner of its SSH server, or an answer
            of its guest agent.
        timeout_s: how long to wait, from now.
        on_change: called with a VM's state at the first look, whenever its stage changes, and when
            it is done; may raise to end the waiting.

    Returns:
        One result per VM, in the order given. That a VM did not come is no error here.
    """
    folders = [
        (vm.name, VmFolder(store.layout.run_dir(vm.id), store.layout.log_dir(vm.id))) for vm in vms
    ]
    return wait_folders(folders, until=until, timeout_s=timeout_s, on_change=on_change)


def wait_folders(
    folders: Sequence[tuple[str, VmFolder]],
    *,
    until: Until = "login",
    timeout_s: float = DEFAULT_TIMEOUT_S,
    on_change: Callable[[WaitResult], None] | None = None,
) -> list[WaitResult]:
    """Wait like `wait`, for VMs given by name and folder."""
    waiters = [Waiter(name, folder, until) for name, folder in folders]
    deadline = time.monotonic() + timeout_s
    tell = on_change or (lambda _: None)
    pending, first = waiters, True
    try:
        while pending:
            for waiter in pending:
                if waiter.look() or first:
                    tell(waiter.result())
            pending, first = [waiter for waiter in pending if not waiter.is_done], False
            if pending and time.monotonic() >= deadline:
                for waiter in pending:
                    waiter.give_up(timeout_s)
                    tell(waiter.result())
                break
            if pending:
                # The more there are the rarer: two hundredths of a core for a hundred. When
                # something came about is told by the files, not by when we looked.
                pause = min(AT_MOST_S, LOOK_EVERY_S + MORE_PER_VM_S * len(pending))
                time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
    finally:
        for waiter in waiters:
            waiter.close()
    return [waiter.result() for waiter in waiters]
