"""What a command of thin-img loads: start-up is most of what it costs, so nothing creeps in unseen.

THINVIRT_REGENERATE=1 rewrites the lists; a line more is a fifth of a millisecond more, every time.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from thinvirt.image import create, create_snapshot

FOLDER = Path(__file__).parent / "startup"
LAUNCHER = Path(sys.prefix) / "bin" / "thin-img"

# Each takes milliseconds, where all of `qemu-img info` takes seven. (`array`, which tables are kept
# in, brings `collections` along: everything but `info` of a plain image needs it.)
HEAVY = {
    "argparse", "ast", "concurrent", "contextlib", "cryptography", "dataclasses",
    "enum", "functools", "importlib", "inspect", "json", "logging", "numpy", "pathlib", "random",
    "re", "shutil", "site", "socket", "subprocess", "tempfile", "threading", "typing", "uuid",
    "warnings", "zstandard",
}  # fmt: skip


def loaded(folder: Path, *words: str) -> list[str]:
    """Return the modules that a command loads besides those of a bare interpreter."""

    def imports(*command: str) -> list[str]:
        result = subprocess.run(
            [sys.executable, "-I", "-S", "-X", "importtime", *command],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return re.findall(r"^import time: .*\| +(\S+)$", result.stderr, re.MULTILINE)

    bare = imports("-c", "pass")
    return [name for name in imports(str(LAUNCHER), *words) if name not in bare]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with two images, one with a snapshot."""
    create(tmp_path / "plain.qcow2", 1 << 20)
    create(tmp_path / "snap.qcow2", 1 << 20)
    create_snapshot(tmp_path / "snap.qcow2", "s")
    return tmp_path


def public(names: list[str]) -> list[str]:
    """Leave out the inner modules of the standard library, which differ between versions."""
    return sorted(name for name in names if not name.startswith("_"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("info", ["info", "plain.qcow2"]),
        ("info-json", ["info", "--output=json", "plain.qcow2"]),
        ("info-snapshots", ["info", "snap.qcow2"]),
    ],
)
def test_info_loads_this_and_no_more(images: Path, name: str, words: list[str]) -> None:
    text = "\n".join(public(loaded(images, *words))) + "\n"
    golden = FOLDER / f"{name}.txt"
    if os.environ.get("THINVIRT_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["info", "plain.qcow2"],
        ["info", "--output=json", "snap.qcow2"],
        ["map", "plain.qcow2"],
        ["map", "--output=json", "plain.qcow2"],
        ["check", "plain.qcow2"],
        ["compare", "plain.qcow2", "plain.qcow2"],
        ["measure", "-O", "qcow2", "plain.qcow2"],
        ["snapshot", "-l", "snap.qcow2"],
        ["create", "-f", "qcow2", "new.qcow2", "1M"],
        ["create", "-f", "raw", "new.raw", "1M"],
        ["convert", "-O", "qcow2", "plain.qcow2", "new.qcow2"],
        ["resize", "plain.qcow2", "+1M"],
        ["bitmap", "--add", "plain.qcow2", "b"],
        ["amend", "-o", "lazy_refcounts=on", "plain.qcow2"],
        ["snapshot", "-c", "s", "plain.qcow2"],
        ["rebase", "-u", "-b", "", "plain.qcow2"],
        ["dd", "if=plain.qcow2", "of=new.raw"],
        ["--help"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_no_command_loads_what_is_heavy(images: Path, words: list[str]) -> None:
    roots = {name.partition(".")[0] for name in loaded(images, *words)}
    assert not roots & HEAVY
