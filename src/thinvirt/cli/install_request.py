"""From the command line of ``thinvirt install`` to what is asked of the service."""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from thinvirt.cli.output import note
from thinvirt.cli.vm_options import parse_forward, read_public_keys, read_text
from thinvirt.errors import NotFound, UsageError
from thinvirt.service.installing import CHECKS, InstallRequest
from thinvirt.vm.grammar import parts
from thinvirt.vm.grammar.fixed import FIXED
from thinvirt.vm.grammar.suboptions import parse
from thinvirt.vm.grammar.tables import BOOT
from thinvirt.vm.spec import (
    USER_NETWORK,
    BootSpec,
    DiskSpec,
    GraphicsSpec,
    InstallSpec,
    NetworkSpec,
    SeedSpec,
    VmSpec,
)

if TYPE_CHECKING:
    from thinvirt.service.locations import BootFiles
    from thinvirt.vm.osinfo.records import OsInfo

_METHODS = "--import, --cdrom ISO, --location PLACE, --pxe, --install … or --boot …"


def request_from_args(args: argparse.Namespace) -> InstallRequest:
    """Return what the options ask for.

    Raises:
        UsageError: an option cannot be read, or options contradict each other.
        NotFound: a file named by an option is not there.
    """
    _check_method(args)
    _check_fixed(args)
    vcpus, topology = parts.vcpus(args.vcpus) if args.vcpus else (1, None)
    boot = parts.boot(args.boot) if args.boot else parts.Boot(BootSpec(), "bios", False)
    install, files = _installer(args)
    info = _os_of(args, files)
    drives = _drives(args)
    spec = VmSpec(
        os=info.short_id if info is not None else "",
        vcpus=vcpus,
        topology=topology,
        cpu=parts.cpu(args.cpu) if args.cpu else "",
        memory_mib=None if args.memory is None else parts.memory(args.memory),
        machine=args.machine,
        firmware=boot.firmware,
        secure_boot=boot.secure_boot,
        boot=boot.boot,
        install=install,
        disks=drives,
        networks=_networks(args),
        forwards=tuple(parse_forward(text) for text in args.forward),
        graphics=_graphics(args),
        video=parts.video(args.video) if args.video else None,
        seed=_seed(args, installing=install is not None),
        tpm=parts.tpm(args.tpm) if args.tpm else None,
        agent=parts.agent(args.channel) if args.channel else True,
        rng=parts.rng(args.rng) if args.rng else True,
        vmgenid=parts.vmgenid(args.metadata) if args.metadata else True,
    )
    asked = parse(BOOT, args.boot).keys() if args.boot else ()
    return InstallRequest(
        name=args.name or _name_for(info, drives),
        spec=spec,
        os=info,
        firmware_asked=not {"uefi", "firmware", "secure_boot"}.isdisjoint(asked),
        unchecked=_unchecked(args.check),
        installer=files,
    )


def _check_method(args: argparse.Namespace) -> None:
    """Return if one thing says how the VM comes to its system, and the others go with it."""
    given = {
        "--import": args.import_,
        "--cdrom": args.cdrom,
        "--location": args.location,
        "--pxe": args.pxe,
        "--install": args.install,
    }
    named = [option for option, value in given.items() if value]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} exclude each other", hint="--disk …,device=cdrom")
    if not named and not args.boot:
        raise UsageError("nothing says how the VM comes to its system", hint=_METHODS)
    if args.import_ and not args.disk:
        raise UsageError("--import needs a disk that has a system", hint="--disk FILE")
    if named and not (args.disk or args.nodisks):
        raise UsageError("there is no disk to install to", hint="--disk size=20, or --disk none")
    if args.extra_args and not (args.location or args.install):
        raise UsageError(
            "--extra-args go with a kernel that is started directly",
            hint="--location ISO instead of --cdrom; --boot kernel=…,kernel_args=…",
        )
    if args.cdrom and "://" in args.cdrom:
        what = "a libvirt URI" if args.cdrom.startswith(("qemu", "test", "xen")) else "a URL"
        raise UsageError(f"--cdrom {args.cdrom} is {what}", hint="a disc is a file of this host")
    if args.autoconsole not in (None, "none"):
        known = args.autoconsole in ("text", "graphical", "default")
        raise UsageError(
            f"--autoconsole {args.autoconsole}: "
            + ("no console is opened by itself" if known else "there is no such kind of console"),
            hint="thinvirt console NAME, or a VNC viewer at the address that is printed",
        )


def _check_fixed(args: argparse.Namespace) -> None:
    """Return if what every VM has in one way is not asked for in another."""
    for table in FIXED:
        for text in getattr(args, table.option.removeprefix("--")):
            parse(table, text)


def _installer(args: argparse.Namespace) -> "tuple[InstallSpec | None, BootFiles | None]":
    """Return what is booted to install, and what the kernel is copied from."""
    extra = " ".join(args.extra_args)
    install, files = None, None
    if args.cdrom:
        install = InstallSpec(media=str(Path(args.cdrom).absolute()))
    elif args.pxe:
        install = InstallSpec(boot="network")
    elif args.location:
        from thinvirt.service.locations import Location, find_boot_files

        place = parts.location(args.location)
        files = find_boot_files(Location(place.place, place.kernel, place.initrd))
        install = InstallSpec(kernel_args=extra)
    elif args.install:
        install = parts.installer(args.install)
        if install is not None and install.kernel:
            words = " ".join(text for text in (install.kernel_args, extra) if text)
            install = replace(
                install,
                kernel=str(Path(install.kernel).absolute()),
                initrd=str(Path(install.initrd).absolute()) if install.initrd else "",
                kernel_args=words,
            )
        elif extra:
            raise UsageError("--extra-args go with a kernel: --install kernel=FILE,…")
    if install is not None and args.noreboot:
        install = replace(install, reboot=False)
    return install, files


def _os_of(args: argparse.Namespace, files: "BootFiles | None") -> "OsInfo | None":
    """Return what the guest is: as it was named, else as the disc or tree says."""
    from thinvirt.service.os_knowledge import OsKnowledge

    text = args.osinfo or ""
    words = dict(part.partition("=")[::2] for part in text.split(","))
    name = words.get("name") or words.get("short-id") or words.get("id")
    name = name or ("" if "=" in text else text)
    if name and name not in ("none", "detect"):
        return OsKnowledge().find(name)
    required = words.get("require") in ("on", "yes")
    if name == "none" or words.get("detect", "on") in ("off", "no"):
        found = None
    elif files is not None:
        from thinvirt.service.locations import os_of

        found = os_of(OsKnowledge(), files)
    else:
        found = _os_of_disc(args.cdrom, required=required) if args.cdrom else None
    if found is None and required:
        raise UsageError(
            "which OS the guest has is not said, and not to be seen", hint="--osinfo NAME"
        )
    return found


def _os_of_disc(name: str, *, required: bool) -> "OsInfo | None":
    from thinvirt.service.os_knowledge import OsKnowledge
    from thinvirt.vm.osinfo.media import NotIso

    try:
        return OsKnowledge().detect(Path(name)).os
    except (NotFound, NotIso) as error:
        if required or not Path(name).exists():
            raise
        note(f"the OS of the disc is not known ({error}); --osinfo names it")
    return None


def _name_for(info: "OsInfo | None", drives: Iterable[DiskSpec]) -> str:
    """Return a name for a VM that was given none."""
    if info is not None:
        return info.short_id.replace(".", "-")
    stem = next((Path(drive.source or drive.backing).stem for drive in drives), "")
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem).strip("-")
    if not name:
        raise UsageError("the VM has no name", hint="--name NAME")
    return name[:63].strip("-")


def _unchecked(given: list[str]) -> frozenset[str]:
    found: set[str] = set()
    for text in given:
        for part in text.split(","):
            what, _, value = part.partition("=")
            if what == "all" and value == "off":
                found.update(CHECKS)
            elif what not in CHECKS or value not in ("on", "off"):
                raise UsageError(
                    f"--check: '{part}' is not possible", hint=f"{', '.join(CHECKS)} or all, =off"
                )
            elif value == "off":
                found.add(what)
    return frozenset(found)


def _drives(args: argparse.Namespace) -> tuple[DiskSpec, ...]:
    disks = [parts.disk(text) for text in args.disk]
    if args.nodisks and disks != [None] * len(disks):
        raise UsageError("--nodisks and --disk exclude each other")
    if None in disks and len(disks) > 1:
        raise UsageError("--disk none goes with no other disk")
    return tuple(disk for disk in disks if disk is not None)


def _networks(args: argparse.Namespace) -> tuple[NetworkSpec, ...]:
    if args.nonetworks:
        if args.network:
            raise UsageError("--nonetworks and --network exclude each other")
        return (NetworkSpec("none"),)
    return tuple(parts.network(text) for text in args.network) or (USER_NETWORK,)


def _graphics(args: argparse.Namespace) -> GraphicsSpec:
    if args.nographics:
        if args.graphics and args.graphics != "none":
            raise UsageError("--nographics and --graphics exclude each other")
        return GraphicsSpec("none")
    return parts.graphics(args.graphics) if args.graphics else GraphicsSpec()


def _seed(args: argparse.Namespace, *, installing: bool) -> SeedSpec | None:
    """Return the seed: as asked, one with keys for an imported guest, none for an installer."""
    keys = tuple(key for name in args.ssh_key for key in read_public_keys(name))
    if args.cloud_init is None:
        return None if installing and not keys else SeedSpec(ssh_keys=keys)
    if args.cloud_init == "none":
        if keys:
            raise UsageError("--ssh-key reaches the guest by a seed, and --cloud-init is none")
        return None
    files = parts.cloud_init(args.cloud_init)

    def content(name: str) -> str:
        return read_text(name, "--cloud-init") if name else ""

    more = tuple(read_public_keys(files.ssh_key)) if files.ssh_key else ()
    return SeedSpec(
        user_data=content(files.user_data),
        meta_data=content(files.meta_data),
        network_config=content(files.network_config),
        ssh_keys=(*keys, *more),
    )
