"""The wheel, installed without anything else: images without what VMs need, and how it says so."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]

# Import everything that can be had of the library, use it, and see where the modules came from.
PROGRAM = """
import sys

before = set(sys.modules)
import thinvirt.image as images

for name in images.__all__:
    getattr(images, name)
images.create("lib.qcow2", 1 << 20)
with images.open_image("lib.qcow2", writable=True) as disk:
    disk.write(65536, b"here")
images.convert("lib.qcow2", "copy.qcow2", compress=True)
assert images.compare("lib.qcow2", "copy.qcow2") is None
assert images.check("copy.qcow2").is_sound
roots = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(roots - set(sys.stdlib_module_names) - {"thinvirt"}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built without network from a copy of what is in the tree."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    for name in ("src", "bin"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    pip(*build, "--wheel-dir", str(folder), str(source))
    return next(folder.glob("thinvirt-*.whl"))


def pip(*words: str) -> None:
    """Run pip, without network."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True, env={**os.environ, "PIP_NO_INDEX": "1"})


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel in it and nothing else."""
    # A space keeps the interpreter out of the first line, which the launcher must cope with; the
    # environment of the tests themselves shows the usual case.
    folder = tmp_path_factory.mktemp("environment") / "an environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip("--python", str(folder / "bin/python"), "install", "--quiet", "--no-deps", str(wheel))
    return folder


@pytest.fixture
def run(venv: Path, tmp_path: Path) -> Run:
    """Return what runs a program of the environment in an empty folder."""

    def run_there(program: str, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(venv / "bin" / program), *words],
            cwd=tmp_path, capture_output=True, text=True, env={"HOME": str(tmp_path)}, check=False,
        )  # fmt: skip

    return run_there


def test_thin_img_needs_nothing_else(run: Run) -> None:
    for words in (
        ["create", "-q", "-f", "qcow2", "a.qcow2", "8M"],
        ["convert", "-c", "-O", "qcow2", "a.qcow2", "b.qcow2"],
        ["compare", "a.qcow2", "b.qcow2"],
        ["check", "b.qcow2"],
        ["map", "--output=json", "b.qcow2"],
        ["snapshot", "-c", "s", "a.qcow2"],
        ["info", "a.qcow2"],
    ):
        result = run("thin-img", *words)
        assert (result.returncode, result.stderr) == (0, ""), words
    assert "8 MiB" in run("thin-img", "info", "a.qcow2").stdout
    assert (
        run("thinvirt", "image", "info", "a.qcow2").stdout
        == run("thin-img", "info", "a.qcow2").stdout
    )


def test_errors_have_the_name_it_was_called_by(run: Run, venv: Path, tmp_path: Path) -> None:
    link = tmp_path / "there" / "qemu-img"
    link.parent.mkdir()
    link.symlink_to(os.path.relpath(venv / "bin" / "thin-img", link.parent))
    again = tmp_path / "again"
    again.symlink_to(link)
    for program, name in (
        (venv / "bin/thin-img", "thin-img"),
        (link, "qemu-img"),
        (again, "again"),
    ):
        result = run(str(program), "info", "nothing")
        assert result.returncode == 1
        assert result.stderr.startswith(f"{name}: Could not open 'nothing'")


def test_the_library_needs_nothing_else(run: Run) -> None:
    result = run("python", "-c", PROGRAM)
    assert result.stderr == ""
    assert result.stdout == "\n"


def test_what_only_vms_need_is_named(run: Run) -> None:
    result = run("thinvirt", "template", "pull", "cirros")
    assert result.returncode == 69
    assert "urllib3" in result.stderr
    assert "pip install 'thinvirt[vm]'" in result.stderr


def test_what_an_image_needs_is_named(run: Run) -> None:
    run("python", "-c", "open('data', 'wb').write(b'x' * 65536)")
    words = ["convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", "data", "z.qcow2"]
    result = run("thin-img", *words)
    assert result.returncode == 1
    assert "thinvirt[compression]" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_runs_it(venv: Path, run: Run, tmp_path: Path) -> None:
    run("thin-img", "create", "-q", "-f", "qcow2", "a.qcow2", "8M")
    for folder in (tmp_path, *tmp_path.parents, venv, *venv.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    result = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
         str(venv / "bin/thin-img"), "info", str(tmp_path / "a.qcow2")],
        capture_output=True, text=True, env={}, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
