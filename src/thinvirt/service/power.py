"""Starting, stopping and restarting VMs, one or a thousand; a failure does not stop the others."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from thinvirt.errors import Busy, Conflict, NoSpace, QemuFailed, ThinvirtError, Timeout
from thinvirt.run import agent, liveness, process, qemu
from thinvirt.run.accel import Acceleration
from thinvirt.run.folder import VmFolder
from thinvirt.run.liveness import RunState
from thinvirt.run.qmp import QmpClient
from thinvirt.service.boot_slots import BootSlots
from thinvirt.service.launching import acceleration, folder_of, launch_vm
from thinvirt.store import Store, Vm

Action = Literal["start", "stop", "reboot"]
Force = Literal["", "quit", "kill"]

STOP_TIMEOUT_S = 60.0
REBOOT_TIMEOUT_S = 60.0
QUIT_TIMEOUT_S = 10.0
ACPI_REPEAT_S = 3.0
AGENT_PATIENCE_S = 20.0  # an agent may take the order and its guest have no way to obey
STOP_AT_ONCE = 200  # two descriptors each, and a process may have 1024
_LOCK_WAIT_S = 5.0
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class PowerResult:
    """What became of one VM.

    Attributes:
        name: the VM.
        action: what was asked.
        done: whether it is as asked now.
        how: in words: "started", "powered off", "quit after 60 s", "reset".
        elapsed_s: how long it took.
        state: the facts of its QEMU, if it runs now.
        error: why it is not as asked.
    """

    name: str
    action: Action
    done: bool
    how: str = ""
    elapsed_s: float = 0.0
    state: RunState | None = None
    error: ThinvirtError | None = None

    def to_facts(self) -> dict[str, Any]:
        """Return the result JSON-ready."""
        facts: dict[str, Any] = {
            "name": self.name,
            "action": self.action,
            "done": self.done,
            "how": self.how,
            "elapsed_s": round(self.elapsed_s, 3),
        }
        if self.state is not None:
            facts |= {
                "accel": self.state.accel,
                "ssh_port": self.state.ssh_port,
                "vnc": self.state.vnc,
                "spice": self.state.spice,
                "pid": self.state.pid,
            }
        if self.error is not None:
            facts["error"] = self.error.as_facts()
        return facts


OnResult = Callable[[PowerResult], None]
Say = Callable[[str], None]


def exit_status(results: Sequence[PowerResult]) -> int:
    """Return the exit status for several VMs: 0, or that of the first failure."""
    return next((r.error.exit_status for r in results if r.error is not None), 0)


# -- start ---------------------------------------------------------------------------------------


def start(
    store: Store,
    vms: Sequence[Vm],
    *,
    parallel: int | None = None,
    on_result: OnResult | None = None,
    say: Say | None = None,
) -> list[PowerResult]:
    """Start VMs, never more booting at once than the host's cores bear.

    A VM counts as booting as `thinvirt.service.boot_slots` has it. The last ones are not waited
    for: this returns when they run (`service.waiting` waits). One that QEMU halted because its
    disk was full goes on.

    If the caller is interrupted (`on_result` raises, Ctrl-C), the VM at hand is either running or
    as it was before, those before it run, and those after it were not touched.

    Args:
        store: the VMs'.
        vms: which.
        parallel: how many may boot at once; None: as many as the host has cores.
        on_result: told each result as it comes.
        say: told remarks: the accelerator found, memory that may not suffice.

    Returns:
        One result per VM, in the order given.

    Raises:
        ProgramMissing: there is no QEMU.
    """
    accel = acceleration(say)
    booting = BootSlots(parallel or len(os.sched_getaffinity(0)))
    results = []
    for vm in vms:
        booting.wait_for_slot()
        began = time.monotonic()
        try:
            how, state = _start_one(store, vm, accel, say)
        except ThinvirtError as error:
            result = PowerResult(vm.name, "start", False, error=error)
        else:
            took = time.monotonic() - began
            result = PowerResult(vm.name, "start", True, how, took, state)
            booting.add(folder_of(store, vm), vm.name, state)
        results.append(result)
        if on_result is not None:
            on_result(result)
    return results


def _start_one(store: Store, vm: Vm, accel: Acceleration, say: Say | None) -> tuple[str, RunState]:
    """Start a VM, or let one go on that was halted for want of space; return how, and facts."""
    folder = folder_of(store, vm)
    state = liveness.read_state(folder.run)
    if state is None or not qemu.is_halted(folder):
        return "started", launch_vm(store, vm, accel=accel, say=say).state
    if not qemu.resume(folder):
        raise NoSpace(
            f"VM '{vm.name}' is halted: its disk still cannot be written",
            path=store.overlay(vm),
            hint=f"free some space there, then: thinvirt start {vm.name}",
        )
    return "goes on where it was halted for want of space", state


# -- stop ----------------------------------------------------------------------------------------


def stop(
    store: Store,
    vms: Sequence[Vm],
    *,
    timeout_s: float = STOP_TIMEOUT_S,
    force: Force = "",
    on_result: OnResult | None = None,
) -> list[PowerResult]:
    """Power VMs off: by ACPI, and by force those that are still there after `timeout_s`.

    Force is QEMU's ``quit``, which writes out what the guest had flushed and closes the overlay in
    good order, and SIGKILL only for a QEMU that does not answer. A VM that does not run is as
    asked.

    Args:
        store: the VMs'.
        vms: which.
        timeout_s: how long a guest has to power off by itself.
        force: "quit" does not ask the guest; "kill" does not ask QEMU either.
        on_result: told each result as it comes.

    Returns:
        One result per VM, in the order given.
    """
    results: dict[int, PowerResult] = {}
    for first in range(0, len(vms), STOP_AT_ONCE):
        for vm, result in _stop_some(store, vms[first : first + STOP_AT_ONCE], timeout_s, force):
            results[vm.id] = result
            if on_result is not None:
                on_result(result)
    return [results[vm.id] for vm in vms]


@dataclass(slots=True)
class _Stopping:
    """One VM that is to end."""

    vm: Vm
    folder: VmFolder
    state: RunState
    began: float = field(default_factory=time.monotonic)
    asked_at: float = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began

    def ask_guest(self) -> None:
        """Press the power button; again from time to time, for a guest that was not up yet."""
        now = time.monotonic()
        if self.asked_at and now - self.asked_at < ACPI_REPEAT_S:
            return
        self.asked_at = now
        try:
            with QmpClient(self.folder.qmp_socket, timeout_s=2.0) as qmp:
                qmp.execute("system_powerdown", timeout_s=2.0)
        except (QemuFailed, Busy, Timeout):
            pass  # it is ending, or somebody else is connected: the next round tries again

    def force(self, force: Force) -> str:
        """End QEMU and return how, in words."""
        after = f" after {self.elapsed_s:.0f} s" if self.asked_at else ""
        if force == "kill":
            qemu.kill(self.state)
            qemu.bury(self.folder)
            return "killed"
        if qemu.quit_now(self.folder, self.state, timeout_s=QUIT_TIMEOUT_S):
            return f"ended by force{after}"
        return f"killed{after}: QEMU did not answer"


def _stop_some(
    store: Store, vms: Iterable[Vm], timeout_s: float, force: Force
) -> Iterator[tuple[Vm, PowerResult]]:
    with ExitStack() as locks:
        pending: list[_Stopping] = []
        for vm in vms:
            try:
                locks.enter_context(store.lock_vm(vm, "stop", wait_s=_LOCK_WAIT_S))
                stopping = _find(store, vm)
            except ThinvirtError as error:
                yield vm, PowerResult(vm.name, "stop", False, error=error)
                continue
            if stopping is None:
                yield vm, PowerResult(vm.name, "stop", True, "was not running")
            else:
                pending.append(stopping)
        if force:
            yield from (_forced(stopping, force) for stopping in pending)
        else:
            yield from _stop_gently(pending, timeout_s)


def _find(store: Store, vm: Vm) -> _Stopping | None:
    """Return the VM's QEMU, None if it does not run; what a dead one left is cleaned."""
    folder = folder_of(store, vm)
    state = liveness.read_state(folder.run)
    if state is not None:
        return _Stopping(vm, folder, state)
    if liveness.is_alive(folder.run):  # its starter was killed before the facts were written
        state = qemu.orphan_state(folder)
        if state is None:
            raise Busy(f"VM '{vm.name}' is just being started")
        return _Stopping(vm, folder, state)
    qemu.clean_dead(folder)
    return None


def _stop_gently(pending: list[_Stopping], timeout_s: float) -> Iterator[tuple[Vm, PowerResult]]:
    deadline = time.monotonic() + timeout_s
    while pending:
        left = []
        for stopping in pending:
            if _has_ended(stopping):
                qemu.bury(stopping.folder)
                yield stopping.vm, _stopped(stopping, "powered off")
            else:
                left.append(stopping)
        pending = left
        if time.monotonic() >= deadline:
            break
        for stopping in pending:
            stopping.ask_guest()
        time.sleep(_LOOK_S)
    yield from (_forced(stopping, "quit") for stopping in pending)


def _has_ended(stopping: _Stopping) -> bool:
    return process.wait_end(stopping.state.pid, stopping.state.start_ticks, 0)


def _forced(stopping: _Stopping, force: Force) -> tuple[Vm, PowerResult]:
    try:
        return stopping.vm, _stopped(stopping, stopping.force(force))
    except ThinvirtError as error:
        name = stopping.vm.name
        return stopping.vm, PowerResult(
            name, "stop", False, elapsed_s=stopping.elapsed_s, error=error
        )


def _stopped(stopping: _Stopping, how: str) -> PowerResult:
    return PowerResult(stopping.vm.name, "stop", True, how, stopping.elapsed_s)


# -- reboot --------------------------------------------------------------------------------------


def reboot(
    store: Store,
    vms: Sequence[Vm],
    *,
    timeout_s: float = REBOOT_TIMEOUT_S,
    hard: bool = False,
    on_result: OnResult | None = None,
) -> list[PowerResult]:
    """Restart VMs: the guest is asked, and reset if it has not restarted after `timeout_s`.

    Its agent is asked first; without one, Ctrl-Alt-Delete is pressed, which Linux guests take for
    a restart in good order. ACPI has a power button and no restart button.

    Args:
        store: the VMs'.
        vms: which.
        timeout_s: how long a guest has.
        hard: reset at once, as the button on a machine's front does.
        on_result: told each result as it comes.

    Returns:
        One result per VM, in the order given.
    """
    results = []
    for vm in vms:
        began = time.monotonic()
        try:
            with store.lock_vm(vm, "reboot", wait_s=_LOCK_WAIT_S):
                how = _reboot_one(store, vm, timeout_s, hard=hard)
                state = liveness.read_state(store.layout.run_dir(vm.id))
            took = time.monotonic() - began
            result = PowerResult(vm.name, "reboot", True, how, took, state)
        except ThinvirtError as error:
            took = time.monotonic() - began
            result = PowerResult(vm.name, "reboot", False, elapsed_s=took, error=error)
        results.append(result)
        if on_result is not None:
            on_result(result)
    return results


def _reboot_one(store: Store, vm: Vm, timeout_s: float, *, hard: bool) -> str:
    folder = folder_of(store, vm)
    if not liveness.is_alive(folder.run):
        raise Conflict(f"VM '{vm.name}' is not running", hint=f"thinvirt start {vm.name}")
    with QmpClient(folder.qmp_socket) as qmp:
        if hard:
            qmp.execute("system_reset")
            return "reset"
        return _persuade(folder, qmp, timeout_s)


def _persuade(folder: VmFolder, qmp: QmpClient, timeout_s: float) -> str:
    """Have the guest restart, by ever ruder means; return how, in words."""
    deadline = time.monotonic() + timeout_s
    for how, ask, patience_s in (
        ("its agent", _ask_agent, min(AGENT_PATIENCE_S, timeout_s / 2)),
        ("Ctrl-Alt-Delete", _press_keys, timeout_s),
    ):
        if not ask(folder, qmp):
            continue
        try:
            qmp.wait_event(
                "RESET", timeout_s=max(0.0, min(patience_s, deadline - time.monotonic()))
            )
        except Timeout:
            continue
        return f"restarted by {how}"
    qmp.execute("system_reset")
    return f"reset by force: the guest did not restart within {timeout_s:g} s"


def _ask_agent(folder: VmFolder, _: QmpClient) -> bool:
    try:
        agent.ask(folder.agent_socket, "guest-shutdown", {"mode": "reboot"}, answers=False)
    except (Timeout, QemuFailed):
        return False
    return True


def _press_keys(_: VmFolder, qmp: QmpClient) -> bool:
    keys = [{"type": "qcode", "data": code} for code in ("ctrl", "alt", "delete")]
    qmp.execute("send-key", {"keys": keys})
    return True
