"""`thinvirt console` on a real terminal (a pty) and through pipes, against a guest that echoes."""

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import mini_guest
from tests.mini_guest import THINVIRT, environment, thinvirt

from thinvirt.run.liveness import is_alive
from thinvirt.service.templates import import_image
from thinvirt.store import open_store

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the home of a store with a VM `web`."""
    folder = tmp_path_factory.mktemp("console")
    home = folder / "store"
    store = open_store(home)
    import_image(store, mini_guest.build(folder), name="mini")
    store.close()
    done = thinvirt(home, "clone", "mini", "web", "--memory", "16", "--vnc", "off")
    assert done.returncode == 0, done.stderr
    yield home
    thinvirt(home, "stop", "--force", "web")


@pytest.fixture
def web(home: Path) -> Path:
    """Return the home of that store, `web` running and at its prompt."""
    if not any(is_alive(folder) for folder in (home / "run").iterdir()):
        for words in (("start", "web"), ("wait", "web", "--quiet")):
            done = thinvirt(home, *words)
            assert done.returncode == 0, done.stderr
    return home


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, home: Path, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.shown = b""
        self.process = subprocess.Popen(
            [THINVIRT, *words],
            env=environment(home, TERM="xterm"),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )

    def until(self, pattern: bytes, timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self.shown):
            left = deadline - time.monotonic()
            assert left > 0, self.shown
            if select.select([self.master], [], [], left)[0]:
                self.shown += os.read(self.master, 65536)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)

    def until_raw(self) -> None:
        deadline = time.monotonic() + 20
        while not self.is_raw:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self) -> int:
        status = self.process.wait(timeout=20)
        assert termios.tcgetattr(self.slave) == self.before  # whatever happened
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(web: Path) -> Iterator[Any]:
    opened: list[Terminal] = []

    def attach(*words: str) -> Terminal:
        opened.append(Terminal(web, "console", *words, "web"))
        return opened[-1]

    yield attach
    for each in opened:
        each.close()


def test_attach_type_detach(web: Path, terminal: Any) -> None:
    console = terminal()
    console.until(rb"escape character is \^\]")
    console.until(rb"mini login: ")  # shown at once, though it was printed before
    console.until_raw()
    console.type(b"hello \x03\x1a")  # Ctrl-C and Ctrl-Z go to the guest
    console.until(rb"hello \x03\x1a")
    console.type(b"\x1d")
    assert console.end() == 0
    console.until(rb"detached from 'web'; it runs on")
    assert thinvirt(web, "wait", "web", "--timeout", "5").returncode == 0


def test_another_escape_character(terminal: Any) -> None:
    console = terminal("--escape", "^A")
    console.until(rb"mini login: ")
    console.type(b"\x1dstill")
    console.until(rb"still")
    console.type(b"\x01")
    assert console.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_signals_leave_the_terminal_as_it_was(terminal: Any, number: signal.Signals) -> None:
    console = terminal()
    console.until_raw()
    console.process.send_signal(number)
    assert console.end() == (130 if number == signal.SIGINT else 0)


def test_the_vm_ends_while_somebody_is_attached(web: Path, terminal: Any) -> None:
    console = terminal()
    console.until(rb"mini login: ")
    console.type(b"p")
    assert console.end() == 0
    console.until(rb"'web' has ended")
    done = thinvirt(web, "console", "web")
    assert (done.returncode, "not running" in done.stderr) == (4, True)


def test_a_second_console_is_refused_or_takes_over(web: Path, terminal: Any) -> None:
    first = terminal()
    first.until(rb"mini login: ")
    done = thinvirt(web, "console", "web")
    assert done.returncode == 5
    assert f"process {first.process.pid} ({os.ttyname(first.slave)})" in done.stderr
    assert "--force" in done.stderr
    second = terminal("--force")
    second.until(rb"escape character")
    assert first.end() == 0
    first.until(rb"by a signal")
    second.type(b"mine")
    second.until(rb"mine")
    second.type(b"\x1d")
    assert second.end() == 0


def test_without_a_terminal_it_is_a_pipe(web: Path) -> None:
    done = subprocess.run(
        [THINVIRT, "console", "web"],
        env=environment(web),
        input=b"one\x1dtwo",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\x1dtwo", b"")


def test_the_record_is_printed_and_followed(web: Path) -> None:
    done = thinvirt(web, "console", "--log", "web")
    assert done.returncode == 0
    assert "mini login: " in done.stdout
    follower = subprocess.Popen(
        [THINVIRT, "console", "--log", "--follow", "web"],
        env=environment(web),
        stdout=subprocess.PIPE,
    )
    subprocess.run(
        [THINVIRT, "console", "web"], env=environment(web), input=b"abcp", timeout=60, check=True
    )
    output, _ = follower.communicate(timeout=60)
    assert (follower.returncode, output[-4:]) == (0, b"abcp")
    assert thinvirt(web, "console", "--log", "web").stdout.endswith("abcp")


def test_what_cannot_be(web: Path) -> None:
    thinvirt(web, "clone", "mini", "idle")
    for words, status, says in (
        (("wep",), 3, "did you mean web"),
        (("idle",), 4, "not running"),
        (("--log", "idle"), 3, "never started"),
        (("--follow", "web"), 2, "--log"),
        (("--escape", "^^^", "web"), 2, "escape"),
    ):
        done = thinvirt(web, "console", *words)
        assert (done.returncode, says in done.stderr) == (status, True), done.stderr
