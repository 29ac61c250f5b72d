"""Fail the nth write or flush of the file below: nothing worse than leaks is ever left behind."""

import errno
import random
import subprocess
from pathlib import Path

import pytest
from tests.qcow2_images import make, opened

from thinvirt.image.block.errors import BlockError, failed
from thinvirt.image.block.file import FileNode
from thinvirt.image.block.flags import Open, WriteFlags
from thinvirt.image.block.node import Buffer
from thinvirt.image.block.qcow2 import Qcow2Node
from thinvirt.image.block.root import Root

# A mark that speaks of a refcount and the refcount itself are two writes: between them they may
# contradict each other. That does no harm; a refcount below the references would.
_HARMLESS = ("Leaked cluster", "ERROR OFLAG_COPIED", "Repairing")


class _Trouble:
    """Counts writes and flushes of files; from the nth on all of them fail, as after a crash."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        write, zero, truncate = (
            FileNode._write,
            FileNode._write_zeroes,
            FileNode._truncate,
        )

        def failing_write(node: FileNode, offset: int, data: Buffer, flags: int) -> None:
            self.count()
            write(node, offset, data, flags)

        def failing_flush(node: FileNode) -> None:
            self.count()  # and that is all: no power fails here

        def failing_zero(node: FileNode, offset: int, length: int, flags: int) -> None:
            self.count()
            zero(node, offset, length, flags)

        def failing_truncate(
            node: FileNode, size: int, *, exact: bool, preallocation: str, flags: int
        ) -> None:
            self.count()
            truncate(node, size, exact=exact, preallocation=preallocation, flags=flags)

        monkeypatch.setattr(FileNode, "_write", failing_write)
        monkeypatch.setattr(FileNode, "_flush_to_disk", failing_flush)
        monkeypatch.setattr(FileNode, "_write_zeroes", failing_zero)
        monkeypatch.setattr(FileNode, "_truncate", failing_truncate)

    def count(self) -> None:
        if self.left == 0:
            raise failed(errno.EIO)
        if self.left > 0:
            self.left -= 1


def _work(disk: Root, node: Qcow2Node) -> None:
    """Allocate, share, copy, free: whatever changes tables."""
    unit = node.cluster_size
    disk.write(0, b"\1" * 3 * unit)
    node.create_snapshot("one", date_ns=0)
    disk.write(unit // 2, b"\2" * unit)
    disk.write_compressed(64 * unit, b"\3" * unit)
    disk.write_zeroes(0, 2 * unit, WriteFlags.MAY_UNMAP)
    node.apply_snapshot(node.list_snapshots()[0])
    disk.discard(0, unit)
    node.create_snapshot("two", date_ns=0)
    node.delete_snapshot(node.list_snapshots()[0])
    disk.truncate(disk.size + 600 * unit)
    disk.write(disk.size - unit, b"\4" * unit)
    disk.truncate(100 * unit)
    disk.flush()


def _expect_leaks_at_worst(image: Path, after: int, *, is_lazy: bool) -> None:
    found = _check(image)
    if not is_lazy:  # such an image is marked dirty: its refcounts may be behind
        lines = found.stderr.splitlines()
        assert all(line.startswith(_HARMLESS) for line in lines if line), (after, found.stderr)
    _check(image, "-r", "all")
    assert _check(image).returncode == 0, after


def _check(image: Path, *repair: str) -> "subprocess.CompletedProcess[str]":
    arguments = ["qemu-img", "check", "-f", "qcow2", *repair, str(image)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "options",
    [
        "cluster_size=4096",
        "cluster_size=16384,extended_l2=on",
        "cluster_size=4096,refcount_bits=64",
        "cluster_size=4096,lazy_refcounts=on",
    ],
)
def test_a_crash_leaks_at_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    image = tmp_path / "disk"
    trouble = _Trouble(monkeypatch)
    chance = random.Random(5)
    after, crashes = 0, 0
    while True:
        image.unlink(missing_ok=True)
        trouble.left = -1
        make(image, f"size=2400K,{options}")
        try:
            with opened(image, Open.RDWR | Open.UNMAP) as (disk, node):
                trouble.left = after
                _work(disk, node)
            break
        except BlockError:
            crashes += 1
        _expect_leaks_at_worst(image, after, is_lazy="lazy" in options)
        after += chance.choice([1, 2, 3])
    assert crashes > 30
