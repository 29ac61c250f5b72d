"""The guest of one sector (tests/data/mini-guest/guest.S): it boots in a second under TCG."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "data" / "mini-guest" / "guest.S"
THINVIRT = str(Path(sys.executable).with_name("thinvirt"))


def build(folder: Path) -> Path:
    """Assemble the guest; return its disk image, 1 MiB raw."""
    object_file, image = folder / "guest.o", folder / "mini.img"
    subprocess.run(["as", "--32", "-o", object_file, SOURCE], check=True)
    linker = ("ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary")
    subprocess.run([*linker, "-o", image, object_file], check=True)
    os.truncate(image, 1 << 20)
    image.chmod(0o644)
    return image


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command that uses the store at `home`, without the KVM probe."""
    kept = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return kept | {"THINVIRT_HOME": str(home), "THINVIRT_ACCEL": "tcg"} | more


def thinvirt(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [THINVIRT, *words],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def facts(line: str) -> dict[str, Any]:
    """Return the facts in a line of JSON."""
    found: dict[str, Any] = json.loads(line)
    return found
