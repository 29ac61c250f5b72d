"""The options that describe a VM, shared by every command that makes one.

They are virt-install's where it has them: ``--memory``, ``--vcpus``, ``--machine``, ``--network``.
"""

import argparse
import re
from pathlib import Path
from typing import get_args

from thinvirt.errors import NotFound, UsageError
from thinvirt.units import MIB, parse_size
from thinvirt.vm.spec import (
    USER_NETWORK,
    DiskSpec,
    Forward,
    GraphicsSpec,
    NetworkSpec,
    SeedSpec,
    VmSpec,
)
from thinvirt.vm.spec.validate import checked
from thinvirt.vm.spec.words import DEFAULT_LAN, LOOPBACK, Bus, Cache, Machine

# As `thinvirt.service.twins.FORMS`, which a listing of options need not load.
TWIN_FORMS = ("virt-install", "xml", "qemu", "qemu-img")

_VNC_ADDRESS = re.compile(r"(?P<address>\[[0-9a-fA-F:.%a-z]+\]|[A-Za-z0-9.-]*):(?P<port>\d{1,5})")


def add_vm_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that `spec_from_args` reads."""
    group = parser.add_argument_group("the VM")
    group.add_argument(
        "--memory",
        "--ram",
        metavar="SIZE",
        help="memory: MiB, or with a suffix (512M, 2G); default: what the template recommends",
    )
    group.add_argument("--vcpus", type=int, default=1, metavar="N", help="virtual CPUs (1)")
    group.add_argument("--bus", choices=get_args(Bus), help="how the disk is attached (virtio)")
    group.add_argument(
        "--cache", choices=get_args(Cache), help="cache mode of the disk (writeback)"
    )
    group.add_argument(
        "--machine", choices=get_args(Machine), help="machine type (q35 for SATA, else pc)"
    )
    group.add_argument(
        "--network",
        action="append",
        metavar="user|lan[=NAME]|none",
        help="a network: user (outward, and SSH from the host), lan (private, between the VMs of "
        "this store), none; may be repeated (user)",
    )
    group.add_argument(
        "--forward",
        action="append",
        default=[],
        metavar="[ADDRESS:]HOST:GUEST[/udp]",
        help="lead a port of the host to a port of the guest; may be repeated",
    )
    group.add_argument(
        "--user-data", metavar="FILE", help="cloud-init user-data, or a script for the first boot"
    )
    group.add_argument(
        "--ssh-key",
        action="append",
        default=[],
        metavar="FILE",
        help="public key file for the guest's user, beside the store's own; may be repeated",
    )
    group.add_argument(
        "--vnc",
        default="auto",
        metavar="auto|off|ADDRESS:PORT",
        help="the VM's screen: a free port of the loopback, none, or where you say (auto)",
    )


def spec_from_args(args: argparse.Namespace) -> VmSpec:
    """Return the specification that the options ask for.

    Raises:
        UsageError: an option cannot be read, or the whole cannot be met; all problems are named.
        NotFound: a file named by an option is not there.
    """
    spec = VmSpec(
        vcpus=args.vcpus,
        memory_mib=None if args.memory is None else parse_memory(args.memory),
        machine=args.machine,
        disks=(DiskSpec(bus=args.bus, cache=args.cache),),
        networks=tuple(parse_network(text) for text in args.network)
        if args.network
        else (USER_NETWORK,),
        forwards=tuple(parse_forward(text) for text in args.forward),
        seed=SeedSpec(
            user_data=read_text(args.user_data, "--user-data") if args.user_data else "",
            ssh_keys=tuple(key for name in args.ssh_key for key in read_public_keys(name)),
        ),
        graphics=parse_vnc(args.vnc),
    )
    return checked(spec)


def parse_memory(text: str) -> int:
    """Return MiB: a bare number counts MiB, as virt-install has it, a suffix says otherwise."""
    size_bytes = parse_size(text, default_suffix="M", what="memory size")
    if size_bytes % MIB or not size_bytes:
        raise UsageError(f"a memory size of '{text}' is not a whole number of MiB")
    return size_bytes // MIB


def parse_network(text: str) -> NetworkSpec:
    """Return the network that ``user``, ``none``, ``lan`` or ``lan=NAME`` means."""
    kind, _, name = text.partition("=")
    if kind == "lan":
        return NetworkSpec("lan", name or DEFAULT_LAN)
    if kind == "user" and not name:
        return USER_NETWORK
    if kind == "none" and not name:
        return NetworkSpec("none")
    raise UsageError(f"unknown network '{text}'", hint="user, lan, lan=NAME or none")


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
