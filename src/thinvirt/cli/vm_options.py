"""The options that describe a VM, shared by every command that makes one.

They are virt-install's where it has them: ``--memory``, ``--vcpus``, ``--machine``, ``--network``.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from thinvirt.errors import NotFound, UsageError
from thinvirt.units import MIB, parse_size
from thinvirt.vm.spec import (
    USER_NETWORK,
    BootSpec,
    DiskSpec,
    Forward,
    GraphicsSpec,
    SeedSpec,
    VmSpec,
)
from thinvirt.vm.spec.validate import checked
from thinvirt.vm.spec.words import LOOPBACK, Bus, Cache, Machine

# As `thinvirt.service.twins.FORMS`, which a listing of options need not load.
TWIN_FORMS = ("thinvirt", "virt-install", "xml", "qemu", "qemu-img")

_VNC_ADDRESS = re.compile(r"(?P<address>\[[0-9a-fA-F:.%a-z]+\]|[A-Za-z0-9.-]*):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options ask for.

    Attributes:
        spec: the specification; what was not asked for is open in it.
        size: bytes of the clone's own disk; None: the template's.
        os: the guest's OS, as osinfo-db calls it, "" if it was not said.
        firmware_asked: whether `spec.firmware` was asked for.
    """

    spec: VmSpec
    size: int | None
    os: str
    firmware_asked: bool


def add_vm_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that `wishes_from_args` reads."""
    group = parser.add_argument_group("the VM")
    group.add_argument("--size", metavar="SIZE", help="size of its disk, as 20G (the template's)")
    group.add_argument(
        "--memory",
        "--ram",
        metavar="SIZE",
        help="memory: MiB, or with a suffix (512M, 2G); default: what the template recommends",
    )
    group.add_argument(
        "--vcpus", action=Described, metavar="N[,…]", help="virtual CPUs, and their topology (1)"
    )
    group.add_argument("--cpu", default="", metavar="MODEL", help="CPU model (host, or max)")
    group.add_argument("--bus", choices=get_args(Bus), help="how the disk is attached (virtio)")
    group.add_argument(
        "--cache", choices=get_args(Cache), help="cache mode of the disk (writeback)"
    )
    group.add_argument(
        "--machine", choices=get_args(Machine), help="machine type (q35 for SATA or UEFI, else pc)"
    )
    group.add_argument(
        "--osinfo", "--os-variant", metavar="OS", help="the guest's OS (the template's)"
    )
    group.add_argument(
        "--boot", action=Described, metavar="…", help="what is booted; uefi for UEFI"
    )
    group.add_argument(
        "--user-data", metavar="FILE", help="cloud-init user-data, or a script for the first boot"
    )
    group.add_argument(
        "--cloud-init", action=Described, metavar="…", help="what its first boot is told, in full"
    )
    group.add_argument(
        "--ssh-key",
        action="append",
        default=[],
        metavar="FILE",
        help="public key file for the guest's user, beside the store's own; may be repeated",
    )
    _add_devices(parser)


def _add_devices(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("its devices, as virt-install has them; ? lists the keys")
    group.add_argument(
        "--disk",
        action=Described,
        default=[],
        metavar="…",
        help="the first describes the clone's own disk (bus=, cache=, size=…), others are further "
        "disks: size=20 for a new one, or path=FILE; may be repeated",
    )
    group.add_argument(
        "--network",
        action=Described,
        default=[],
        metavar="user|lan[=NAME]|…|none",
        help="a network: user (outward, and SSH from the host), lan (private, between the VMs of "
        "this store), bridge=NAME, network=NAME (libvirt's), none; may be repeated (user)",
    )
    group.add_argument(
        "--forward",
        action="append",
        default=[],
        metavar="[ADDRESS:]HOST:GUEST[/udp]",
        help="lead a port of the host to a port of the guest; may be repeated",
    )
    group.add_argument(
        "--vnc",
        metavar="auto|off|ADDRESS:PORT",
        help="the VM's screen: a free port of the loopback, none, or where you say (auto)",
    )
    group.add_argument(
        "--graphics", action=Described, metavar="vnc|spice|none[,…]", help="the same, in full"
    )
    group.add_argument("--video", action=Described, metavar="MODEL", help="graphics card (vga)")
    group.add_argument(
        "--tpm", action=Described, metavar="emulator|none[,…]", help="a TPM 2.0 of its own (none)"
    )


class Described(argparse.Action):
    """An option with keys: ``?`` for its value lists them and ends; repeated ones are collected."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Take the value, or list what it may be."""
        name = self.option_strings[0]
        if values in ("?", "help"):
            from thinvirt.vm.grammar.suboptions import listing
            from thinvirt.vm.grammar.tables import TABLES

            table = next(table for table in TABLES if table.option == name)
            for line in listing(table):
                print(line)
            parser.exit()
        there = getattr(namespace, self.dest)
        if isinstance(there, list):
            setattr(namespace, self.dest, [*there, values])
        elif there is not None:
            raise UsageError(f"{name} is given twice")
        else:
            setattr(namespace, self.dest, values)


def wishes_from_args(args: argparse.Namespace) -> Wishes:
    """Return what the options ask for.

    Raises:
        UsageError: an option cannot be read, two contradict each other, or the whole cannot be
            met; all problems of the whole are named.
        NotFound: a file named by an option is not there.
    """
    from thinvirt.vm.grammar import parts

    disks, size = _disks(args)
    vcpus, topology = parts.vcpus(args.vcpus) if args.vcpus else (1, None)
    boot = parts.boot(args.boot) if args.boot else parts.Boot(BootSpec(), "bios", False)
    spec = VmSpec(
        vcpus=vcpus,
        topology=topology,
        cpu=args.cpu,
        memory_mib=None if args.memory is None else parse_memory(args.memory),
        machine=args.machine,
        firmware=boot.firmware,
        secure_boot=boot.secure_boot,
        boot=boot.boot,
        disks=disks,
        networks=tuple(parts.network(text) for text in args.network) or (USER_NETWORK,),
        forwards=tuple(parse_forward(text) for text in args.forward),
        graphics=_graphics(args),
        video=parts.video(args.video) if args.video else None,
        seed=_seed(args),
        tpm=parts.tpm(args.tpm) if args.tpm else None,
    )
    return Wishes(checked(spec), size, os_name(args.osinfo), _names_firmware(args.boot))


def _disks(args: argparse.Namespace) -> tuple[tuple[DiskSpec, ...], int | None]:
    """Return the drives, the clone's own first, and that one's size."""
    from thinvirt.vm.grammar import parts
    from thinvirt.vm.grammar.suboptions import parse
    from thinvirt.vm.grammar.tables import DISK

    own: dict[str, Any] = {}
    if args.disk:
        if args.disk[0] == "none":
            raise UsageError("--disk none: a clone has a disk, the overlay of its template")
        own = parse(DISK, args.disk[0])
    size = None if args.size is None else parse_size(args.size)
    for option, key, value in (
        ("--bus", "bus", args.bus),
        ("--cache", "cache", args.cache),
        ("--size", "size", size),
    ):
        if value is None:
            continue
        if key in own:
            raise UsageError(f"{option} and --disk {key}= say the same thing twice")
        own[key] = value
    further = [parts.disk(text) for text in args.disk[1:]]
    if None in further:
        raise UsageError("--disk none goes with no other disk")
    size = own.pop("size", None)
    return (DiskSpec(**own), *(disk for disk in further if disk is not None)), size


def _graphics(args: argparse.Namespace) -> GraphicsSpec:
    from thinvirt.vm.grammar import parts

    if args.graphics and args.vnc:
        raise UsageError(
            "--graphics and --vnc both say how the screen is shown", hint="one of them is enough"
        )
    return parts.graphics(args.graphics) if args.graphics else parse_vnc(args.vnc or "auto")


def _seed(args: argparse.Namespace) -> SeedSpec:
    keys = [key for name in args.ssh_key for key in read_public_keys(name)]
    if not args.cloud_init:
        text = read_text(args.user_data, "--user-data") if args.user_data else ""
        return SeedSpec(user_data=text, ssh_keys=tuple(keys))
    from thinvirt.vm.grammar import parts

    files = parts.cloud_init(args.cloud_init)
    if args.user_data and files.user_data:
        raise UsageError("--user-data and --cloud-init user-data= say the same thing twice")
    texts = {
        "user_data": files.user_data or args.user_data,
        "meta_data": files.meta_data,
        "network_config": files.network_config,
    }
    read = {key: read_text(name, "--cloud-init") if name else "" for key, name in texts.items()}
    keys += read_public_keys(files.ssh_key) if files.ssh_key else []
    return SeedSpec(**read, ssh_keys=tuple(dict.fromkeys(keys)))


def os_name(text: str | None) -> str:
    """Return the OS that ``--osinfo`` names: ``debian12``, ``name=debian12,…``; "" for none."""
    if not text:
        return ""
    words = dict(part.partition("=")[::2] for part in text.split(","))
    name = words.get("name") or words.get("short-id") or ("" if "=" in text else text)
    return "" if name in ("none", "detect") else name


def _names_firmware(boot: str | None) -> bool:
    """Tell whether ``--boot`` says what the firmware is."""
    if not boot:
        return False
    from thinvirt.vm.grammar.suboptions import parse
    from thinvirt.vm.grammar.tables import BOOT

    return bool({"uefi", "firmware", "secure_boot"} & parse(BOOT, boot).keys())


def parse_memory(text: str) -> int:
    """Return MiB: a bare number counts MiB, as virt-install has it, a suffix says otherwise."""
    size_bytes = parse_size(text, default_suffix="M", what="memory size")
    if size_bytes % MIB or not size_bytes:
        raise UsageError(f"a memory size of '{text}' is not a whole number of MiB")
    return size_bytes // MIB


def parse_vnc(text: str) -> GraphicsSpec:
    """Return the screen that ``auto``, ``off`` or ``ADDRESS:PORT`` means."""
    if text == "auto":
        return GraphicsSpec()
    if text == "off":
        return GraphicsSpec("none")
    match = _VNC_ADDRESS.fullmatch(text)
    if match is None:
        raise UsageError(f"VNC at '{text}' is not possible", hint="auto, off, or ADDRESS:PORT")
    return GraphicsSpec(listen=match["address"].strip("[]"), port=int(match["port"]))


def parse_forward(text: str) -> Forward:
    """Return the forward that ``[ADDRESS:]HOST:GUEST[/udp]`` means."""
    ports, _, protocol = text.partition("/")
    head, _, guest = ports.rpartition(":")
    address, _, host = head.rpartition(":")
    if not (host.isdecimal() and guest.isdecimal() and protocol in ("", "tcp", "udp")):
        raise UsageError(
            f"cannot read the forward '{text}'", hint="HOST:GUEST, such as 8080:80, or 5353:53/udp"
        )
    return Forward(
        int(host), int(guest), "udp" if protocol == "udp" else "tcp", address or LOOPBACK
    )


def read_public_keys(name: str) -> list[str]:
    """Return the keys of a public key file, one per line, comments and blank lines dropped.

    Raises:
        NotFound: there is no such file.
        UsageError: it cannot be read, or holds a private key.
    """
    text = read_text(name, "--ssh-key")
    if "PRIVATE KEY" in text:
        raise UsageError(f"'{name}' holds a private key", hint=f"the public one is '{name}.pub'")
    keys = [line.strip() for line in text.splitlines()]
    return [key for key in keys if key and not key.startswith("#")]


def read_text(name: str, option: str) -> str:
    """Return the content of a text file that an option names.

    Raises:
        NotFound: there is no such file.
        UsageError: it cannot be read, or is no text in UTF-8.
    """
    path = Path(name).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"{option}: there is no file '{name}'") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option}: '{name}' is not text in UTF-8") from None
    except OSError as error:
        raise UsageError(f"{option}: cannot read '{name}': {error.strerror}") from error
