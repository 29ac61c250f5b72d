"""The real programs, as the oracle tests call them."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.oracle


class Qemu:
    """Calls of qemu-img and qemu-io in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids: list[int] = []  # of those that forked away
        self._running: list[subprocess.Popen[str]] = []

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program; return what it said and how it ended."""
        return subprocess.run(
            arguments, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60
        )

    def img(self, *arguments: str) -> str:
        """Return what a successful qemu-img prints."""
        done = self.run("qemu-img", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def img_error(self, *arguments: str) -> str:
        """Return what a failing qemu-img says."""
        done = self.run("qemu-img", *arguments)
        assert done.returncode != 0
        return done.stderr

    def io(self, *arguments: str) -> str:
        """Return what a successful qemu-io prints."""
        done = self.run("qemu-io", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a program that is ended with the test."""
        process = subprocess.Popen(
            arguments,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(process)
        return process

    def serve(self, *arguments: str) -> None:
        """Start qemu-nbd, which ends with the test; return when it listens."""
        where = self.folder / "nbd.pid"
        subprocess.run(  # no pipes: it would hold them open
            ("qemu-nbd", "-t", "--fork", "--pid-file", str(where), *arguments),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=60,
        )
        self.pids.append(int(where.read_text()))

    def hold(self, *arguments: str) -> subprocess.Popen[str]:
        """Start qemu-io and return when it has the image open."""
        process = self.start("qemu-io", *arguments)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("length\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "qemu-io did not open the image"
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """End a program and wait for it."""
        process.kill()
        process.communicate(timeout=30)

    def end_pids(self) -> None:
        """End those that forked away, and wait until they are gone."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 30
            while Path(f"/proc/{pid}/cmdline").exists() and time.monotonic() < deadline:
                if not Path(f"/proc/{pid}/cmdline").read_bytes():
                    break  # a zombie that nobody waits for
                time.sleep(0.01)
        self.pids.clear()

    def end_all(self) -> None:
        """End what still runs."""
        self.end_pids()
        for process in self._running:
            if process.poll() is None:
                self.end(process)


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    """Return the programs, at work in the test's folder."""
    programs = Qemu(tmp_path)
    yield programs
    programs.end_all()
