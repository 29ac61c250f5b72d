"""`thinvirt wait` with real guests: one that comes, one of another name, one that never comes."""

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import mini_guest
from tests.mini_guest import THINVIRT, environment, thinvirt

from thinvirt.service.templates import import_image
from thinvirt.store import open_store

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PATIENCE_S = "240"  # the machine may be busy with other tests


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_image: Path) -> Iterator[Path]:
    """Return a store where `web` boots tiny, `mini` prompts by another name, `void` is empty."""
    folder = tmp_path_factory.mktemp("wait")
    home = folder / "store"
    empty = folder / "empty.img"
    empty.write_bytes(bytes(1 << 20))
    store = open_store(home)
    for image, name in (
        (tiny_image, "tiny"),
        (mini_guest.build(folder), "mini"),
        (empty, "empty"),
    ):
        import_image(store, image, name=name)
    store.close()
    small = ("--memory", "16", "--vnc", "off")
    for words in (
        ("clone", "tiny", "web", "--vnc", "off", "--memory", "128"),
        ("clone", "mini", "mini", *small),
        ("clone", "empty", "void", *small, "--network", "none"),
        ("clone", "mini", "idle", *small),
        ("start", "web", "mini", "void"),
    ):
        done = thinvirt(home, *words)
        assert done.returncode == 0, done.stderr
    yield home
    thinvirt(home, "stop", "--force", "web", "mini", "void")


def test_a_real_guest_is_followed_to_login_ssh_and_agent(home: Path) -> None:
    done = thinvirt(home, "wait", "web", "--timeout", PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "web: login (" in done.stderr  # a line for each change
    assert "1 of 1 at login, " in done.stderr
    for until in ("ssh", "agent"):
        done = thinvirt(home, "wait", "web", f"--{until}", "--json", "--timeout", PATIENCE_S)
        assert (done.returncode, done.stderr) == (0, "")
        (result,) = json.loads(done.stdout)
        assert (result["name"], result["until"], result["reached"]) == ("web", until, True)
        assert (result["stage"], result["hostname"]) == ("login", "web")
        stages = result["stages"]
        assert {"firmware", "boot-loader", "init", "cloud-init", "network", "login"} <= set(stages)
        assert stages["firmware"] <= stages["boot-loader"] <= stages["init"] <= stages["login"]


def test_the_stuck_are_named_with_stage_and_reason(home: Path) -> None:
    done = thinvirt(home, "wait", "*", "--timeout", "2")
    assert done.returncode == 7
    assert "void: not within 2 s; stage firmware after " in done.stderr
    assert "a disk it can boot from" in done.stderr
    assert "idle: it is not running" in done.stderr
    assert "did not come to its login prompt" in done.stderr
    assert "hint: thinvirt console --log" in done.stderr


def test_a_guest_of_another_name_is_no_failure(home: Path) -> None:
    # The guest takes no seed: it says "mini" whatever the VM is called.
    thinvirt(home, "start", "idle")
    try:
        done = thinvirt(home, "wait", "idle", "--timeout", PATIENCE_S)
        assert done.returncode == 0
        assert "idle answers by another name: mini" in done.stderr
    finally:
        thinvirt(home, "stop", "--force", "idle")


def test_one_that_is_there_is_done_at_once_though_time_is_up(home: Path) -> None:
    assert thinvirt(home, "wait", "mini", "--timeout", PATIENCE_S).returncode == 0
    done = thinvirt(home, "wait", "mini", "--timeout", "0", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_vm_that_ends_meanwhile_ends_the_wait(home: Path) -> None:
    waiting = subprocess.Popen(
        [THINVIRT, "wait", "void", "--timeout", PATIENCE_S],
        env=environment(home),
        stderr=subprocess.PIPE,
    )
    assert waiting.stderr is not None
    waiting.stderr.readline()  # it has begun to watch
    assert thinvirt(home, "stop", "--now", "void").returncode == 0
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 7
    assert b"void: it has " in errors
    assert thinvirt(home, "start", "void").returncode == 0


def test_on_a_terminal_a_table_lives_and_ctrl_c_ends_it(home: Path) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # the tests run in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    master, slave = pty.openpty()
    waiting = subprocess.Popen(
        [THINVIRT, "wait", "void", "mini", "--timeout", PATIENCE_S],
        env=environment(home, TERM="xterm", COLUMNS="80", LINES="24"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    shown, deadline = b"", time.monotonic() + 60
    while b"1 of 2 at login" not in shown or b"ELAPSED" not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([master], [], [], 1)[0]:
            shown += os.read(master, 65536)
    waiting.send_signal(signal.SIGINT)
    while True:
        try:
            shown += os.read(master, 65536)
        except OSError:  # the last holder of the terminal has left
            break
    assert waiting.wait(timeout=20) == 130
    assert b"interrupted" in shown
    assert shown.rstrip().endswith(b"interrupted")
    assert b"\x1b[?25h" in shown  # the cursor is back
    os.close(master)


def test_what_cannot_be(home: Path) -> None:
    for words, status, says in (
        (("webb",), 3, "did you mean"),
        (("no*",), 3, "no*"),
        (("web", "--timeout", "-1"), 2, "not possible"),
        (("web", "--login", "--ssh"), 2, "not allowed with"),
        (("void", "--ssh", "--quiet"), 7, "no user network"),
    ):
        done = thinvirt(home, "wait", *words)
        assert (done.returncode, says in done.stderr) == (status, True), done.stderr
