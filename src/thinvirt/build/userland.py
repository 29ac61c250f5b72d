"""Programs copied out of unpacked packages, with the shared libraries they need."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from thinvirt.build.programs import run_program
from thinvirt.errors import NotFound

_LIBRARY_FOLDERS = (
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "lib64",
    "usr/lib64",
)
_LOADER = "ld-linux-x86-64.so.2"
_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")


def install_programs(programs: Mapping[str, str], *, packages: Path, root: Path) -> None:
    """Copy programs and their libraries into a tree whose /bin, /lib and so on are in /usr.

    Args:
        programs: where each goes in `root`, by where it is below `packages`.
        packages: a directory that packages were unpacked into.
        root: the tree.

    Raises:
        NotFound: a program or a library it needs is in none of the packages.
    """
    needed: dict[str, Path] = {}
    for source, target in programs.items():
        program = packages / source
        if not program.exists():
            raise NotFound(f"{source} is in none of the packages")
        _copy(program, root / target, 0o755)
        _collect(program, packages, needed)
    if not needed:
        return
    libraries = root / "usr/lib/x86_64-linux-gnu"
    for name, path in sorted(needed.items()):
        _copy(path, libraries / name, 0o644)
    loader = libraries / _LOADER
    _copy(_find(_LOADER, packages, "every program"), loader, 0o755)
    (root / "usr/lib64").mkdir(parents=True, exist_ok=True)
    (root / "usr/lib64" / _LOADER).symlink_to(f"../lib/x86_64-linux-gnu/{_LOADER}")


def _collect(binary: Path, packages: Path, needed: dict[str, Path]) -> None:
    """Add the libraries that `binary` needs, and those that they need."""
    for name in _NEEDED.findall(run_program("readelf", "--dynamic", binary)):
        if name not in needed:
            needed[name] = _find(name, packages, binary.name)
            _collect(needed[name], packages, needed)


def _find(name: str, packages: Path, needed_by: str) -> Path:
    for folder in _LIBRARY_FOLDERS:
        path = packages / folder / name
        # An absolute link would lead out of the packages, to the host's library.
        if path.is_symlink() and path.readlink().is_absolute():
            path = packages / str(path.readlink()).lstrip("/")
        if path.exists():
            return path
    raise NotFound(f"library {name}, needed by {needed_by}, is in none of the packages")


def _copy(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)
