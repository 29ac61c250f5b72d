"""SIGKILL at any moment: the next command finds the store sound, and nothing half made."""

import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fault.store_faults import assert_sound, command, make_image, names, run

from thinvirt.service.templates import import_image
from thinvirt.store import open_store
from thinvirt.store.batches import create_batch

COUNT = 600


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "store"
    store = open_store(home)
    import_image(store, make_image(tmp_path / "base.img"), name="tiny")
    create_batch(store, store.catalog.find_template("tiny"), ["keep-1", "keep-2"])
    store.close()
    return home


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    """Kill the process as soon as `reached`, or let it end."""
    while process.poll() is None and not reached():
        time.sleep(0.0002)
    process.kill()
    process.wait()


def overlays_made(home: Path) -> int:
    batches = sorted((home / "disks").iterdir(), key=lambda p: int(p.name))
    try:
        return len(os.listdir(batches[-1])) if len(batches) > 1 else -1
    except FileNotFoundError:
        return -1


@pytest.mark.parametrize("after", [0, 1, COUNT // 2, COUNT])
def test_a_batch_killed_after_so_many_overlays(home: Path, after: int) -> None:
    process = command(home, "clone", "tiny", "web", "--count", str(COUNT))
    kill_when(process, lambda: overlays_made(home) >= after)
    left = names(home)
    assert len(left) in (2, COUNT + 2)
    assert left[:2] == ["keep-1", "keep-2"]
    store = assert_sound(home)
    for name in random.Random(after).sample(left, 2):
        disk = store.overlay(store.catalog.find_vm(name))
        subprocess.run(["qemu-img", "check", "-q", disk], check=True)
        subprocess.run(["qemu-img", "info", "--backing-chain", disk], check=True, stdout=-3)


def test_batches_and_removals_killed_at_random_moments(home: Path) -> None:
    chance = random.Random(20)
    began = time.monotonic()
    assert run(home, "clone", "tiny", "first", "--count", "300").returncode == 0
    whole_s = time.monotonic() - began
    made = {"keep-": {0, 2}, "first-": {0, 300}}
    expected = 302
    for attempt in range(6):
        if attempt % 3 == 2 and expected > 2:
            process = command(home, "rm", "first-*" if attempt == 2 else f"n{attempt - 2}-*")
        else:
            process = command(home, "clone", "tiny", f"n{attempt}", "--count", "300")
            made[f"n{attempt}-"] = {0, 300}
        time.sleep(chance.uniform(0.2, 1.1) * whole_s)
        process.kill()
        process.wait()
        left = names(home)
        for prefix, possible in made.items():
            assert sum(name.startswith(prefix) for name in left) in possible
        assert_sound(home)
        expected = len(left)


def test_an_import_killed_at_random_moments(home: Path, tmp_path: Path) -> None:
    big = make_image(tmp_path / "big.img", 24 << 20)
    chance = random.Random(21)
    began = time.monotonic()
    assert run(home, "template", "import", str(big), "--name", "first").returncode == 0
    whole_s = time.monotonic() - began
    for attempt in range(6):
        with big.open("r+b") as file:
            file.write(attempt.to_bytes(8, "big"))
        process = command(home, "template", "import", str(big), "--name", "big")
        time.sleep(chance.uniform(0.3, 1.1) * whole_s)
        process.kill()
        process.wait()
        names(home)
        assert_sound(home)
    assert run(home, "template", "verify").returncode == 0


def test_a_template_removal_killed(home: Path, tmp_path: Path) -> None:
    chance = random.Random(22)
    for attempt in range(5):
        image = make_image(tmp_path / "other.img")
        assert run(home, "template", "import", str(image), "--name", "other").returncode == 0
        process = command(home, "template", "rm", "other")
        time.sleep(chance.uniform(0.05, 0.25))
        process.kill()
        process.wait()
        names(home)
        store = assert_sound(home)
        if attempt % 2 and any(t.name == "other" for t in store.catalog.templates()):
            assert run(home, "template", "rm", "other").returncode == 0


def test_ctrl_c_undoes_at_once_and_says_130(home: Path) -> None:
    import signal

    process = command(home, "clone", "tiny", "web", "--count", "20000")
    while process.poll() is None and overlays_made(home) < 10:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert_sound(home)  # before any other command
    assert names(home) == ["keep-1", "keep-2"]
