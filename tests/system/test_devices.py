"""What stands beside QEMU: the TPM's process, passwords and ports of screens, UEFI, bridges."""

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.sector_guest import kill_all, write_disk

from thinvirt.errors import Busy, Conflict, ProgramMissing, QemuFailed
from thinvirt.run import liveness, qemu
from thinvirt.run.accel import Acceleration
from thinvirt.run.folder import VmFolder
from thinvirt.run.process import holder_of
from thinvirt.run.qemu import LaunchRequest
from thinvirt.run.qmp import QmpClient
from thinvirt.service.firmware import firmware_files, make_variables
from thinvirt.vm.qemu import DiskLayer
from thinvirt.vm.spec import GraphicsSpec, VmSpec

pytestmark = pytest.mark.system


@pytest.fixture
def request_(tmp_path: Path) -> Iterator[LaunchRequest]:
    """A VM that can be launched, below an awkward path."""
    deep = tmp_path / "a, b"
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
        seed={},
    )
    kill_all(deep)


def with_tpm(request: LaunchRequest) -> tuple[LaunchRequest, Path]:
    state = request.folder.run.parent.parent / "web.tpm"
    state.parent.mkdir(parents=True, exist_ok=True)
    return replace(request, spec=VmSpec(tpm="tpm-tis"), tpm_state=state), state


def until_gone(state: Path) -> None:
    """Wait until nobody has the TPM's state open."""
    deadline = time.monotonic() + 30
    while holder_of(state) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")
def test_a_tpm_lives_as_long_as_its_vm(request_: LaunchRequest) -> None:
    """Its process goes with QEMU, by quit and by kill -9, and its state stays."""
    request, state = with_tpm(request_)
    running = qemu.launch(request)
    with QmpClient(request.folder.qmp_socket) as qmp:
        (tpm,) = qmp.execute("query-tpm")
    assert tpm["model"] == "tpm-tis"
    assert holder_of(state) not in (None, running.state.pid)
    assert qemu.quit_now(request.folder, running.state, timeout_s=10)
    until_gone(state)
    assert state.stat().st_size > 0
    assert state.stat().st_mode & 0o077 == 0
    first = state.read_bytes()[:16]
    again = qemu.launch(request)  # at once
    qemu.kill(again.state)
    last = qemu.launch(request)
    qemu.kill(last.state)
    until_gone(state)
    assert state.read_bytes()[:16] == first


@pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")
def test_a_tpm_whose_vm_does_not_start_leaves_nothing(
    request_: LaunchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, state = with_tpm(request_)
    missing = ((DiskLayer("/nonexistent.raw", "raw"),),)
    with pytest.raises(QemuFailed, match="nonexistent"):
        qemu.launch(replace(request, disks=missing))
    until_gone(state)
    assert not request.folder.run.exists()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ProgramMissing, match="swtpm is not installed"):
        qemu.launch(request)
    assert not request.folder.run.exists()


@pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")
def test_a_killed_tpm_takes_nothing_else_along(request_: LaunchRequest) -> None:
    """The VM goes on without it; a second VM on the same state is refused meanwhile."""
    request, state = with_tpm(request_)
    running = qemu.launch(request)
    other = replace(request, folder=VmFolder(state.parent / "run/2", state.parent / "log/2"))
    with pytest.raises(Busy):
        qemu.launch(other)
    helper = holder_of(state)
    assert helper is not None
    os.kill(helper, signal.SIGKILL)
    until_gone(state)
    assert liveness.read_state(request.folder.run) == running.state


STARTER = """
import pickle, sys
from thinvirt.run import qemu
qemu.launch(pickle.loads(bytes.fromhex(sys.argv[1])))
"""


@pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")
def test_a_start_that_is_killed_leaves_no_tpm_alone(request_: LaunchRequest) -> None:
    """At whatever moment: with its QEMU the TPM goes, and the next start succeeds."""
    request, state = with_tpm(request_)
    for delay_s in (0.15, 0.2, 0.25, 0.3, 0.4, 0.6):
        with subprocess.Popen(
            [sys.executable, "-c", STARTER, pickle.dumps(request).hex()]
        ) as starter:
            time.sleep(delay_s)
            starter.kill()
        kill_all(request.folder.run)
        until_gone(state)
    assert liveness.read_state(request.folder.run) is None
    assert qemu.launch(request).state.pid


@pytest.mark.parametrize("kind", ["vnc", "spice"])
def test_a_password_is_nowhere_to_be_seen(request_: LaunchRequest, kind: str) -> None:
    """Neither on the command line nor in a file, once QEMU has read it."""
    graphics = GraphicsSpec(kind, "127.0.0.1", None, "sésame")  # type: ignore[arg-type]
    request = replace(request_, spec=VmSpec(graphics=graphics))
    state = qemu.launch(request).state
    assert "same" not in " ".join(state.argv)
    for path in request.folder.run.rglob("*"):
        assert path.is_socket() or "same" not in path.read_bytes().decode(errors="replace"), path
    address, _, port = (state.vnc or state.spice).rpartition(":")
    assert address == "127.0.0.1"
    assert state.screen.startswith(f"{kind}://127.0.0.1:")
    if kind == "vnc":
        assert vnc_security(int(port)) == [2]  # RFC 6143, 7.1.2: VNC authentication and no other
    else:
        with QmpClient(request.folder.qmp_socket) as qmp:
            assert qmp.execute("query-spice")["auth"] == "spice"


def vnc_security(port: int) -> list[int]:
    """Return the ways of authentication that a VNC server offers."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        assert client.recv(12).startswith(b"RFB 003.")
        client.sendall(b"RFB 003.008\n")
        (count,) = client.recv(1)
        return list(client.recv(count))


def test_every_spice_vm_finds_a_port_of_its_own(request_: LaunchRequest) -> None:
    spec = VmSpec(graphics=GraphicsSpec("spice"), networks=())
    first = replace(request_, spec=spec, macs=())
    top = request_.folder.run.parent.parent
    second = replace(
        first,
        folder=VmFolder(top / "run/2", top / "log/2"),
        disks=((DiskLayer(str(write_disk(top.parent / "two.raw")), "raw"),),),
    )
    addresses = {qemu.launch(one).state.spice for one in (first, second)}
    assert len(addresses) == 2
    taken = int(addresses.pop().rpartition(":")[2])
    asked = replace(spec, graphics=GraphicsSpec("spice", "127.0.0.1", taken))
    third = replace(second, spec=asked, folder=VmFolder(top / "run/3", top / "log/3"))
    with pytest.raises(Conflict, match=f"port {taken} for SPICE is taken by process"):
        qemu.launch(replace(third, disks=(), spec=replace(asked, disks=())))


@pytest.mark.parametrize("secure", [False, True])
def test_uefi_starts_with_variables_of_its_own(
    request_: LaunchRequest, tmp_path: Path, secure: bool
) -> None:
    """The firmware runs and writes what it found into the VM's own store, which stays."""
    spec = VmSpec(firmware="efi", secure_boot=secure, networks=(), machine="q35")
    variables = tmp_path / "web.vars.fd"
    make_variables(spec, variables)
    fresh = variables.read_bytes()
    request = replace(
        request_,
        spec=spec,
        macs=(),
        memory_mib=256,
        firmware=firmware_files(spec, variables),
    )
    state = qemu.launch(request).state
    deadline = time.monotonic() + 240
    while variables.read_bytes() == fresh or b"BdsDxe" not in serial(request.folder):
        assert time.monotonic() < deadline, serial(request.folder)[-2000:]
        time.sleep(0.2)
    assert qemu.quit_now(request.folder, state, timeout_s=10)
    assert variables.read_bytes() != fresh


def serial(folder: VmFolder) -> bytes:
    """Return what was said on the serial console and on the firmware's port."""
    said = folder.console_log.read_bytes() if folder.console_log.exists() else b""
    log = folder.firmware_log
    return said + (log.read_bytes() if log.exists() else b"")


NAMESPACE = """
set -e
mount --make-rprivate /
mkdir -p {etc}; cp -a /etc/passwd /etc/group /etc/ld.so.cache {etc} 2>/dev/null || true
mount --bind {etc} /etc
mount -t sysfs sysfs /sys
ip link set lo up
ip link add br-test type bridge
ip link set br-test up
exec {python} -m tests.system.on_bridge {folder}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")
def test_a_place_on_a_bridge(tmp_path: Path) -> None:
    """In a network of its own: refused without a list, then on the bridge, and gone at the end."""
    folder = tmp_path / "vm"
    folder.mkdir()
    script = NAMESPACE.format(etc=tmp_path / "etc", python=sys.executable, folder=folder)
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    if "No such file or directory" in done.stderr and "/dev/net/tun" in done.stderr:
        pytest.skip("this host has no /dev/net/tun")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split("\n")[:3] == ["refused", "allowed", "gone"]
