"""Run the same shell script with qemu-img and with our program under its name."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_PROGRAM = f"""#!{sys.executable}
from thinvirt.image.qemu_img.main import program

program()
"""

# Each command's status is part of the output; qemu-io's timing is not.
_PRELUDE = r"""
exec 2>&1
qemu-img() { "$PROGRAM" "$@"; echo "[$?]"; }
qemu-io() { command qemu-io "$@" | sed -E 's/[0-9.]+ (sec|ops).*//; s/^[0-9.]+ .iB, .*//'; }
"""

Script = Callable[[str], None]


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Return the path of our program, called qemu-img."""
    path = tmp_path / "bin" / "qemu-img"
    path.parent.mkdir()
    path.write_text(_PROGRAM)
    path.chmod(0o755)
    return path


@pytest.fixture
def same(tmp_path: Path, ours: Path) -> Script:
    """Return what runs a script with both programs, each in an empty folder, and compares."""

    def run(program: str, script: str) -> str:
        folder = tmp_path / "work"  # the same for both: names are printed
        folder.mkdir()
        done = subprocess.run(
            ["bash", "-c", _PRELUDE + script],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PROGRAM": program, "TZ": "UTC"},
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        folder.rename(tmp_path / f"work-{Path(program).parts[1]}")
        return done.stdout.decode(errors="surrogateescape")

    def compare(script: str) -> None:
        theirs = run("/usr/bin/qemu-img", script)
        assert run(str(ours), script) == theirs
        assert theirs

    return compare
