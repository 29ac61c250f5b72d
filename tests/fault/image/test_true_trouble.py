"""The same with real trouble: a process that gets SIGKILL, and a file system that is full."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fault.image.arena import Arena
from tests.fault.image.journal import restore, snapshot
from tests.fault.image.scenarios import SCENARIOS

pytestmark = pytest.mark.oracle
_UNSHARE = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "-r", "--mount"]
_LINES = {
    "snapshot create": "snapshot -c two disk",
    "commit": "commit -q disk",
    "rebase": "rebase -q -b other -F qcow2 disk",
    "grow with metadata": "resize -q --preallocation=metadata disk 500K",
    "amend wider": "amend -q -o refcount_bits=64 disk",
    "bitmap merge": "bitmap --merge a disk b",
    "convert into an image": "convert -n -t writeback -O qcow2 source disk",
}
_KILLED_AT = """
import os, signal, sys
from thinvirt.image.qemu_img.main import main
left, real = int(sys.argv[1]), os.pwrite
def pwrite(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
os.pwrite = pwrite
sys.exit(main(["thin-img", *sys.argv[2:]]))
"""
_RUN = "import sys; from thinvirt.image.qemu_img.main import main; sys.exit(main(sys.argv))"
# The process works in the small file system; what is left there is copied out of it.
_IN_SMALL = (
    'mount -t tmpfs -o size="$1" tmpfs "$2" && cp -- "$3"/* "$2" && cd "$2" || exit 99; '
    'python=$4 out=$3; shift 4; "$python" -c "$@"; status=$?; cp -- * "$out"; exit $status'
)


def _mountable() -> bool:
    command = [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and (
        subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.parametrize("name", _LINES)
def test_a_killed_process(tmp_path: Path, name: str) -> None:
    arena = Arena(SCENARIOS[name], tmp_path)
    writes = sum(event.kind == "write" for event in arena.journal.events)
    for at in sorted({writes // 3, writes - 1}):
        restore(arena.start, arena.folder)
        command = [sys.executable, "-c", _KILLED_AT, str(at), *_LINES[name].split()]
        done = subprocess.run(command, cwd=arena.folder, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        arena.judge(snapshot(arena.folder), lossy=False)


@pytest.mark.skipif(not _mountable(), reason="neither root nor user namespaces: no tmpfs")
@pytest.mark.parametrize("name", _LINES)
def test_a_full_file_system(tmp_path: Path, name: str) -> None:
    arena = Arena(SCENARIOS[name], tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    used = sum(-(-len(content) // 4096) for content in arena.start.values())
    for spare in (0, 3):
        restore(arena.start, arena.folder)
        work = [sys.executable, _RUN, *_LINES[name].split()]
        size = str((used + spare) * 4096)
        command = [*_UNSHARE, "sh", "-c", _IN_SMALL, "sh", size, str(small), str(arena.folder)]
        done = subprocess.run([*command, *work], capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        assert done.returncode == 0 or "No space left" in done.stderr, done.stderr
        arena.judge(snapshot(arena.folder), lossy=False, is_done=done.returncode == 0)
