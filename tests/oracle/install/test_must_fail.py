"""Command lines that virt-install must refuse, by its own tests: they are refused here too.

They are read from virt-manager's source, whose folder ``$THINVIRT_VIRT_MANAGER`` names; without it
there is nothing to test here.
"""

import ast
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from thinvirt.cli.main import main

SOURCE = os.environ.get("THINVIRT_VIRT_MANAGER", "")
CATEGORIES = (
    *("storage", "invalid-devices", "nodisk-install", "single-disk-install"),
    *("misc-install", "device-back-compat", "storage-back-compat", "console-tests"),
)
# What is wrong there and right here, or wrong with the make-believe host of those tests alone.
FINE_HERE = {
    "exceeded specified time limit": "waiting is another test's",
    "expected virt-install to detect": "an OS need not be named",
    "OS name is required": "an OS need not be named",
    "Libvirt version does not support UEFI": "of a make-believe host",
    "expected virt-install": "an OS need not be named",
    "linux2018, linux2016": "an OS need not be named",
    "already in use by": "of VMs on a make-believe host; ours are in tests/unit",
    "in use by another virtual machine": "of VMs on a make-believe host",
    "is already": "of VMs on a make-believe host",
    "Only 4 disks": "disks on virtio may be more",
    "will exceed": "disks grow as they are written: a remark says so",
}
pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not SOURCE, reason="$THINVIRT_VIRT_MANAGER names no source"),
]


@dataclass(frozen=True)
class Case:
    """One command line, and what virt-install says about it."""

    words: str
    told: str


def cases() -> list[Case]:
    """Return the command lines of everyday options, whole."""
    path = Path(SOURCE, "tests", "test_cli.py")
    if not path.is_file():
        return []
    found, category, default = [], "", ""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        call = node.value if isinstance(node, ast.Assign | ast.Expr) else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        texts = [str(arg.value) for arg in call.args if isinstance(arg, ast.Constant)]
        if call.func.attr == "add_category":
            ours = isinstance(call.func.value, ast.Name) and call.func.value.id == "vinst"
            category = texts[0] if ours else ""
            default = texts[1] if len(texts) > 1 else ""
        elif call.func.attr == "add_invalid" and category in CATEGORIES and texts:
            named = {word.arg: word.value for word in call.keywords}
            told = named["grep"].value if isinstance(named["grep"], ast.Constant) else ""
            if "use_default_args" not in named and not any(
                str(told).find(t) >= 0 for t in FINE_HERE
            ):
                found.append(Case(f"{default} {texts[0]}", str(told)))
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what stands for the names in those command lines."""
    folder = tmp_path_factory.mktemp("files")
    names = {"NEWIMG1": folder / "new.img", "TREEDIR": folder / "tree"}
    (folder / "tree" / "pxeboot").mkdir(parents=True)
    for name in ("vmlinuz", "initrd.img"):
        (folder / "tree" / "pxeboot" / name).write_bytes(b"x")
    for name in ("EXISTIMG1", "EXISTIMG2", "ISO-WIN7", "COLLIDE"):
        names[name] = folder / f"{name.lower()}.img"
        subprocess.run(["qemu-img", "create", "-qf", "raw", names[name], "1M"], check=True)
    return {name: str(path) for name, path in names.items()}


def _words(case: Case, files: dict[str, str]) -> Iterator[str]:
    yield from shlex.split(case.words % files)
    if "--name" not in case.words:
        yield from ("--name", "foobar")
    yield "--dry-run"


@pytest.mark.parametrize("case", cases() if SOURCE else [], ids=lambda case: case.words[-60:])
def test_it_is_refused_with_a_name_to_it(
    case: Case, files: dict[str, str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message quotes what is wrong: an option or a value of the command line."""
    if "%(URI" in case.words or "utils." in case.words:
        pytest.skip("of a make-believe host")
    words = list(_words(case, files))
    assert main(["install", *words]) in (2, 3, 4, 8)
    told = capsys.readouterr().err
    pieces = [piece for word in words for piece in word.replace(",", "=").split("=") if piece]
    named = any(piece.lstrip("-") in told for piece in pieces)
    assert named or "nothing says how the VM comes to its system" in told, told
    assert "Traceback" not in told
