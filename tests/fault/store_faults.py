"""What the fault tests of the store share: commands as processes, and what must hold afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path

from thinvirt.store import Store, open_store
from thinvirt.store.check import findings

THINVIRT = (sys.executable, "-m", "thinvirt")


def make_image(path: Path, data: int = 1 << 16) -> Path:
    with path.open("wb") as file:
        file.write(os.urandom(data))
        file.truncate(max(data, 1 << 20))
    return path


def command(home: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a thinvirt command in a process group of its own."""
    return subprocess.Popen(
        [*THINVIRT, *words],
        env=os.environ | {"THINVIRT_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*THINVIRT, *words],
        env=os.environ | {"THINVIRT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def names(home: Path) -> list[str]:
    """The VMs that the next command lists; that command also finishes what was left."""
    listed = run(home, "ls", "--json")
    assert listed.returncode == 0, listed.stderr
    return [vm["name"] for vm in json.loads(listed.stdout)]


def assert_sound(home: Path) -> Store:
    """Catalogue and directories agree, and nothing is left in progress."""
    store = open_store(home, readonly=True)
    assert list(findings(store)) == []
    left = [p.name for p in store.layout.locks.iterdir() if p.name.startswith("maker-")]
    assert left == []
    return store
