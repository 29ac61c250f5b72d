"""The embedded driver: one QEMU per VM, started, found again, and ended.

`launch` either gives a QEMU that answers and whose facts are on record, or leaves nothing behind.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from thinvirt.errors import QemuFailed, ThinvirtError
from thinvirt.run import event_record as event_records
from thinvirt.run import lan, liveness, sockets
from thinvirt.run.accel import Acceleration
from thinvirt.run.bridge import tap_on
from thinvirt.run.folder import VmFolder
from thinvirt.run.liveness import RunState
from thinvirt.run.process import Process, holder_of, send_signal, spawn, uninterrupted, wait_end
from thinvirt.run.qemu_trouble import ScreenPortTaken, explain
from thinvirt.run.qmp import QmpClient, QmpError
from thinvirt.run.screen import free_port, spice_address, vnc_address, write_password
from thinvirt.run.tpm import Tpm
from thinvirt.vm.qemu import PROGRAM, BridgePort, DiskLayer, FirmwareFiles, Launch, qemu_argv
from thinvirt.vm.spec import VmSpec
from thinvirt.vm.spec.words import VNC_BASE_PORT

START_TIMEOUT_S = 60.0  # for QEMU itself to answer; a loaded host takes seconds, not this
_DEATH_TIMEOUT_S = 10.0
_ASK_TIMEOUT_S = 2.0
_SCREEN_TRIES = 5  # others may take the port between our look and QEMU's start
_RETRY_S = 0.3  # what was to be written is written within, or has failed again


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """What is to be started; every value resolved.

    Attributes:
        name, uuid, spec, memory_mib, disks, media, firmware, macs: see `thinvirt.vm.qemu.Launch`.
        folder: where its run-time files and its log go.
        accel: what executes the guest's instructions.
        seed: the files of the NoCloud seed by name; empty for none.
        lans: the folders of the LANs in `spec.networks`, in order.
        bridges: the bridges of those networks that are on one, in order.
        tpm_state: the file of what its TPM remembers, None without one.
        program: the QEMU to run.
        die_with_parent: see `thinvirt.run.process.spawn`.
        paused: do not let the guest run yet.
    """

    name: str
    uuid: str
    spec: VmSpec
    memory_mib: int
    disks: tuple[tuple[DiskLayer, ...], ...]
    media: DiskLayer | None = None
    firmware: FirmwareFiles | None = None
    macs: tuple[str, ...]
    folder: VmFolder
    accel: Acceleration
    seed: Mapping[str, str]
    lans: tuple[Path, ...] = ()
    bridges: tuple[str, ...] = ()
    tpm_state: Path | None = None
    program: str = PROGRAM
    die_with_parent: bool = False
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A QEMU that was just started.

    Attributes:
        state: its facts, as recorded.
        process: the process, for who keeps it as a child.
    """

    state: RunState
    process: Process


def launch(request: LaunchRequest) -> Running:
    """Start a VM and return once QEMU answers and the guest's CPUs run.

    The caller holds the VM's lock. If anything fails, or the caller is interrupted, QEMU is ended
    and the run folder removed.

    Raises:
        Busy: the VM runs already, or its disk is in use by another process.
        Conflict: a port that was asked for is taken, or a bridge may not be used.
        NotFound: there is no such bridge.
        ProgramMissing: there is no QEMU, or no swtpm for the VM's TPM.
        QemuFailed: QEMU refused to start; its own words are quoted.
    """
    tries = 1 if request.spec.graphics.port is not None else _SCREEN_TRIES
    while True:
        try:
            return _launch(request)
        except ScreenPortTaken:
            tries -= 1
            if not tries:
                raise


def _launch(request: LaunchRequest) -> Running:
    folder = request.folder
    end_orphan(folder)
    clean_dead(folder)
    folder.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.log.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as held, ExitStack() as undo:
        alive_fd = liveness.hold(folder.run)
        held.callback(os.close, alive_fd)
        undo.callback(shutil.rmtree, folder.run, ignore_errors=True)
        tpm = None if request.tpm_state is None else held.enter_context(Tpm(request.tpm_state))
        started_at = time.time()
        with uninterrupted():  # between being there and being ended by `undo`
            process = _spawn(request, alive_fd, held, tpm)
            undo.callback(process.kill)
        if tpm is not None:
            tpm.start(
                folder.tpm_log,
                timeout_s=START_TIMEOUT_S,
                die_with_parent=request.die_with_parent,
            )
        held.close()  # from here on QEMU alone holds the sockets and the lock
        try:
            state = _introduce(request, process, started_at)
        except QemuFailed as error:
            raise _start_failure(request, process, error) from error
        folder.password.unlink(missing_ok=True)  # QEMU has read it
        liveness.write_state(folder.run, state)
        for network in request.lans:
            lan.ensure_switch(network)  # it may have gone to sleep just before QEMU came
        undo.pop_all()
    return Running(state, process)


def _spawn(request: LaunchRequest, alive_fd: int, held: ExitStack, tpm: Tpm | None) -> Process:
    """Write what QEMU reads, bind the sockets, find its places in networks, and start it."""
    folder = request.folder
    _write_files(request)
    listeners = {
        name: held.enter_context(sockets.listen(path)).fileno()
        for name, path in (
            ("qmp", folder.qmp_socket),
            ("events", folder.events_socket),
            ("console", folder.console_socket),
            ("agent", folder.agent_socket),
        )
    }
    ports = [
        held.enter_context(lan.attached(path, f"{folder.run.name}-{number}"))
        for number, path in enumerate(request.lans)
    ]
    taps = [held.enter_context(tap_on(bridge)) for bridge in request.bridges]
    event_record = ""
    if request.spec.install is not None:
        event_records.prepare(folder.event_record)
        event_record = str(folder.event_record)
    argv = qemu_argv(
        Launch(
            name=request.name,
            uuid=request.uuid,
            spec=request.spec,
            memory_mib=request.memory_mib,
            accel=request.accel.name,
            disks=request.disks,
            media=request.media,
            firmware=request.firmware,
            seed=str(folder.seed) if request.seed else "",
            macs=request.macs,
            lan_ports=tuple(port.sockets for port in ports),
            bridge_ports=tuple(
                BridgePort(bridge, tap) for bridge, tap in zip(request.bridges, taps, strict=True)
            ),
            tpm_fd=None if tpm is None else tpm.qemu_fd,
            secret=str(folder.password) if request.spec.graphics.password else "",
            spice_port=_spice_port(request.spec),
            console_log=str(folder.console_log),
            firmware_log=str(folder.firmware_log),
            event_record=event_record,
            program=request.program,
            qmp=listeners["qmp"],
            events=listeners["events"],
            console=listeners["console"],
            agent=listeners["agent"],
        )
    )
    if request.paused:
        argv.append("-S")
    tpm_fds = [] if tpm is None else [tpm.qemu_fd]
    folders = [port.folder_fd for port in ports]
    return spawn(
        argv,
        log=folder.qemu_log,
        pass_fds=[alive_fd, *listeners.values(), *folders, *taps, *tpm_fds],
        die_with_parent=request.die_with_parent,
    )


def _write_files(request: LaunchRequest) -> None:
    """Write what QEMU reads at its start: the seed, and the password of the screen."""
    from thinvirt.run.seed_disc import write_seed_disc

    folder, password = request.folder, request.spec.graphics.password
    if request.seed:
        write_seed_disc(folder.seed, request.seed)
    if password:
        write_password(folder.password, password)


def _spice_port(spec: VmSpec) -> int:
    graphics = spec.graphics
    if graphics.kind != "spice" or graphics.port is not None:
        return VNC_BASE_PORT
    return free_port(graphics.listen)


def _introduce(request: LaunchRequest, process: Process, started_at: float) -> RunState:
    """Shake hands with a QEMU that was just started and collect its facts."""
    spec = request.spec
    with QmpClient(request.folder.qmp_socket, timeout_s=START_TIMEOUT_S) as qmp:
        has_user_network = any(network.kind == "user" for network in spec.networks)
        return RunState(
            pid=process.pid,
            start_ticks=process.start_ticks,
            started_at=started_at,
            accel=request.accel.name,
            accel_reason=request.accel.reason,
            ssh_port=ssh_port(qmp) if has_user_network else None,
            vnc=vnc_address(qmp) if spec.graphics.kind == "vnc" else "",
            spice=spice_address(qmp) if spec.graphics.kind == "spice" else "",
            qemu_version=qmp.version,
            argv=tuple(command_line(process.pid)),
        )


def ssh_port(qmp: QmpClient) -> int | None:
    """Return the port of 127.0.0.1 that leads to the guest's port 22; the kernel chose it.

    QMP has no word for it. The human monitor prints one line per forward: protocol, descriptor,
    source address and port, destination address and port, two queue lengths.
    """
    for line in qmp.monitor("info usernet").splitlines():
        words = line.split()
        if words[:1] == ["TCP[HOST_FORWARD]"] and words[5:6] == ["22"]:
            return int(words[3])
    return None


def command_line(pid: int) -> list[str]:
    """Return a process's command line."""
    raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]


def _start_failure(request: LaunchRequest, process: Process, error: QemuFailed) -> ThinvirtError:
    """Return why QEMU did not start, in its own words where it said any."""
    status = process.wait(_DEATH_TIMEOUT_S if not isinstance(error, QmpError) else 0)
    said = _read(request.folder.qemu_log)
    if "tpm-emulator" in said and request.tpm_state is not None:
        said = f"{_read(request.folder.tpm_log)}{said}"  # QEMU knows only that it went away
    return explain(said, status, request.spec, error)


def _read(log: Path) -> str:
    try:
        return log.read_text(errors="replace")
    except OSError:
        return ""


def orphan_state(folder: VmFolder) -> RunState | None:
    """Return the facts of a QEMU that lives though whoever started it never wrote them down.

    That happens if a command is killed while it starts a VM. The caller holds the VM's lock, so
    that nobody is just starting it.
    """
    if not liveness.is_alive(folder.run) or folder.state.exists():
        return None
    pid = holder_of(folder.alive)
    ticks = None if pid is None else liveness.start_ticks(pid)
    if pid is None or ticks is None:
        return None
    return RunState(pid=pid, start_ticks=ticks, started_at=time.time())


def end_orphan(folder: VmFolder) -> None:
    """End a QEMU whose start was never finished; its guest has not got far."""
    orphan = orphan_state(folder)
    if orphan is not None:
        kill(orphan)


def clean_dead(folder: VmFolder) -> bool:
    """Remove the run folder of a VM that is dead; return whether there was one.

    The caller holds the VM's lock: otherwise a start that is just under way would lose its folder.
    """
    if not folder.run.is_dir() or liveness.is_alive(folder.run):
        return False
    shutil.rmtree(folder.run, ignore_errors=True)
    return True


def bury(folder: VmFolder) -> None:
    """Remove the run folder of a VM whose QEMU has just ended, once its lock is gone too."""
    liveness.wait_dead(folder.run)
    clean_dead(folder)


def is_halted(folder: VmFolder) -> bool:
    """Tell whether QEMU has halted the guest because its disk could not be written: no space left.

    QEMU does so by itself, so that the guest never sees the error; it keeps what was to be written.
    A QEMU that cannot be asked just now is not known to have.
    """
    try:
        with QmpClient(folder.qmp_socket, timeout_s=_ASK_TIMEOUT_S) as qmp:
            return bool(qmp.execute("query-status")["status"] == "io-error")
    except ThinvirtError:
        return False


def resume(folder: VmFolder) -> bool:
    """Let a guest that `is_halted` go on where it stands; return whether it goes.

    What failed is tried again, and if it fails again the guest is halted as before.

    Raises:
        QemuFailed, Busy: QEMU cannot be asked.
    """
    with QmpClient(folder.qmp_socket) as qmp:
        qmp.execute("cont")
        time.sleep(_RETRY_S)
    return not is_halted(folder)


def quit_now(folder: VmFolder, state: RunState, *, timeout_s: float) -> bool:
    """End a running QEMU at once: by ``quit``, which writes out the disk, then by SIGKILL.

    Args:
        folder: the VM's files; its run folder is removed.
        state: its facts.
        timeout_s: how long it has for ``quit``.

    Returns:
        whether it ended by itself; False says it had to be killed.
    """
    deadline = time.monotonic() + timeout_s
    try:
        with QmpClient(folder.qmp_socket, timeout_s=max(0.1, timeout_s)) as qmp:
            qmp.execute("quit", timeout_s=max(0.1, timeout_s))
    except ThinvirtError:
        pass  # it is ending, or it hangs: what follows settles both
    gone = wait_end(state.pid, state.start_ticks, max(0.0, deadline - time.monotonic()))
    if not gone:
        kill(state)
    bury(folder)
    return gone


def kill(state: RunState) -> None:
    """Kill a QEMU and wait until the kernel has buried it.

    Raises:
        QemuFailed: it does not die: it hangs in the kernel, on storage that does not answer.
    """
    import signal

    send_signal(state.pid, state.start_ticks, signal.SIGKILL)
    if not wait_end(state.pid, state.start_ticks, _DEATH_TIMEOUT_S):
        raise QemuFailed(
            f"QEMU (process {state.pid}) does not die",
            hint="it waits for storage that does not answer: dmesg says which",
        )


@contextmanager
def connected(folder: VmFolder, *, timeout_s: float = 30.0) -> Iterator[QmpClient]:
    """Give a connection to the control socket of a running VM, for as short as it takes.

    Raises:
        QemuFailed: the VM does not run, or its QEMU ends meanwhile.
        Busy: another process keeps the socket.
    """
    with QmpClient(folder.qmp_socket, timeout_s=timeout_s) as qmp:
        yield qmp
