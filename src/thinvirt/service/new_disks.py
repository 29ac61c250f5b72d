"""What VMs that are about to be made name on the host: files that are there, disks to be made."""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thinvirt.errors import Conflict, NotFound, UsageError
from thinvirt.service.drives import chain
from thinvirt.store import Store
from thinvirt.store.own_files import paths_in_use
from thinvirt.vm.spec import BootSpec, DiskSpec

IN_USE = "path_in_use"  # as virt-install's ``--check`` calls it


@dataclass(frozen=True, slots=True)
class NewDisk:
    """A disk that would be made.

    Attributes:
        number: which of the specification.
        path: where; None: in the store.
        size: bytes; None: the backing file's.
        format: qcow2 or raw.
        backing: its backing file, None for none; `backing_format` is its format.
        sparse: whether it takes space only as it is written.
    """

    number: int
    path: Path | None
    size: int | None
    format: str
    backing: Path | None
    backing_format: str | None
    sparse: bool


def found_disk(disk: DiskSpec) -> DiskSpec:
    """Return a drive with the format that its file is found to have, and whole paths.

    The format is recorded: a guest that writes another header into its disk changes nothing.

    Raises:
        NotFound: it is neither there nor to be made, or its folder is not there.
        UsageError: it cannot be used by this user, or is in a format that VMs are not given.
        ImageError: it cannot be read.
    """
    backing = str(Path(disk.backing).absolute()) if disk.backing else ""
    if backing:
        layers = chain(Path(backing), DiskSpec(format=disk.backing_format))
        disk = replace(disk, backing=backing, backing_format=layers[0].format)
    if not disk.source:
        return replace(disk, format=disk.format or "qcow2") if disk.device == "disk" else disk
    path = Path(disk.source).absolute()
    disk = replace(disk, source=str(path))
    if disk.device == "disk" and not path.exists():
        if disk.size is None and not backing:
            raise NotFound(
                f"disk '{path}' is not there",
                hint="size=GIB makes it; virt-install says the same",
            )
        if not path.parent.is_dir():
            raise NotFound(f"there is no folder '{path.parent}' for the disk '{path.name}'")
        return replace(disk, format=disk.format or "qcow2")
    if not os.access(path, os.R_OK if disk.read_only else os.R_OK | os.W_OK):
        word = "read" if disk.read_only else "written"
        raise UsageError(f"disk '{path}' cannot be {word} by this user")
    return replace(disk, format=chain(path, disk)[0].format)


def found_boot(boot: BootSpec) -> BootSpec:
    """Return what is booted with whole paths: QEMU runs in another folder.

    Raises:
        NotFound: the kernel or its initial RAM disk is not there.
    """
    return replace(
        boot,
        kernel=_whole("kernel", boot.kernel),
        initrd=_whole("initial RAM disk", boot.initrd),
    )


def _whole(what: str, name: str) -> str:
    if name and not Path(name).is_file():
        raise NotFound(f"{what} '{name}' is not there, or is no file")
    return str(Path(name).absolute()) if name else ""


def refuse_used(store: Store, disks: Sequence[DiskSpec], *, besides: Collection[str] = ()) -> None:
    """Return if no VM, besides those of these names, has one of these files as its disk.

    Raises:
        Conflict: one has; it is named.
    """
    wanted = {
        os.path.realpath(disk.source): disk
        for disk in disks
        if disk.source and not disk.shareable and disk.device == "disk"
    }
    for path, vm_name in paths_in_use(store):
        if os.path.realpath(path) in wanted and vm_name not in besides:
            raise Conflict(
                f"disk '{path}' is already in use by VM '{vm_name}'",
                hint=f"another disk; --check {IN_USE}=off if they never run together",
            )


def new_disks(disks: Sequence[DiskSpec]) -> Iterator[NewDisk]:
    """Yield the disks of a specification that are not there yet (`found_disk` has seen them)."""
    for number, disk in enumerate(disks):
        if disk.device == "cdrom" or (disk.source and Path(disk.source).exists()):
            continue
        yield NewDisk(
            number,
            Path(disk.source) if disk.source else None,
            disk.size,
            disk.format or "qcow2",
            Path(disk.backing) if disk.backing else None,
            disk.backing_format,
            disk.sparse,
        )


def make_disk(disk: NewDisk, path: Path) -> None:
    """Make a disk at `path`, durably.

    Raises:
        ImageError: it cannot be made.
        NoSpace: the file system is full.
    """
    from thinvirt.image import create

    options: dict[str, str | int | bool] = {} if disk.sparse else {"preallocation": "falloc"}
    create(
        path,
        disk.size,
        format=disk.format,
        backing=disk.backing,
        backing_format=disk.backing_format,
        options=options,
    )
    with path.open("rb") as file:
        os.fsync(file.fileno())
