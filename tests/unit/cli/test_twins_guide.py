"""docs/guide/twins.md says what really happens: its commands and its Python are run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "twins.md"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDED = ("qemu-img", "xmllint", "isoinfo", "qemu-system-x86_64")


def steps() -> list[tuple[list[str], str | None]]:
    """Return every command of the guide with what it prints; None: whatever it prints."""
    found: list[tuple[list[str], str | None]] = []
    for language, body in BLOCK.findall(GUIDE.read_text()):
        if language == "python":
            found.append(([sys.executable, "-c", body], None))
            continue
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((["sh", "-c", command], printed))
    return found


@pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)) or not Path("/usr/share/osinfo/VERSION").exists(),
    reason=f"needs {', '.join(NEEDED)} and osinfo-db",
)
def test_guide(tmp_path: Path) -> None:
    here = tmp_path / "vms"
    here.mkdir()
    script = tmp_path / "bin" / "thinvirt"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m thinvirt "$@"\n')
    script.chmod(0o755)
    environment = {
        "PATH": f"{script.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "THINVIRT_HOME": str(tmp_path / "store"),
        "THINVIRT_ACCEL": "tcg",
        "LC_ALL": "C.UTF-8",
    }
    assert len(steps()) >= 12
    for command, printed in steps():
        done = subprocess.run(
            command, cwd=here, env=environment, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout + done.stderr
        for path, shown in ((here, "/srv/vms"), (tmp_path / "store", "/srv/store")):
            said = said.replace(str(path), shown)
        if printed is not None:
            assert re.sub(r"[0-9a-f]{64}", "DIGEST", said) == printed, command
