"""A file system that is really full: `NoSpace`, and nothing half made is left.

The file system is a small tmpfs in a mount namespace of the test's own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_UNSHARE = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "-r", "--mount"]


def _mountable() -> bool:
    command = [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and (
        subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


pytestmark = pytest.mark.skipif(
    not _mountable(), reason="neither root nor user namespaces: no tmpfs of our own"
)

_PRELUDE = """
import os, sys
from pathlib import Path
from thinvirt.errors import NoSpace
from thinvirt.image.ops.copy import copy_sparse
from thinvirt.image.ops.foreign import convert_foreign, flatten
from thinvirt.image.ops.overlay import OverlayOptions, create_overlay, create_overlays
small = Path(sys.argv[1])
data = Path(sys.argv[2])
options = OverlayOptions(virtual_size=1 << 30, backing_name="b", backing_format="qcow2")
def expect_no_space(work):
    before = sorted(os.listdir(small))
    try:
        work()
    except NoSpace as error:
        assert error.hint, error
        assert sorted(os.listdir(small)) == before, os.listdir(small)
    else:
        raise AssertionError("there should have been no space")
"""

_WORK = {
    "batch": "expect_no_space(lambda: create_overlays("
    "small / 'batch', [str(i) for i in range(1000)], options))",
    "batch into a folder that was there": "expect_no_space(lambda: create_overlays("
    "small, [str(i) for i in range(1000)], options))",
    "one": "(small / 'fill').write_bytes(bytes(4 * 1024 * 1024 - 8192))\n"
    "expect_no_space(lambda: create_overlay(small / 'a', options))",
    "copy": "expect_no_space(lambda: copy_sparse(data, small / 'copy'))",
    "convert": "expect_no_space(lambda: convert_foreign(data, small / 'new', source_format='raw'))",
    "enough": "create_overlays(small / 'batch', ['a', 'b'], options)\n"
    "assert sorted(os.listdir(small / 'batch')) == ['a', 'b']",
}


@pytest.mark.parametrize("name", _WORK)
def test_a_full_disk(tmp_path: Path, name: str) -> None:
    small, data = tmp_path / "small", tmp_path / "data"
    small.mkdir()
    data.write_bytes(os.urandom(8 << 20))
    script = tmp_path / "work.py"
    script.write_text(_PRELUDE + _WORK[name] + "\n")
    mount = 'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" "$3" "$1" "$4"'
    command = [*_UNSHARE, "sh", "-c", mount, "sh", str(small), sys.executable, str(script)]
    done = subprocess.run([*command, str(data)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.listdir(small) == []  # the mount was the namespace's own
