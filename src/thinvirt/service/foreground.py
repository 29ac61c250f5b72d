"""One VM in the foreground, under any supervisor: `thinvirt run` (docs/reference/run.md).

The process goes through three lives with one process id: it makes and starts the VM and waits until
it is ready; a bare interpreter then stands by (`thinvirt.run.supervise`); and `finish` clears
up. A disposable VM belongs to a maker whose lock is held through all three, so that whatever
ends them, the next command removes what is left.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from thinvirt.errors import RequestWrong, TemporaryFailure, ThinvirtError
from thinvirt.run import supervise
from thinvirt.run.folder import VmFolder
from thinvirt.run.liveness import RunState
from thinvirt.run.qemu import clean_dead
from thinvirt.run.supervise import FAILED, KILLED, STOP_SIGNALS, Supervisor, notify
from thinvirt.service.clones import CloneRequest, clone, plan
from thinvirt.service.launching import acceleration, folder_of, launch_vm
from thinvirt.service.waiting import Until, Waiter, WaitResult
from thinvirt.store import Store, Vm, open_store
from thinvirt.store.locks import Lock
from thinvirt.units import format_duration
from thinvirt.vm.spec import VmSpec

Ready = Literal["login", "qmp", "ssh", "agent"]
DEFAULT_STOP_TIMEOUT_S = 25.0  # below the 30 s that Slurm and Kubernetes give
LOOK_EVERY_S = 0.1
_QEMU_FAILED = 1

Say = Callable[[str], None]


class StopRequested(BaseException):
    """A signal asked for the end before there was anything to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What is asked for.

    Attributes:
        template: ``NAME``, ``NAME@N`` or a digest's beginning.
        name: of a VM that persists; None: a disposable one.
        size: bytes of its disk; None: the template's.
        spec: what else is asked of the VM.
        os, firmware_asked: see `thinvirt.service.clones.CloneRequest`.
        ready: what counts as ready.
        ready_timeout_s: how long that may take; None: for ever.
        stop_timeout_s: seconds from the request to stop until everything must be gone.
        require_kvm: refuse to run without hardware acceleration.
        notify_socket: the service manager's, "" without one.
        ready_fd: a descriptor to write a line to when ready, and to close.
    """

    template: str
    name: str | None = None
    size: int | None = None
    spec: VmSpec
    os: str = ""
    firmware_asked: bool = False
    ready: Ready = "login"
    ready_timeout_s: float | None = None
    stop_timeout_s: float = DEFAULT_STOP_TIMEOUT_S
    require_kvm: bool = False
    notify_socket: str = ""
    ready_fd: int | None = None


def run(home: Path | None, request: RunRequest, *, say: Say) -> int:
    """Run one VM until it ends; return the exit status.

    Once the VM is ready this does not return: the process goes on as a bare supervisor, and ends
    with the status of `finish`.

    Args:
        home: the store's directory; None: the default.
        request: what is asked for.
        say: told remarks, for people.

    Raises:
        RequestWrong: no host can do this.
        TemporaryFailure: this host cannot, now.
        QemuFailed: QEMU did not start.
    """
    for number in supervise.heeded_signals():
        signal.signal(number, _stop_early)
    try:
        store = open_store(home, create=False)
        accel = acceleration(say)
        if request.require_kvm and accel.name != "kvm":
            raise TemporaryFailure(f"there is no KVM here: {accel.reason}")
        with ExitStack() as undo:
            lock = None
            if request.name is None:
                maker, lock = store.become_maker(f"thinvirt run {request.template}")
                undo.callback(_dispose, store, lock)
                vm = _clone(store, request, f"run-{os.urandom(5).hex()}", maker, say=say)
            else:
                vm = _named_vm(store, request, request.name, say)
            # From here on a request to stop waits for the supervisor to hear it.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            running = launch_vm(store, vm, accel=accel, die_with_parent=True, say=say)
            undo.pop_all()
    except StopRequested:
        say("asked to stop before the VM was started")
        return 0
    keep_fd = -1 if lock is None else lock.survive_exec()
    return _Foreground(store, vm, running.state, request, keep_fd).stand(say)


def _dispose(store: Store, lock: Lock) -> None:
    """Let a disposable VM go that was not started after all."""
    lock.release()
    open_store(store.layout.home, create=False).close()


def _stop_early(*_: object) -> None:
    raise StopRequested


def _named_vm(store: Store, request: RunRequest, name: str, say: Say) -> Vm:
    """Return the VM of that name, made if need be."""
    if store.catalog.taken([name]):
        vm = store.catalog.find_vm(name)
        wanted = store.catalog.find_template(request.template)
        there = vm.template
        same = there is not None and there.name == wanted.name
        if not same or ("@" in request.template and there != wanted):
            raise RequestWrong(
                f"VM '{vm.name}' is a clone of {vm.origin or 'nothing'}, not of {request.template}",
                hint=f"another name, or: thinvirt rm {vm.name}",
            )
        spec = plan(store, _clone_request(request, name)).spec
        return _with_spec(store, vm, spec)
    say(f"making VM '{name}'")
    return _clone(store, request, name, None, say=say)


def _clone(store: Store, request: RunRequest, name: str, owner: str | None, *, say: Say) -> Vm:
    (vm,) = clone(store, _clone_request(request, name), owner=owner, say=say)
    return vm


def _clone_request(request: RunRequest, name: str) -> CloneRequest:
    return CloneRequest(
        template=request.template,
        name=name,
        size=request.size,
        spec=request.spec,
        os=request.os,
        firmware_asked=request.firmware_asked,
    )


def _with_spec(store: Store, vm: Vm, spec: VmSpec) -> Vm:
    """Return a VM that was there with the specification that is asked for now.

    Raises:
        RequestWrong: it would need files that were not made with it.
    """
    if vm.spec == spec:
        return vm
    for what, has, asked in (
        ("disks of its own", _made_disks(vm.spec), _made_disks(spec)),
        ("firmware", vm.spec.firmware, spec.firmware),
    ):
        if has != asked:
            raise RequestWrong(
                f"VM '{vm.name}' was made with other {what} than are asked for now",
                hint=f"the same as then, another name, or: thinvirt rm {vm.name}",
            )
    kept, wanted = json.loads(vm.batch.spec_json), spec.to_facts()
    overrides = {field: wanted.get(field, default) for field, default in _defaults(kept).items()}
    store.catalog.set_overrides(vm, json.dumps(overrides | wanted, ensure_ascii=False))
    return store.catalog.find_vm(vm.name)


def _made_disks(spec: VmSpec) -> list[tuple[int, int | None, str]]:
    """Return number, size and backing file of the further disks that the store made."""
    return [
        (number, disk.size, disk.backing)
        for number, disk in enumerate(spec.disks)
        if number and disk.of_the_store
    ]


def _defaults(fields: Sequence[str]) -> dict[str, Any]:
    from dataclasses import asdict

    defaults = asdict(VmSpec())
    return {field: defaults[field] for field in fields}


@dataclass(slots=True)
class _Foreground:
    """A VM that has been started, until the lean supervisor takes over.

    Attributes:
        store: its store.
        vm: the VM.
        state: the facts of its QEMU.
        request: what was asked for.
        keep_fd: the descriptor whose lock keeps a disposable VM, -1 for one that persists.
    """

    store: Store
    vm: Vm
    state: RunState
    request: RunRequest
    keep_fd: int

    def stand(self, say: Say) -> int:
        """Wait until the VM is ready, tell so, and hand over; or finish if it ends before."""
        folder, home = folder_of(self.store, self.vm), self.store.layout.home
        supervisor = Supervisor(
            self.state.pid,
            str(folder.qmp_socket),
            self.request.stop_timeout_s,
            self.request.notify_socket,
        )
        arguments = [str(home), str(self.vm.id), self.vm.name, str(self.keep_fd)]
        result = self._wait_ready(supervisor, folder)
        if result is not None:
            _announce(self._facts(result), self.request)
        self.store.close()
        if result is not None:
            supervise.continue_lean(
                supervisor,
                finish=f"{__name__}:{finish.__name__}",
                arguments=arguments,
                keep_fds=[self.keep_fd] if self.keep_fd >= 0 else [],
            )
        late = result is None and not supervisor.stopping and not supervisor.outcome
        if late:
            limit = self.request.ready_timeout_s
            say(f"'{self.vm.name}' was not ready within {limit:g} s; ending it")
            supervisor.stop()
        supervisor.wait()
        status = finish(supervisor.outcome, supervisor.wait_status, arguments)
        return _QEMU_FAILED if late else status

    def _wait_ready(self, supervisor: Supervisor, folder: VmFolder) -> WaitResult | None:
        """Return how the VM stands once it is ready; None if it ends, is to stop, or is late."""
        request, told = self.request, ""
        until: Until = "login" if request.ready == "qmp" else request.ready
        waiter = Waiter(self.vm.name, folder, until)
        with ExitStack() as at_end:
            at_end.callback(waiter.close)
            while not supervisor.wait(LOOK_EVERY_S) and not supervisor.stopping:
                waiter.look()
                result = waiter.result()
                if result.reached or request.ready == "qmp":
                    return result
                if result.stage != told:
                    told = result.stage
                    notify(request.notify_socket, f"STATUS=booting: {result.stage_title}")
                limit = request.ready_timeout_s
                if limit is not None and result.elapsed_s >= limit:
                    return None
        return None

    def _facts(self, result: WaitResult) -> dict[str, Any]:
        """Return the one line that is printed when the VM is up."""
        identity = self.store.identity(self.vm)
        return {
            "event": "ready",
            "name": self.vm.name,
            "template": self.vm.origin,
            "uuid": identity.uuid,
            "mac": identity.mac,
            "pid": self.state.pid,
            "ssh_port": self.state.ssh_port,
            "vnc": self.state.vnc,
            "spice": self.state.spice,
            "accel": self.state.accel,
            "stage": result.stage,
            "hostname": result.hostname,
            "elapsed_s": round(result.elapsed_s, 3),
        }


def _announce(facts: dict[str, Any], request: RunRequest) -> None:
    """Tell everybody who wanted to know that the VM is up; who has gone away is told nothing."""
    line = json.dumps(facts, ensure_ascii=False)
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the line stays in the buffer, and later flushes would fail of it too
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
    if request.ready_fd is not None:
        with suppress(OSError):
            os.write(request.ready_fd, f"{line}\n".encode())
            os.close(request.ready_fd)
    elapsed = format_duration(facts["elapsed_s"])
    status = f"{facts['name']}: {facts['stage']} after {elapsed}"
    notify(request.notify_socket, f"READY=1\nSTATUS={status}")


def finish(outcome: str, wait_status: int, arguments: Sequence[str]) -> int:
    """Clear up after the VM has ended and return the exit status.

    Args:
        outcome: how it ended (`thinvirt.run.supervise`).
        wait_status: QEMU's, as waitpid(2) has it.
        arguments: the store, the VM's number and name, and the descriptor of the lock that keeps a
            disposable VM, "-1" for one that persists.
    """
    home, vm_id, name, keep_fd = arguments
    status = 0
    if outcome in (FAILED, KILLED):
        status = _QEMU_FAILED
        _tell(f"{_how_it_failed(outcome, wait_status)}{_last_words(Path(home), int(vm_id))}")
    elif outcome == supervise.QUIT:
        _tell(f"'{name}' did not power off in time and was ended")
    try:
        if int(keep_fd) >= 0:
            os.close(int(keep_fd))  # its maker is gone now, and opening the store removes the VM
        store = open_store(Path(home), create=False)
        vm = store.catalog.vm_by_id(int(vm_id))
        if vm is not None:
            with store.lock_vm(vm, "run", wait_s=5.0):
                clean_dead(folder_of(store, vm))
        store.close()
    except ThinvirtError as error:
        _tell(f"could not clear up after '{name}': {error}; the next command will")
    return status


def _how_it_failed(outcome: str, wait_status: int) -> str:
    if outcome == KILLED:
        return "QEMU did not answer and was killed"
    code = os.waitstatus_to_exitcode(wait_status)
    return f"QEMU was ended by signal {-code}" if code < 0 else f"QEMU failed with status {code}"


def _last_words(home: Path, vm_id: int) -> str:
    from thinvirt.run.watch import GuestWatch
    from thinvirt.store.layout import Layout

    layout = Layout(home)
    words = GuestWatch(VmFolder(layout.run_dir(vm_id), layout.log_dir(vm_id)), "").last_words()
    return f": {words}" if words else ""


def _tell(message: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"thinvirt: {message}\n")
