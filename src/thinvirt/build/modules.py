"""Kernel modules: unpacked from the kernel's package, chosen with all they depend on."""

import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from thinvirt.build.packages import Deb
from thinvirt.build.programs import ProgramFailed, environment, find_program, run_program
from thinvirt.errors import NotFound

# Modules say in their .modinfo section what they need: NUL-separated NAME=VALUE strings.
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")

# Text files depmod expects beside the modules; without them it warns.
_LISTS = ("modules.builtin", "modules.builtin.modinfo", "modules.order")


def unpack_kernel(deb: Deb, target: Path, folders: Iterable[str]) -> str:
    """Unpack a kernel image and part of its modules and return the kernel's version.

    Args:
        deb: a linux-image package.
        target: the directory that gets ``boot/`` and ``lib/modules/VERSION/``.
        folders: which folders below ``kernel/`` are wanted; the whole would be 400 MB.
    """
    import subprocess

    wanted = tuple(f"{folder}/" for folder in folders)
    deb.verify()
    command = [find_program("dpkg-deb"), "--fsys-tarfile", str(deb.path)]
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        ) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            inside = member.name.removeprefix("./")
            below = inside.partition("/kernel/")[2]
            if member.isfile() and (
                inside.startswith("boot/vmlinuz-")
                or below.startswith(wanted)
                or inside.rpartition("/")[2] in _LISTS
            ):
                _write_member(archive, member, target / inside)
        while process.stdout is not None and process.stdout.read(1 << 20):
            pass  # what pads the end of the archive; leaving it would break the pipe
    if process.returncode != 0:
        raise ProgramFailed("dpkg-deb", process.returncode, f"unpacking {deb.path} failed")
    return next((target / "lib/modules").iterdir()).name


def _write_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    if content is not None:
        with content, path.open("wb") as file:
            shutil.copyfileobj(content, file)


def close_over_dependencies(names: Iterable[str], available: Mapping[str, Path]) -> list[str]:
    """Return `names` and all modules they need, each behind what it needs.

    Raises:
        NotFound: a module is not among the `available`; those built into the kernel never are.
    """
    order: dict[str, None] = {}

    def visit(name: str, needed_by: str) -> None:
        if name in order:
            return
        path = available.get(name)
        if path is None:
            raise NotFound(f"kernel module {name}, needed by {needed_by}, was not unpacked")
        match = _DEPENDS.search(path.read_bytes())
        for needed in (match[1].decode() if match else "").split(","):
            if needed:
                visit(_spelled(needed), name)
        order[name] = None

    for name in names:
        visit(_spelled(name), "the guest")
    return list(order)


def available_modules(tree: Path) -> dict[str, Path]:
    """Return the module files below `tree` by name."""
    return {_spelled(path.stem): path for path in sorted(tree.rglob("*.ko"))}


def install_modules(
    names: Iterable[str], *, source: Path, root: Path, version: str, base: str = "usr/lib"
) -> None:
    """Copy modules and their dependencies from an unpacked kernel into a file system tree.

    Args:
        names: the modules, ``-`` and ``_`` alike.
        source: where `unpack_kernel` put them.
        root: the file system they go to, with ``lib`` leading to `base`.
        version: the kernel's version.
        base: the folder in `root` that holds ``modules/``.
    """
    here = source / "lib/modules" / version
    there = root / base / "modules" / version
    available = available_modules(here)
    for name in close_over_dependencies(names, available):
        target = there / available[name].relative_to(here)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(available[name], target)
    for name in _LISTS:
        if (here / name).exists():
            shutil.copyfile(here / name, there / name)
    run_program("depmod", "-b", root, version)
    for path in there.glob("modules.*"):
        # The guest's modprobe reads these three texts; the rest is for others.
        if path.name not in ("modules.dep", "modules.alias", "modules.builtin"):
            path.unlink()


def _spelled(name: str) -> str:
    return name.replace("-", "_")
