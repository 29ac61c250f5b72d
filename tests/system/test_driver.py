"""The embedded driver with a guest of one sector: starts, failures, and what others left behind."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sector_guest import PROMPT, kill_all, write_disk

from thinvirt.errors import Busy, Conflict, ProgramMissing, QemuFailed
from thinvirt.run import liveness, process, qemu
from thinvirt.run.accel import Acceleration
from thinvirt.run.folder import VmFolder
from thinvirt.run.qemu import LaunchRequest
from thinvirt.run.screenshot import screenshot
from thinvirt.vm.qemu import DiskLayer
from thinvirt.vm.spec import Forward, GraphicsSpec, NetworkSpec, VmSpec

pytestmark = pytest.mark.system


@pytest.fixture
def request_(tmp_path: Path) -> Iterator[LaunchRequest]:
    """A VM that can be launched; its folders lie deeper than a socket address reaches."""
    deep = tmp_path / ("d" * 110)
    folder = VmFolder(deep / "run" / "1", deep / "log" / "1")
    yield LaunchRequest(
        name="web-001",
        uuid="6ba7b811-9dad-51d1-80b4-00c04fd430c8",
        spec=VmSpec(),
        memory_mib=16,
        disks=((DiskLayer(str(write_disk(tmp_path / "disk.raw")), "raw"),),),
        macs=("52:54:00:00:00:01",),
        folder=folder,
        accel=Acceleration("tcg", "a test"),
        seed={"meta-data": "{}"},
    )
    kill_all(deep)


def until_prompt(folder: VmFolder) -> None:
    deadline = time.monotonic() + 60
    while PROMPT not in folder.console_log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_launch_and_quit(request_: LaunchRequest) -> None:
    running = qemu.launch(request_)
    folder, state = request_.folder, running.state
    assert liveness.read_state(folder.run) == state
    assert state.ssh_port
    assert state.vnc.startswith("127.0.0.1:")
    assert "-sandbox" in state.argv
    until_prompt(folder)
    assert "SeaBIOS" in folder.firmware_log.read_text()
    assert screenshot(folder).startswith(b"\x89PNG")
    assert os.getsid(state.pid) != os.getsid(0), "it outlives the command's terminal"
    for private in (folder.run, folder.log, folder.console_log, folder.seed, folder.qmp_socket):
        assert private.stat().st_mode & 0o077 == 0, private
    assert qemu.quit_now(folder, state, timeout_s=10)
    assert not folder.run.exists()
    assert folder.console_log.exists(), "the record stays"


def test_a_running_one_is_left_alone(request_: LaunchRequest) -> None:
    qemu.launch(request_)
    with pytest.raises(Busy):
        qemu.launch(request_)
    assert liveness.read_state(request_.folder.run) is not None


def test_a_killed_one_is_dead_and_cleaned(request_: LaunchRequest) -> None:
    running = qemu.launch(request_)
    os.kill(running.state.pid, signal.SIGKILL)  # it stays as a zombie: nobody waits for it here
    assert process.wait_end(running.state.pid, running.state.start_ticks, 10)
    assert not liveness.is_alive(request_.folder.run)
    assert request_.folder.qmp_socket.exists(), "stale sockets lie about"
    again = qemu.launch(request_)
    assert again.state.pid != running.state.pid


def test_a_hanging_one_is_killed(request_: LaunchRequest) -> None:
    running = qemu.launch(request_)
    os.kill(running.state.pid, signal.SIGSTOP)
    assert not qemu.quit_now(request_.folder, running.state, timeout_s=0.3)
    assert not liveness.is_alive(request_.folder.run)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"disks": ((DiskLayer("/nowhere/x.qcow2"),),)}, "No such file"),
        ({"macs": ("no mac",)}, "no mac"),
        ({"program": "/nowhere/qemu"}, "not installed"),
        ({"memory_mib": 1 << 40}, "ram|memory"),
    ],
)
def test_failures_are_quoted_and_leave_nothing(
    request_: LaunchRequest, change: dict[str, object], told: str
) -> None:
    kinds = ProgramMissing if "program" in change else Exception
    with pytest.raises(kinds, match=told):
        qemu.launch(replace(request_, **change))  # type: ignore[arg-type]
    assert not request_.folder.run.exists()


def test_a_taken_port_names_who_has_it(request_: LaunchRequest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        spec = VmSpec(forwards=(Forward(port, 80),))
        with pytest.raises(Conflict, match=rf"port {port}/tcp .* process {os.getpid()} "):
            qemu.launch(replace(request_, spec=spec))
    assert not request_.folder.run.exists()


def test_a_disk_in_use(request_: LaunchRequest, tmp_path: Path) -> None:
    qemu.launch(request_)
    other = VmFolder(request_.folder.run.with_name("2"), request_.folder.log.with_name("2"))
    with pytest.raises(Busy, match="disk open"):
        qemu.launch(replace(request_, folder=other))


def test_no_network_no_screen(request_: LaunchRequest) -> None:
    spec = VmSpec(networks=(NetworkSpec("none"),), graphics=GraphicsSpec("none"))
    running = qemu.launch(replace(request_, spec=spec, macs=()))
    assert (running.state.ssh_port, running.state.vnc) == (None, "")
    assert screenshot(request_.folder).startswith(b"\x89PNG")


def test_two_lans_share_no_port(request_: LaunchRequest, tmp_path: Path) -> None:
    lan = request_.folder.run.parent / "lan"
    spec = VmSpec(networks=(NetworkSpec("lan", "a"), NetworkSpec("lan", "a")))
    macs = ("52:54:00:00:00:01", "52:54:01:00:00:01")
    qemu.launch(replace(request_, spec=spec, macs=macs, lans=(lan, lan)))
    assert {path.name for path in lan.glob("port-*")} == {"port-1-0.sock", "port-1-1.sock"}


_STARTER = """
import pickle, sys, time
from thinvirt.run import liveness, qemu
if sys.argv[1] == "unwritten":
    liveness.write_state = lambda *_: (print("up", flush=True), time.sleep(600))
qemu.launch(pickle.load(sys.stdin.buffer))
print("up", flush=True)
time.sleep(600)
"""


def start_elsewhere(request: LaunchRequest, how: str) -> subprocess.Popen[bytes]:
    """Launch the VM in a process of its own; return once QEMU answers there."""
    import pickle

    starter = subprocess.Popen([sys.executable, "-c", _STARTER, how], stdin=-1, stdout=-1)
    assert starter.stdin
    assert starter.stdout
    starter.stdin.write(pickle.dumps(request))
    starter.stdin.close()
    assert starter.stdout.readline() == b"up\n"
    return starter


def end(starter: subprocess.Popen[bytes], number: signal.Signals) -> None:
    starter.send_signal(number)
    starter.wait(timeout=60)
    assert starter.stdout
    starter.stdout.close()


def test_it_outlives_its_starter(request_: LaunchRequest) -> None:
    end(start_elsewhere(request_, "normal"), signal.SIGKILL)
    assert liveness.read_state(request_.folder.run) is not None


def test_an_interrupted_start_leaves_nothing(request_: LaunchRequest) -> None:
    end(start_elsewhere(request_, "unwritten"), signal.SIGINT)
    assert not request_.folder.run.exists()


def test_a_start_killed_half_way_is_finished_by_the_next(request_: LaunchRequest) -> None:
    end(start_elsewhere(request_, "unwritten"), signal.SIGKILL)
    folder = request_.folder
    assert liveness.is_alive(folder.run)
    assert liveness.read_state(folder.run) is None
    orphan = qemu.orphan_state(folder)
    assert orphan is not None
    running = qemu.launch(request_)
    assert running.state.pid != orphan.pid
    assert process.wait_end(orphan.pid, orphan.start_ticks, 0)


def test_as_a_child_it_dies_with_its_parent_and_hears_no_signals(request_: LaunchRequest) -> None:
    starter = start_elsewhere(replace(request_, die_with_parent=True), "normal")
    state = liveness.read_state(request_.folder.run)
    assert state is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(state.pid, number)
    status = Path(f"/proc/{state.pid}/status").read_text()
    blocked = int(next(line.split()[1] for line in status.splitlines() if "SigBlk" in line), 16)
    assert all(blocked >> (number - 1) & 1 for number in process.BLOCKED_SIGNALS)
    until_prompt(request_.folder)
    fd = os.pidfd_open(state.pid)
    end(starter, signal.SIGKILL)
    assert select.select([fd], [], [], 10)[0], "killed with its parent"
    os.close(fd)
    assert not liveness.is_alive(request_.folder.run)


def test_qemu_that_is_gone_is_told(request_: LaunchRequest) -> None:
    with pytest.raises(QemuFailed, match="not running"):
        screenshot(request_.folder)
