"""The options of ``thinvirt install``: their names and meanings are virt-install's."""

import argparse
import math
from collections.abc import Sequence
from typing import Any

from thinvirt.cli.vm_options import TWIN_FORMS, Described
from thinvirt.errors import UsageError
from thinvirt.vm.grammar.foreign import FOREIGN


class Once(argparse.Action):
    """An option with one value; a second one is refused rather than taken for the first."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Take the value."""
        if getattr(namespace, self.dest) is not None:
            raise UsageError(f"{self.option_strings[0]} is given twice")
        setattr(namespace, self.dest, values)


class Foreign(argparse.Action):
    """An option that virt-install has and there is nothing for here: it says so."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Refuse it, with the reason or the way out."""
        option = self.option_strings[0]
        raise UsageError(f"{option} is known to virt-install and not here", hint=FOREIGN[option])


def _minutes(text: str) -> float:
    """Return minutes: any number from 0, or -1 for as long as it takes."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not (found == -1 or 0 <= found < math.inf):
        raise UsageError(
            f"--wait {text} is no number of minutes", hint="--wait 10, or --wait for a day at most"
        )
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare all of them."""
    _add_general(parser)
    _add_method(parser)
    _add_devices(parser)
    _add_fixed(parser)
    _add_doing(parser)
    for option in FOREIGN:
        parser.add_argument(option, action=Foreign, nargs="?", help=argparse.SUPPRESS)


def _add_general(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the VM")
    group.add_argument(
        "--name", "-n", action=Once, help="its name (made of the OS, the disc or the disk)"
    )
    group.add_argument(
        *("--memory", "--ram", "-r"),
        action=Described,
        metavar="SIZE",
        help="MiB, or with a suffix (512M, 2G)",
    )
    group.add_argument(
        "--vcpus", action=Described, metavar="N[,…]", help="virtual CPUs, and their topology"
    )
    group.add_argument("--cpu", action=Described, metavar="MODEL", help="CPU model (host, max)")
    group.add_argument("--machine", action=Once, choices=("pc", "q35"), help="machine type")
    group.add_argument(
        *("--osinfo", "--os-variant"),
        action=Once,
        metavar="OS",
        help="the guest's OS; list shows them",
    )
    group.add_argument(
        "--virt-type",
        action=Once,
        choices=("kvm", "qemu"),
        help="insist on KVM, or on emulation (what works)",
    )
    group.add_argument("--arch", action=Once, choices=("x86_64",), help="what VMs are: x86_64")
    group.add_argument("--hvm", "-v", action="store_true", help="what VMs are: fully virtualized")


def _add_method(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it comes to its system; one of them")
    group.add_argument("--import", dest="import_", action="store_true", help="it is on its disk")
    group.add_argument("--cdrom", "-c", action=Once, metavar="ISO", help="install from this disc")
    group.add_argument(
        *("--location", "-l"),
        action=Described,
        metavar="PLACE[,…]",
        help="install from this disc or tree, its kernel started directly",
    )
    group.add_argument("--pxe", action="store_true", help="install from the network")
    group.add_argument(
        "--install", action=Described, metavar="…", help="kernel=,initrd=, bootdev=, no_install=yes"
    )
    group.add_argument(
        *("--extra-args", "-x"),
        action="append",
        default=[],
        metavar="TEXT",
        help="more for the command line of the installer's kernel; may be repeated",
    )
    group.add_argument(
        "--boot", action=Described, metavar="…", help="what is booted, now and later; uefi"
    )
    group.add_argument(
        "--cloud-init",
        nargs="?",
        const="",
        action=Described,
        metavar="…",
        help="a NoCloud seed; none: no seed",
    )
    group.add_argument(
        *("--ssh-key",),
        action="append",
        default=[],
        metavar="FILE",
        help="public key file for the guest's user; may be repeated",
    )


def _add_devices(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("devices; ? as their value lists what they take")
    for option, more, text in (
        ("--disk", (), "a disk or CD-ROM; none for a VM without; may be repeated"),
        ("--network", ("-w",), "a network card; none for a VM without; may be repeated"),
    ):
        group.add_argument(option, *more, action=Described, default=[], metavar="…", help=text)
    group.add_argument(
        "--forward",
        action="append",
        default=[],
        metavar="[ADDRESS:]HOST:GUEST[/udp]",
        help="lead a port of the host to a port of the guest; may be repeated",
    )
    group.add_argument("--graphics", action=Described, metavar="…", help="vnc, spice or none")
    group.add_argument("--video", action=Described, metavar="…", help="the graphics card")
    group.add_argument("--tpm", action=Described, metavar="…", help="a TPM 2.0")
    group.add_argument(
        "--rng", action=Described, metavar="DEVICE|none", help="random numbers of the host"
    )
    group.add_argument(
        "--channel", action=Described, metavar="…|none", help="the guest agent's channel"
    )
    group.add_argument(
        "--metadata", action=Described, metavar="…", help="genid_enable: tell that it is a copy"
    )
    for option, stands_for in (
        ("--nodisks", "--disk none"),
        ("--nonetworks", "--network none"),
        ("--nographics", "--graphics none"),
    ):
        group.add_argument(option, action="store_true", help=f"as {stands_for}")


def _add_fixed(parser: argparse.ArgumentParser) -> None:
    """Declare what may be said and decides nothing: every VM has it in one way."""
    group = parser.add_argument_group("what every VM has in one way, which may be said")
    for name in (
        *("controller", "serial", "console", "sound", "memballoon"),
        *("features", "clock", "events", "input"),
    ):
        group.add_argument(
            f"--{name}", action=Described, default=[], metavar="…", help="? says which"
        )


def _add_doing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is done")
    group.add_argument("--dry-run", action="store_true", help="only say what would be made")
    group.add_argument(
        "--print-xml",
        nargs="?",
        const="all",
        choices=("1", "2", "all"),
        help="only print the libvirt XML: of the installer's phase (1), of the system's (2), all",
    )
    group.add_argument("--print-command", choices=TWIN_FORMS, help="only print an equivalent")
    group.add_argument("--one-line", action="store_true", help="with it: a command on one line")
    group.add_argument(
        "--noreboot", action="store_true", help="leave it off once its installer is done"
    )
    group.add_argument("--no-start", action="store_true", help="do not start it")
    group.add_argument(
        "--wait",
        nargs="?",
        type=_minutes,
        const=-1.0,
        metavar="MINUTES",
        help="wait for its login, or until its installer is done",
    )
    group.add_argument(
        "--autoconsole", action=Once, metavar="none", help="no console is opened: thinvirt console"
    )
    group.add_argument("--noautoconsole", action="store_true", help="as ever: none is opened")
    group.add_argument(
        "--check",
        action="append",
        default=[],
        metavar="WHAT=off",
        help="leave out a check; ? lists",
    )
    group.add_argument("--json", action="store_true", help="print the VM as JSON")
    group.add_argument("--quiet", "-q", action="store_true", help="print errors only")
