"""Signals: SIGUSR1 asks how far a command is, Ctrl-C ends it, and no image is worse for it."""

import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu

pytestmark = pytest.mark.oracle

REAL = Path("/usr/bin/qemu-img")
_MEGABYTES = 8  # of data, at one a second: long enough for every signal


@pytest.fixture
def folder(tmp_path: Path, qemu: Qemu) -> Path:
    """Return a folder with an image, another one over it, and what both show."""
    qemu.img("create", "-q", "-f", "qcow2", "base", "16M")
    qemu.io("-c", f"write -P 1 0 {_MEGABYTES}M", "base")
    qemu.img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "over")
    qemu.io("-c", f"write -P 2 1M {_MEGABYTES}M", "over")
    qemu.img("convert", "-O", "raw", "over", "shown")
    return tmp_path


def _stamp(path: Path) -> tuple[int, int]:
    """Return what changes when somebody writes."""
    info = path.stat() if path.exists() else None
    return (info.st_mtime_ns, info.st_blocks) if info else (0, 0)


def _signalled(
    program: Path, folder: Path, number: int, *words: str, watched: str
) -> tuple[int, str]:
    """Send a signal while a file is being written; return the status and what is said."""
    process = subprocess.Popen(
        [program, *words], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        before = _stamp(folder / watched)
        enough = before[1] + (0 if before[0] else 4096)  # a new file is made before it is written
        while process.poll() is None:
            now = _stamp(folder / watched)
            if now != before and now[1] >= enough:
                break
            time.sleep(0.005)
        process.send_signal(number)
        err = ""
        if number == signal.SIGUSR1:
            err = process.stderr.readline()
            process.kill()
        err += process.communicate(timeout=60)[1]
    finally:
        watchdog.cancel()
    return process.returncode, err


_COMMANDS = {
    "convert": ("convert", "-r", "1M", "-O", "qcow2", "over", "new"),
    "convert to raw": ("convert", "-r", "1M", "over", "new"),
    "commit": ("commit", "-r", "1M", "over"),
}


@pytest.mark.parametrize("name", _COMMANDS)
def test_progress_is_told_when_asked(folder: Path, ours: Path, name: str) -> None:
    words = _COMMANDS[name]
    written = "base" if name == "commit" else "new"
    for program in (REAL, ours):
        _, err = _signalled(program, folder, signal.SIGUSR1, *words, watched=written)
        assert re.fullmatch(r"    \(\d+\.\d\d/100%\)\n", err), (program, err)
        (folder / "new").unlink(missing_ok=True)


@pytest.mark.parametrize("name", _COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_interrupted_is_as_before(
    folder: Path, ours: Path, qemu: Qemu, name: str, number: signal.Signals
) -> None:
    written = "base" if name == "commit" else "new"
    status, err = _signalled(ours, folder, number, *_COMMANDS[name], watched=written)
    assert status in {-number, 128 + number}
    assert "Traceback" not in err
    qemu.img("compare", "-f", "raw", "-F", "qcow2", "shown", "over")
    for image in ("base", "over", *(["new"] if name == "convert" else [])):
        done = qemu.run("qemu-img", "check", image)
        assert done.returncode in {0, 3}, done.stdout  # leaks at worst
    qemu.img("info", "over")  # nobody holds it any longer
