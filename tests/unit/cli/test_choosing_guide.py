"""docs/guide/choosing.md says what really happens: its commands are run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "choosing.md"
VERSION = Path("/usr/share/osinfo/VERSION")
DEBIAN_12 = "20221203"  # what the guide was written with
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def steps() -> list[tuple[str, str]]:
    """Return every command of the guide with what it prints."""
    found = []
    for block in CONSOLE.findall(GUIDE.read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed))
    return found


@pytest.mark.skipif(
    not VERSION.exists() or VERSION.read_text().strip() != DEBIAN_12,
    reason="the guide shows what osinfo-db of Debian 12 says",
)
@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_guide(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "thinvirt"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m thinvirt "$@"\n')
    script.chmod(0o755)
    environment = {
        "PATH": f"{script.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OSINFO_LOCAL_DIR": str(tmp_path / "none"),
        "OSINFO_USER_DIR": str(tmp_path / "none"),
    }
    assert len(steps()) >= 7
    for command, printed in steps():
        done = subprocess.run(
            ["sh", "-c", command],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == (printed, ""), command
