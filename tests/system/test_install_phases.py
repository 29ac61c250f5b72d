"""An installation goes through its two phases without anybody waiting, whatever is killed."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import installer_guest, sector_guest
from tests.mini_guest import THINVIRT, environment, facts, thinvirt

from thinvirt.run import liveness, sockets
from thinvirt.run.folder import VmFolder
from thinvirt.store import Store, open_store

pytestmark = pytest.mark.system
PATIENCE_S = 120.0


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("THINVIRT_ACCEL", "tcg")
    store = open_store(home)
    yield store
    for pid in _watchers(home):
        os.kill(pid, signal.SIGKILL)
    sector_guest.kill_all(home / "run")


def _watchers(home: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.endswith(b"phase_watch.py") for word in words) and bytes(home) in words:
                found.append(int(entry.name))
    return found


def _until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def _folder(store: Store) -> VmFolder:
    vm = store.catalog.find_vm("box")
    return VmFolder(store.layout.run_dir(vm.id), store.layout.log_dir(vm.id))


def _says(store: Store, text: str) -> bool:
    log = _folder(store).console_log
    return log.exists() and text.encode() in log.read_bytes()


def _answer(store: Store, text: str) -> None:
    """Wait for the installer's question and answer it."""
    _until(lambda: _says(store, "?"))
    with sockets.connect(_folder(store).console_socket, timeout_s=10) as console:
        assert isinstance(console, socket.socket)
        console.sendall(text.encode())
        _until(lambda: not liveness.is_alive(_folder(store).run) or _says(store, "login"))


def _words(folder: Path) -> list[str]:
    iso = installer_guest.write_disc(folder)
    words = ["install", "--name", "box", "--cdrom", str(iso), "--disk", "size=1M", "--osinfo"]
    words += ["none", "--memory", "16M", "--network", "none", "--graphics", "none", "--machine"]
    return [*words, "pc"]


def _begin(store: Store, folder: Path) -> None:
    done = thinvirt(store.layout.home, *_words(folder))
    assert done.returncode == 0, done.stderr
    assert len(_watchers(store.layout.home)) == 1


def _is_installing(store: Store) -> bool:
    return store.catalog.find_vm("box").spec.install is not None


def test_the_vm_comes_back_by_itself(store: Store, tmp_path: Path) -> None:
    """The installed system boots from its disk; the disc has become an ordinary CD-ROM drive."""
    _begin(store, tmp_path)
    first = liveness.read_state(_folder(store).run)
    _answer(store, "r")
    _until(lambda: _says(store, sector_guest.PROMPT))
    second = liveness.read_state(_folder(store).run)
    assert first is not None
    assert second is not None
    assert first.pid != second.pid
    assert "reboot=shutdown" in first.argv
    assert "reboot=shutdown" not in second.argv
    spec = store.catalog.find_vm("box").spec
    assert spec.install is None
    assert [disk.device for disk in spec.disks] == ["disk", "cdrom"]
    _until(lambda: not _watchers(store.layout.home))
    assert thinvirt(store.layout.home, "stop", "box").returncode == 0
    assert thinvirt(store.layout.home, "rm", "box").returncode == 0


def test_whoever_looks_next_continues(store: Store, tmp_path: Path) -> None:
    """With its watcher killed the VM stays off, and its next start is that of the second phase.

    Before that: stopping, killing and resetting it leave it to be installed.
    """
    home = store.layout.home
    _begin(store, tmp_path)
    assert thinvirt(home, "stop", "--force", "box").returncode == 0
    _until(lambda: not _watchers(home))
    assert _is_installing(store)

    assert thinvirt(home, "start", "box").returncode == 0
    sector_guest.kill_all(home / "run")
    _until(lambda: not _watchers(home))
    assert _is_installing(store)

    assert thinvirt(home, "start", "box").returncode == 0
    before = liveness.read_state(_folder(store).run)
    assert thinvirt(home, "reboot", "--hard", "box").returncode == 0
    assert before is not None
    _until(lambda: (now := liveness.read_state(_folder(store).run)) and now.pid != before.pid)
    assert _is_installing(store)

    _until(lambda: len(_watchers(home)) == 1)
    (watcher,) = _watchers(home)
    os.kill(watcher, signal.SIGKILL)
    _answer(store, "r")
    assert not liveness.is_alive(_folder(store).run)
    assert thinvirt(home, "start", "box").returncode == 0
    assert not _is_installing(store)
    _until(lambda: _says(store, sector_guest.PROMPT))


def test_an_installation_is_waited_for_and_left_off(store: Store, tmp_path: Path) -> None:
    """``--wait`` ends when the installer is done, and ``--noreboot`` leaves the VM off then."""
    home = store.layout.home
    words = [THINVIRT, *_words(tmp_path), "--noreboot", "--wait", "2"]
    with subprocess.Popen(words, env=environment(home), stderr=subprocess.PIPE) as command:
        _until(lambda: store.catalog.taken(["box"]))
        _answer(store, "r")
        assert command.wait(PATIENCE_S) == 0
    _until(lambda: not _watchers(home))
    assert not _is_installing(store)
    assert not liveness.is_alive(_folder(store).run)


def test_a_guest_that_powers_off_is_installed(store: Store, tmp_path: Path) -> None:
    _begin(store, tmp_path)
    _answer(store, "o")
    _until(lambda: not _watchers(store.layout.home))
    assert not _is_installing(store)
    shown = thinvirt(store.layout.home, "show", "box", "--json")
    assert facts(shown.stdout)["state"] == "stopped"
