"""VMs as virt-install makes them: from images that are there, from new disks, from an installer.

`plan` finds out what would be made and everything that is wrong with it; `install` makes it, whole
or not at all.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from thinvirt.errors import NotFound, UsageError
from thinvirt.image.block.hostfile import sync_directory
from thinvirt.service.direct_io import require_direct
from thinvirt.service.drives import chain, host_driver
from thinvirt.service.firmware import firmware_build, make_variables
from thinvirt.service.install_checks import CHECKS, check
from thinvirt.service.new_disks import NewDisk, found_boot, found_disk, make_disk, new_disks
from thinvirt.store import Store, Vm
from thinvirt.store.batches import create_own, refuse_taken
from thinvirt.store.layout import OwnFiles
from thinvirt.units import GIB, SECTOR
from thinvirt.vm.advice import Advice, Caution, Chosen, advise, warnings_for
from thinvirt.vm.names import check_vm_name
from thinvirt.vm.osinfo.records import OsInfo
from thinvirt.vm.qemu import DiskLayer
from thinvirt.vm.screen import screen_remarks
from thinvirt.vm.spec import DiskSpec, InstallSpec, VmSpec
from thinvirt.vm.spec.defaults import machine_of, with_defaults
from thinvirt.vm.spec.validate import checked

if TYPE_CHECKING:
    from thinvirt.service.locations import BootFiles

__all__ = ["CHECKS", "InstallPlan", "InstallRequest", "install", "plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallRequest:
    """What is asked for.

    Attributes:
        name: the VM's.
        spec: what was asked; None and "" where the OS or thinvirt shall decide.
        os: what the guest is; None: not known.
        firmware_asked: whether `spec.firmware` was asked for, rather than left to the OS.
        unchecked: the checks that are turned off, of `CHECKS`.
        installer: where the installer's kernel is read from; None: as `spec.install` has it.
    """

    name: str
    spec: VmSpec
    os: OsInfo | None = None
    firmware_asked: bool = False
    unchecked: frozenset[str] = frozenset()
    installer: "BootFiles | None" = None


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """A request that has been found possible, as far as can be told without doing it.

    Attributes:
        spec: with everything decided that depends on the OS or on files of the host.
        new_disks: those that would be made.
        virtual_size: bytes of the first disk, 0 if there is none.
        advice: what suits the OS.
        cautions: what in the specification cannot work with it, or may not.
        installer: the disc that the installer's kernel is copied from; None: it is used in place.
        remarks: what people should know besides.
    """

    name: str
    spec: VmSpec
    new_disks: tuple[NewDisk, ...]
    virtual_size: int
    advice: Advice | None = None
    cautions: tuple[Caution, ...] = field(default=())
    installer: "BootFiles | None" = None
    remarks: tuple[str, ...] = ()


def plan(store: Store | None, request: InstallRequest) -> InstallPlan:
    """Return what `install` would make.

    Args:
        store: where; None: in a store that is not there yet.
        request: what.

    Raises:
        InvalidSpec: the specification cannot be met; all problems are named.
        UsageError, NotFound: a file is not there, or cannot be what it shall be.
        Conflict: the name is taken, or a disk is another VM's.
    """
    name = check_vm_name(request.name)
    if store is not None:
        refuse_taken(store, [name])
    advice = None if request.os is None else advise(request.os)
    spec = with_advice(request.spec, advice, firmware_asked=request.firmware_asked)
    spec = replace(spec, boot=found_boot(spec.boot))
    spec = replace(spec, disks=tuple(found_disk(disk) for disk in spec.disks))
    spec = checked(_with_installer(spec, request.installer, name))
    if spec.firmware == "efi":
        firmware_build(spec)
    _require_media(spec)
    new = tuple(new_disks(spec.disks))
    _require_direct(spec, new)
    remarks = check(
        store, spec, new, asked=request.spec.disks, unchecked=request.unchecked
    ) + tuple(screen_remarks(spec.graphics))
    cautions = () if request.os is None else warnings_for(request.os, chosen_of(spec))
    copied = request.installer if request.installer and request.installer.is_disc else None
    return InstallPlan(name, spec, new, _virtual_size(spec, new), advice, cautions, copied, remarks)


def _require_direct(spec: VmSpec, new: Sequence[NewDisk]) -> None:
    """Return if the files that are there of all disks serve their cache modes."""
    made = {disk.number: disk for disk in new}
    chains: list[list[DiskLayer]] = []
    for number, disk in enumerate(spec.disks):
        if number not in made:
            chains.append(list(chain(Path(disk.source), disk)) if disk.source else [])
            continue
        backing = made[number].backing
        chains.append(list(chain(backing, DiskSpec(format=disk.backing_format))) if backing else [])
    require_direct(spec.disks, chains)


def _with_installer(spec: VmSpec, files: "BootFiles | None", name: str) -> VmSpec:
    """Return a specification whose installer is booted from what a location has.

    A disc's kernel is copied into the store, where it has a name and no folder; the disc itself is
    attached, since most installers go on reading from it.
    """
    if files is None:
        return spec
    install = replace(spec.install or InstallSpec(), location=str(files.place))
    if files.is_disc:
        own = OwnFiles(Path(), name)
        kernel, initrd = own.installer_kernel.name, own.installer_initrd.name
        install = replace(install, media=str(files.place))
    else:
        kernel, initrd = str(files.place / files.kernel), str(files.place / files.initrd)
    return replace(spec, install=replace(install, kernel=kernel, initrd=initrd))


def _require_media(spec: VmSpec) -> None:
    """Return if the files an installation starts from can be read.

    Raises:
        NotFound, UsageError: one cannot.
    """
    if spec.install is None:
        return
    install = spec.install
    for what, name in (
        ("kernel", install.kernel),
        ("initial RAM disk", install.initrd),
        ("disc", install.media),
    ):
        if not name.startswith("/"):
            continue  # none, or one that the store is going to have
        if not Path(name).exists():
            raise NotFound(f"the installer's {what} '{name}' is not there")
        host_driver(Path(name))
        if not os.access(name, os.R_OK):
            raise UsageError(f"the installer's {what} '{name}' cannot be read by this user")


def with_advice(spec: VmSpec, advice: Advice | None, *, firmware_asked: bool) -> VmSpec:
    """Return a specification with what suits the OS where nothing was asked for.

    Whatever is left open here has one answer for all (`thinvirt.vm.spec.defaults`).
    """
    if advice is None:
        sized = tuple(_sized(disk, None) for disk in spec.disks)
        return replace(spec, disks=sized)
    firmware = spec.firmware if firmware_asked else _word(advice.firmware.value, spec.firmware)
    spec = replace(spec, firmware=firmware)  # type: ignore[arg-type]
    asked_buses = {disk.bus for disk in spec.disks}
    machine = spec.machine
    if machine is None and not asked_buses & {"ide", "sata"}:
        machine = advice.machine.value  # type: ignore[assignment]
    spec = replace(spec, machine=machine)
    bus = str(advice.bus.value)
    if bus == "ide" and machine_of(spec) == "q35":
        bus = "sata"
    size = int(advice.disk_gib.value) * GIB
    return replace(
        spec,
        memory_mib=spec.memory_mib or int(advice.memory_mib.value),
        disks=tuple(_sized(_on_bus(disk, bus), size) for disk in spec.disks),
        networks=tuple(
            replace(network, model=network.model or advice.network.value)  # type: ignore[arg-type]
            if network.kind != "none"
            else network
            for network in spec.networks
        ),
    )


def _word(advised: str | int, otherwise: str) -> str:
    return "efi" if str(advised) in ("efi", "uefi") else otherwise


def _on_bus(disk: DiskSpec, bus: str) -> DiskSpec:
    if disk.device == "cdrom" or disk.bus is not None:
        return disk
    return replace(disk, bus=bus)  # type: ignore[arg-type]


def _sized(disk: DiskSpec, size: int | None) -> DiskSpec:
    """Give a disk that is made a size, if neither that nor a backing file was named."""
    if disk.device == "disk" and not disk.source and disk.size is None and not disk.backing:
        return replace(disk, size=size or 20 * GIB)
    return disk


def _virtual_size(spec: VmSpec, new: Sequence[NewDisk]) -> int:
    """Return the first disk's size in bytes."""
    for number, disk in enumerate(spec.disks):
        if disk.device != "disk":
            continue
        made = next((each for each in new if each.number == number), None)
        if made is not None and made.size is not None:
            return made.size
        source = made.backing if made is not None else Path(disk.source)
        return _size_of(source) if source is not None else 0
    return 0


def _size_of(path: Path) -> int:
    from thinvirt.image import open_image

    with open_image(path, force_share=True) as image:
        return -(-image.size // SECTOR) * SECTOR


def chosen_of(spec: VmSpec) -> Chosen:
    """Return what was chosen in the words of `thinvirt.vm.advice`."""
    whole = with_defaults(spec)
    disks = [disk for disk in whole.disks if disk.device == "disk"]
    sizes = [disk.size for disk in disks[:1] if disk.size is not None]
    return Chosen(
        buses=tuple(str(disk.bus) for disk in disks[:1]),
        machine=str(whole.machine),
        firmware=whole.firmware,
        memory_mib=whole.memory_mib,
        disk_bytes=sizes[0] if sizes else None,
        vcpus=whole.vcpus,
        network_models=tuple(str(card.model) for card in whole.cards),
        no_network=not whole.cards,
        seed=whole.seed is not None,
        tpm=whole.tpm is not None,
        secure_boot=whole.secure_boot,
        installing=whole.install is not None,
    )


def install(store: Store, planned: InstallPlan) -> Vm:
    """Make a VM with its disks: all of it, durably, or nothing.

    Raises:
        Conflict: the name has been taken meanwhile, or a file is there.
        NoSpace: the file system is full; nothing is left behind.
        ImageError: a disk cannot be made.
    """
    made: list[Path] = []

    def make(folder: Path, name: str) -> None:
        own = store.layout.own_files(int(folder.name), name)
        for disk in planned.new_disks:
            path = disk.path or (
                folder / store.layout.overlay_name(name)
                if disk.number == 0
                else own.disk(disk.number)
            )
            make_disk(disk, path)
            if disk.path is not None:
                made.append(path)
                sync_directory(path.parent)
        if planned.spec.firmware == "efi":
            make_variables(planned.spec, own.variables)
        if planned.installer is not None:
            planned.installer.copy(own.installer_kernel, own.installer_initrd)

    try:
        create_own(
            store,
            planned.name,
            spec_json=planned.spec.to_json(),
            virtual_size=planned.virtual_size,
            make=make,
        )
    except BaseException:
        for path in made:  # what lies outside the store's folder is not undone with it
            path.unlink(missing_ok=True)
        raise
    return store.catalog.find_vm(planned.name)
