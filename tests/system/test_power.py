"""start, stop, reboot, screenshot as typed, with guests of one sector; ssh with a real one."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mini_guest import THINVIRT, environment, thinvirt
from tests.sector_guest import PROMPT, kill_all, write_disk

from thinvirt.run import liveness
from thinvirt.service.clones import CloneRequest, clone
from thinvirt.service.templates import import_image
from thinvirt.store import Store, open_store
from thinvirt.vm.spec import Forward, GraphicsSpec, VmSpec

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SMALL = VmSpec(memory_mib=16, graphics=GraphicsSpec("none"))


@pytest.fixture
def store(home: Path, tmp_path: Path) -> Iterator[Store]:
    """A store with the VMs web-001 to web-003."""
    store = open_store(home)
    import_image(store, write_disk(tmp_path / "sector.img"), name="sector")
    clone(store, CloneRequest(template="sector", name="web", count=3, spec=SMALL))
    yield store
    store.close()
    kill_all(home)


def alive(store: Store) -> list[str]:
    return [
        vm.name
        for vm in store.catalog.find_vms(["*"])
        if liveness.is_alive(store.layout.run_dir(vm.id))
    ]


def command(store: Store, *words: str) -> subprocess.CompletedProcess[str]:
    return thinvirt(store.layout.home, *words)


def test_a_life(store: Store, tmp_path: Path) -> None:
    done = command(store, "start", "web-*", "--json")
    assert done.returncode == 0, done.stderr
    assert [fact["name"] for fact in json.loads(done.stdout)] == ["web-001", "web-002", "web-003"]
    assert len({fact["ssh_port"] for fact in json.loads(done.stdout)}) == 3
    assert command(store, "wait", "web-*").returncode == 0
    again = command(store, "start", "web-001")
    assert (again.returncode, "is running already" in again.stderr) == (4, True)

    shot = tmp_path / "screen.png"
    assert command(store, "screenshot", "web-001", str(shot)).returncode == 0
    assert shot.read_bytes().startswith(b"\x89PNG")

    gently = command(store, "reboot", "web-001")
    assert "restarted by Ctrl-Alt-Delete" in gently.stdout, gently
    assert "web-002: reset" in command(store, "reboot", "--hard", "web-002").stdout

    stopped = command(store, "stop", "web-001", "web-002")
    assert stopped.stdout.count("powered off") == 2, stopped
    assert alive(store) == ["web-003"]
    assert "killed" in command(store, "stop", "--force", "web-003").stdout
    assert list(store.layout.run.iterdir()) == []
    assert "was not running" in command(store, "stop", "web-003").stdout
    assert command(store, "reboot", "web-003").returncode == 4
    assert command(store, "screenshot", "web-003").returncode == 4
    assert command(store, "ssh", "web-003").returncode == 4


def test_a_deaf_guest_is_ended_by_force(home: Path, tmp_path: Path) -> None:
    store = open_store(home)
    import_image(store, write_disk(tmp_path / "deaf.img", deaf=True), name="deaf")
    clone(store, CloneRequest(template="deaf", name="deaf", spec=SMALL))
    try:
        assert command(store, "start", "deaf").returncode == 0
        stopped = command(store, "stop", "--timeout", "0.5", "deaf")
        assert "ended by force" in stopped.stdout
        check = ["qemu-img", "check", str(store.overlay(store.catalog.find_vm("deaf")))]
        subprocess.run(check, check=True, capture_output=True)
    finally:
        kill_all(home)


def test_one_failure_does_not_stop_the_others(store: Store) -> None:
    taken = VmSpec(
        memory_mib=16,
        graphics=GraphicsSpec("none"),
        forwards=(Forward(9, 9, "tcp", "203.0.113.1"),),
    )
    clone(store, CloneRequest(template="sector", name="a-bad", spec=taken))
    done = command(store, "start", "*", "--parallel", "8")
    assert done.returncode == 4
    assert "a-bad: port 9/tcp of 203.0.113.1" in done.stderr
    assert alive(store) == ["web-001", "web-002", "web-003"]


def test_a_changed_template_is_refused(store: Store) -> None:
    image = store.template_image(store.catalog.find_template("sector"))
    image.chmod(0o644)
    with image.open("r+b") as file:
        file.write(b"changed")
    done = command(store, "start", "web-001")
    assert done.returncode == 6
    assert "changed behind our back" in done.stderr
    assert not alive(store)


def test_two_commands_at_one_vm(store: Store) -> None:
    vm = store.catalog.find_vm("web-001")
    with store.lock_vm(vm, "promote"):
        done = command(store, "start", "web-001")
    assert done.returncode == 5
    assert f"process {os.getpid()} (thinvirt promote web-001)" in done.stderr


def test_qemu_missing(store: Store) -> None:
    done = thinvirt(store.layout.home, "start", "web-001", THINVIRT_QEMU="/nowhere/qemu")
    assert done.returncode == 69
    assert "qemu-system-x86" in done.stderr


def test_ctrl_c_leaves_no_vm_half_started(store: Store) -> None:
    """Interrupted at many moments: every VM either runs, with its facts, or is as before."""
    for tenth in range(1, 8):
        starting = subprocess.Popen(
            [THINVIRT, "start", "web-*"],
            env=environment(store.layout.home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(tenth / 15)
        starting.send_signal(signal.SIGINT)
        starting.wait(60)
        for vm in store.catalog.find_vms(["*"]):
            folder = store.layout.run_dir(vm.id)
            assert (liveness.read_state(folder) is not None) == folder.exists()
        assert command(store, "stop", "--force", "*").returncode == 0


def test_starts_are_throttled(store: Store) -> None:
    """With one slot, the second VM is started when the first shows its prompt, not before."""
    done = command(store, "start", "web-001", "web-002", "--parallel", "1", "--json")
    assert done.returncode == 0
    first, second = (
        liveness.read_state(store.layout.run_dir(store.catalog.find_vm(name).id))
        for name in ("web-001", "web-002")
    )
    assert first is not None
    assert second is not None
    log = store.layout.log_dir(store.catalog.find_vm("web-001").id) / "console.log"
    assert PROMPT in log.read_text()
    assert log.stat().st_mtime < second.started_at


def test_ssh_and_reboot_of_a_real_guest(home: Path, tiny_image: Path) -> None:
    store = open_store(home)
    import_image(store, tiny_image, name="tiny", facts={"login_user": "root", "memory_mib": 128})
    clone(
        store,
        CloneRequest(template="tiny", name="real", spec=VmSpec(graphics=GraphicsSpec("none"))),
    )
    try:
        assert command(store, "start", "real", "--wait", "ssh").returncode == 0
        done = command(store, "ssh", "real", "--", "hostname; echo out; echo err >&2; exit 7")
        assert (done.returncode, done.stdout) == (7, "real\nout\n")
        assert "err" in done.stderr
        assert command(store, "wait", "--agent", "real").returncode == 0
        assert "restarted by its agent" in command(store, "reboot", "real").stdout
        assert command(store, "wait", "--ssh", "real").returncode == 0
        assert command(store, "ssh", "real", "--", "true").returncode == 0, "the same host key"
        assert "powered off" in command(store, "stop", "real").stdout
    finally:
        kill_all(home)


def test_start_json_is_one_document_that_tells_of_the_waiting_too(store: Store) -> None:
    assert command(store, "start", "web-002").returncode == 0
    done = command(store, "start", "web-*", "--wait", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = {fact["name"]: fact for fact in json.loads(done.stdout)}
    assert sorted(facts) == ["web-001", "web-002", "web-003"]
    assert all(fact["reached"] and fact["stage"] == "login" for fact in facts.values())
    assert facts["web-001"]["ssh_port"]
    assert "action" not in facts["web-002"], "it ran already and was only waited for"


def test_json_of_a_start_that_comes_to_nothing(store: Store) -> None:
    late = command(store, "start", "web-001", "--wait", "agent", "--timeout", "0.5", "--json")
    assert late.returncode == 7
    (fact,) = json.loads(late.stdout)
    assert (fact["done"], fact["reached"]) == (True, False)
    assert json.loads(late.stderr)["error"]["kind"] == "timeout"


def test_clones_are_told_as_json_though_their_start_fails(store: Store) -> None:
    words = ("clone", "sector", "lost", "--json", "--start", "--memory", "16M")
    failed = thinvirt(store.layout.home, *words, THINVIRT_QEMU="/nonexistent/qemu")
    assert failed.returncode == 69
    assert [fact["name"] for fact in json.loads(failed.stdout)] == ["lost"]
    assert json.loads(failed.stderr)["error"]["kind"] == "program-missing"
    late = command(store, *words[:2], "late", *words[3:], "--wait", "--timeout", "0")
    (fact,) = json.loads(late.stdout)
    assert (late.returncode, fact["reached"], fact["pid"] > 0) == (7, False, True)


def test_less_memory_than_the_template_needs_is_said(home: Path, tmp_path: Path) -> None:
    store = open_store(home)
    image = write_disk(tmp_path / "sector.img")
    import_image(store, image, name="sector", facts={"min_memory_mib": 96})
    clone(store, CloneRequest(template="sector", name="small", spec=SMALL))
    try:
        done = command(store, "start", "small")
        assert done.returncode == 0
        assert "small: 16 MiB of memory is less than the 96 MiB that sector@1 needs" in done.stderr
        assert command(store, "stop", "--now", "small").returncode == 0
        assert command(store, "start", "small", "--quiet").stderr == ""
    finally:
        store.close()
        kill_all(home)


# In a mount namespace of its own: a store on a file system that a guest fills, and that is then
# given room again.
FULL_DISK = r"""
mount -t tmpfs -o size=64m tmpfs "$THINVIRT_HOME" || exit 99
thinvirt template import "$IMAGE" --name tiny --quiet >/dev/null
thinvirt clone tiny web --memory 128 --vnc off --start --quiet >/dev/null
thinvirt wait web --ssh --quiet || exit 1
trap 'thinvirt stop --force web >/dev/null' EXIT
dd if=/dev/zero of="$THINVIRT_HOME/fill" bs=4k 2>/dev/null
thinvirt ssh web -- 'dd if=/dev/zero of=/big bs=1M count=8 conv=fsync' >/dev/null 2>&1 &
for try in $(seq 100); do
    state=$(thinvirt show web | sed -n 's/^state: *//p')
    [ "$state" = running ] || break
    sleep 0.2
done
echo "$state"
thinvirt wait web --ssh --timeout 0 --quiet 2>&1 | grep -o 'no space left'
thinvirt start web >/dev/null 2>&1; echo "still full: $?"
rm "$THINVIRT_HOME/fill"
thinvirt start web | cut -d, -f1 | cut -d'(' -f1
wait $!; echo "written: $?"
thinvirt show web | sed -n 's/^state: *//p'
"""


def test_a_guest_halted_for_want_of_space_goes_on(home: Path, tiny_image: Path) -> None:
    namespace = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    home.mkdir()
    more = {"IMAGE": str(tiny_image), "PATH": f"{Path(THINVIRT).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*namespace, "sh", "-c", FULL_DISK],
        env=environment(home, **more),
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    if done.returncode == 99:
        pytest.skip("tmpfs cannot be mounted here")
    assert done.stdout.splitlines() == [
        "halted",
        "no space left",
        "still full: 75",
        "web: goes on where it was halted for want of space ",
        "written: 0",
        "running",
    ], done.stderr
