"""`thinvirt run` under a stand-in supervisor: docs/reference/run.md, sentence by sentence."""

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests import mini_guest
from tests.mini_guest import THINVIRT, environment, thinvirt

from thinvirt.run import sockets
from thinvirt.service.templates import import_image
from thinvirt.store import open_store

pytestmark = pytest.mark.system

OPTIONS = ("--memory", "16", "--vnc", "off")
BLOCKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mini_guest.build(tmp_path_factory.mktemp("mini"))


@pytest.fixture
def mini(home: Path, image: Path) -> Path:
    """Return the home of a store that has the template `mini`."""
    with closing(open_store(home)) as store:
        import_image(store, image, name="mini")
    return home


class Job:
    """A run in a process group of its own, as supervisors start it."""

    def __init__(self, home: Path, *words: str, user: int | None = None, **options: Any) -> None:
        self.home = home
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # the tests run under nohup
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.process = subprocess.Popen(
            [THINVIRT, "run", *words],
            env=environment(home, **options.pop("env", {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            **options,
        )
        self.qemu = -1
        self.told: dict[str, Any] = {}

    def ready(self) -> "Job":
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.end()[1])
        self.told = mini_guest.facts(line.decode())
        self.qemu = os.pidfd_open(self.told["pid"])
        return self

    def signal_group(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def end(self, timeout_s: float = 60) -> tuple[int, str]:
        """Return exit status and standard error; QEMU has ended by then."""
        _, errors = self.process.communicate(timeout=timeout_s)
        self.wait_qemu(0)
        return self.process.returncode, errors.decode()

    def wait_qemu(self, timeout_s: float = 10) -> None:
        if self.qemu >= 0:
            assert select.select([self.qemu], [], [], timeout_s)[0], "QEMU is still there"

    def type(self, keys: bytes) -> None:
        """Type at the guest's console, and wait for its echo."""
        run = next((self.home / "run").glob("*/console.sock"))
        with sockets.connect(run, timeout_s=10) as console:
            for key in keys:
                console.send(bytes([key]))
                while console.recv(1) != bytes([key]):
                    pass

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        if self.qemu >= 0:
            self.wait_qemu()
            os.close(self.qemu)
            self.qemu = -1


@pytest.fixture
def start(mini: Path) -> Iterator[Any]:
    jobs: list[Job] = []

    def begin(*words: str, **options: Any) -> Job:
        jobs.append(Job(mini, *words, **options))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.close()


def leftovers(home: Path) -> list[str]:
    """Everything in a store that is not there in one with a template alone."""
    kept = ("templates", "ssh", "locks", "networks", "incoming")
    found = [str(path.relative_to(home)) for path in home.rglob("*")]
    parents = {"disks", "run", "log", *kept}
    return [
        name
        for name in found
        if name.partition("/")[0] not in kept
        and name not in parents
        and not name.startswith("catalog.sqlite3")
    ] + [name for name in found if name.startswith("locks/maker")]


def rows(home: Path) -> list[str]:
    with closing(open_store(home)) as store:
        return [vm.name for vm in store.catalog.iter_vms()]


@pytest.mark.parametrize("number", BLOCKED, ids=lambda n: n.name)
def test_a_signal_to_the_whole_group_is_a_clean_power_off(
    mini: Path, start: Any, number: signal.Signals
) -> None:
    job = start("mini", *OPTIONS).ready()
    assert (job.told["stage"], job.told["hostname"]) == ("login", "mini")
    job.signal_group(number)
    status, errors = job.end()
    assert (status, errors) == (0, "")
    assert leftovers(mini) == []
    assert rows(mini) == []


def test_qemu_has_the_signals_blocked_and_its_parent_is_lean(start: Any) -> None:
    job = start("mini", *OPTIONS).ready()
    lines = Path(f"/proc/{job.told['pid']}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    assert int(status["PPid"]) == job.process.pid
    blocked = int(status["SigBlk"], 16)
    assert all(blocked >> (number - 1) & 1 for number in BLOCKED)
    deadline = time.monotonic() + 10  # it tells first and becomes lean then
    while b"supervise.py" not in Path(f"/proc/{job.process.pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    ours = Path(f"/proc/{job.process.pid}/status").read_text()
    resident_kib = int(ours.partition("VmRSS:")[2].split()[0])
    assert resident_kib < 14 << 10


def test_a_guest_deaf_to_acpi_is_ended_in_time(mini: Path, start: Any) -> None:
    job = start("mini", *OPTIONS, "--stop-timeout", "3").ready()
    job.type(b"d")
    job.signal_group(signal.SIGTERM)
    status, errors = job.end(timeout_s=20)
    assert status == 0
    assert "did not power off in time and was ended" in errors
    assert leftovers(mini) == []


def test_a_second_signal_ends_at_once(mini: Path, start: Any) -> None:
    job = start("mini", *OPTIONS, "--stop-timeout", "600").ready()
    job.type(b"d")
    for _ in range(3):  # a burst is one request
        job.signal_group(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        job.process.wait(timeout=2)
    job.signal_group(signal.SIGTERM)
    assert job.end(timeout_s=30)[0] == 0
    assert leftovers(mini) == []


def test_a_qemu_that_hangs_is_killed_in_time(mini: Path, start: Any) -> None:
    job = start("mini", *OPTIONS, "--stop-timeout", "3").ready()
    os.kill(job.told["pid"], signal.SIGSTOP)
    job.signal_group(signal.SIGTERM)
    status, errors = job.end(timeout_s=20)
    assert status == 1
    assert "killed" in errors
    assert leftovers(mini) == []


def test_the_guest_may_power_off_by_itself(mini: Path, start: Any) -> None:
    job = start("mini", *OPTIONS).ready()
    job.type(b"p")
    assert job.end() == (0, "")
    assert leftovers(mini) == []


def test_a_qemu_that_dies_is_a_failure(mini: Path, start: Any) -> None:
    job = start("mini", *OPTIONS).ready()
    os.kill(job.told["pid"], signal.SIGABRT)
    status, errors = job.end()
    assert status == 1
    assert "QEMU was ended by signal 6" in errors
    assert leftovers(mini) == []


@pytest.mark.parametrize("whole_group", [False, True], ids=["process", "group"])
def test_what_a_killed_run_left_goes_with_the_next_command(
    mini: Path, start: Any, whole_group: bool
) -> None:
    job = start("mini", *OPTIONS).ready()
    if whole_group:
        job.signal_group(signal.SIGKILL)
    else:
        job.process.kill()
    job.process.wait()
    job.wait_qemu()
    assert leftovers(mini) != []
    assert thinvirt(mini, "wait", "nobody").returncode == 3
    assert leftovers(mini) == []
    assert rows(mini) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_a_run_may_be_stopped_or_killed_at_any_moment(
    mini: Path, start: Any, number: signal.Signals
) -> None:
    began = time.monotonic()
    start("mini", *OPTIONS, "--ready", "qmp").ready().close()
    whole = time.monotonic() - began
    for step in range(1, 7):
        job = start("mini", *OPTIONS, "--ready", "qmp")
        time.sleep(whole * step / 6)
        job.signal_group(number)
        status, _ = job.end()
        assert status in (0, -number)  # before our first line runs a signal has its default effect
        thinvirt(mini, "wait", "nobody")
        assert (leftovers(mini), rows(mini)) == ([], [])
    alive = subprocess.run(["pgrep", "-f", f"file.*{mini}"], capture_output=True, check=False)
    assert alive.stdout == b""


def test_attempts_differ_in_identity_and_a_name_persists(mini: Path, start: Any) -> None:
    told = []
    for words in ((), (), ("--name", "web"), ("--name", "web", "--vcpus", "2")):
        job = start("mini", *OPTIONS, *words).ready()
        told.append(job.told)
        if words:
            second = start("mini", *OPTIONS, *words)
            status, errors = second.end()
            assert (status, "running already" in errors) == (75, True)
        job.signal_group(signal.SIGTERM)
        assert job.end()[0] == 0
    assert len({facts["uuid"] for facts in told[:3]}) == 3
    assert len({facts["mac"] for facts in told[:3]}) == 3
    assert (told[2]["uuid"], told[2]["name"]) == (told[3]["uuid"], "web")
    assert rows(mini) == ["web"]
    with closing(open_store(mini)) as store:
        assert store.catalog.find_vm("web").spec.vcpus == 2
    assert list((mini / "run").iterdir()) == []
    assert len(list((mini / "disks").rglob("*.qcow2"))) == 1


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_service_manager_is_told(tmp_path: Path, start: Any, abstract: bool) -> None:
    name = f"thinvirt-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        manager.settimeout(30)
        address = f"@{name}" if abstract else name
        job = start("mini", *OPTIONS, env={"NOTIFY_SOCKET": address}).ready()
        heard = ""
        while "READY=1" not in heard:
            heard = manager.recv(4096).decode()
        assert "STATUS=" in heard
        environ = Path(f"/proc/{job.told['pid']}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environ
        job.signal_group(signal.SIGTERM)
        while "STOPPING=1" not in heard:
            heard = manager.recv(4096).decode()
        assert job.end()[0] == 0


def test_the_ready_descriptor_gets_a_line_and_is_closed(start: Any) -> None:
    reader, writer = os.pipe()
    job = start("mini", *OPTIONS, "--ready-fd", str(writer), pass_fds=(writer,))
    os.close(writer)
    with open(reader, "rb") as file:
        data = file.read()  # until the last holder has closed it
    assert data.endswith(b"\n")
    assert data.decode() == job.process.stdout.readline().decode()


def test_standard_output_may_be_gone(mini: Path, start: Any) -> None:
    job = start("mini", *OPTIONS)
    job.process.stdout.close()
    job.process.stdout = None
    deadline = time.monotonic() + 30
    while b"supervise.py" not in Path(f"/proc/{job.process.pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.signal_group(signal.SIGTERM)
    assert job.end()[0] == 0


def test_a_guest_that_is_not_ready_in_time_is_ended(mini: Path, start: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(1 << 20))
    with closing(open_store(mini)) as store:
        import_image(store, empty, name="empty")
    job = start("empty", *OPTIONS, "--timeout", "1", "--stop-timeout", "2")
    status, errors = job.end()
    assert status == 1
    assert "not ready within 1 s" in errors
    assert leftovers(mini) == []


@pytest.mark.parametrize(
    ("words", "env", "status", "says"),
    [
        (["mini", "--nonsense"], {}, 78, "unrecognized arguments"),
        (["mini", "--ready", "never"], {}, 78, "invalid choice"),
        (["mini", "--name", "not a name"], {}, 78, "cannot name a VM"),
        (["mini", "--memory", "lots"], {}, 78, "invalid memory size"),
        (["mini", "--machine", "q35", "--bus", "ide"], {}, 78, "no IDE bus"),
        (["mini", "--user-data", "/nowhere"], {}, 78, "no file"),
        (["mini", "--ready-fd", "77"], {}, 78, "not open"),
        (["mini", "--stop-timeout", "nan"], {}, 78, "not possible"),
        (["bad name!"], {}, 78, "cannot name a template"),
        ([], {}, 78, "TEMPLATE"),
        (["minl"], {}, 75, "did you mean"),
        (["mini", "--require-kvm"], {}, 75, "no KVM here"),
        (["mini"], {"THINVIRT_QEMU": "/nowhere/qemu"}, 75, "not installed"),
        (["mini"], {"THINVIRT_QEMU": "/bin/false"}, 1, "QEMU"),
    ],
)
def test_the_exit_status_tells_whether_another_host_would_do(
    mini: Path, words: list[str], env: dict[str, str], status: int, says: str
) -> None:
    done = thinvirt(mini, "run", *words, **env)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers(mini) == []
    assert rows(mini) == []


def test_without_a_store_another_host_may_do(home: Path) -> None:
    done = thinvirt(home, "run", "mini")
    assert done.returncode == 75
    assert not home.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become an ordinary user")
def test_as_an_ordinary_user(image: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="thinvirt-user-", dir="/tmp") as name:
        home = Path(name) / "store"
        os.chown(name, 65534, 65534)
        script = (
            "import sys; from pathlib import Path; from thinvirt.store import open_store;"
            "from thinvirt.service.templates import import_image;"
            "import_image(open_store(), Path(sys.argv[1]), name='mini')"
        )
        copy = Path(name) / "mini.img"
        copy.write_bytes(image.read_bytes())
        env = {"HOME": name, "XDG_CACHE_HOME": f"{name}/cache"}
        python = str(Path(THINVIRT).with_name("python"))
        subprocess.run(
            [python, "-c", script, str(copy)],
            env=environment(home, **env),
            user=65534,
            group=65534,
            extra_groups=[],
            check=True,
        )
        job = Job(home, "mini", *OPTIONS, user=65534, env=env)
        try:
            job.ready()
            job.signal_group(signal.SIGTERM)
            assert job.end()[0] == 0
            assert leftovers(home) == []
        finally:
            job.close()
