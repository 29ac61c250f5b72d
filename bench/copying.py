"""What the benchmarks of copying share: an image like a guest's disk, programs timed in pairs."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.common import Spread

GIB = 1 << 30
LARGEST = 64 << 20  # bytes: one huge file would be most of the image
PROGRAM = str(Path(sys.executable).with_name("thin-img"))


class Cost(NamedTuple):
    """What one run took, in seconds."""

    wall: float
    cpu: float


def os_like_image(folder: Path, *, size: int = 2 * GIB, data: int = 1190 << 20) -> Path:
    """Return a raw ext4 image of `size` bytes, holes left out, with about `data` bytes of files.

    The files are those of /usr in the order of their names' SHA-1: the same mix on every machine
    with the same packages, libraries, programs, texts and fonts. ``mke2fs -d`` fills the image.
    """
    image = folder / "os.raw"
    if image.exists():
        return image
    found = [
        path
        for path in Path("/usr").rglob("*")
        if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
    ]
    found.sort(key=lambda path: hashlib.sha1(bytes(path), usedforsecurity=False).digest())
    tree, total = folder / "tree", 0
    for path in found:
        length = path.stat().st_size
        if length > LARGEST or total + length > data:
            continue
        copy = tree / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        total += length
    made = folder / "os.raw.new"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, made, f"{size >> 10}k"], check=True)
    shutil.rmtree(tree)
    return made.rename(image)


def run(command: Sequence[str | Path], **environment: str) -> Cost:
    """Run a program to its end; its memory and CPU are its own, children included."""
    began = time.perf_counter()
    with subprocess.Popen(command, env=os.environ | environment) as process:
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return Cost(took, usage.ru_utime + usage.ru_stime)


class Pairs:
    """Rounds of ours and the peer's, in turn."""

    def __init__(self) -> None:
        self.ours: list[Cost] = []
        self.peers: list[Cost] = []

    def add(self, ours: Cost, peers: Cost) -> None:
        """Note one round."""
        self.ours.append(ours)
        self.peers.append(peers)

    def row(self, title: str, sizes: str = "") -> str:
        """Return a row of a table: seconds, and how many times quicker we are."""
        pairs = list(zip(self.ours, self.peers, strict=True))
        wall = Spread.of([theirs.wall / mine.wall for mine, theirs in pairs])
        cpu = Spread.of([theirs.cpu / mine.cpu for mine, theirs in pairs])
        mine = Spread.of([cost.wall for cost in self.ours])
        theirs = Spread.of([cost.wall for cost in self.peers])
        return (
            f"| {title} | {mine.text(' s')} | {theirs.text(' s')} | **{wall.text()}** "
            f"| {cpu.text()} | {sizes} |"
        )


HEADER = """| | thin-img | qemu-img | times quicker | in CPU time | size, ours / theirs |
|---|---|---|---|---|---|"""


def taken(path: Path) -> int:
    """Return the bytes a file takes on disk."""
    return path.stat().st_blocks * 512


def same(one: Path, other: Path) -> None:
    """End the benchmark if two images do not show the same."""
    subprocess.run(["qemu-img", "compare", "-q", one, other], check=True)
