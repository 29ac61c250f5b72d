"""The real programs, as the oracle tests call them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.oracle


class Qemu:
    """Calls of qemu-img and qemu-io in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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

    def end_all(self) -> None:
        """End what still runs."""
        for process in self._running:
            if process.poll() is None:
                self.end(process)


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    """Return the programs, at work in the test's folder."""
    programs = Qemu(tmp_path)
    yield programs
    programs.end_all()
