"""``thinvirt install``: a VM as virt-install makes it, with virt-install's options."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinvirt.cli.output import note, print_json
from thinvirt.cli.stores import store_of
from thinvirt.cli.vm_options import TWIN_FORMS, parse_forward, parse_memory, read_text
from thinvirt.cli.vm_options import read_public_keys as read_keys
from thinvirt.errors import Timeout, UsageError
from thinvirt.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.service.installing import InstallPlan, InstallRequest
    from thinvirt.store import Store, Vm
    from thinvirt.vm.osinfo.records import OsInfo
    from thinvirt.vm.spec import DiskSpec, NetworkSpec, SeedSpec

_EPILOG = """examples:
  thinvirt install --name web --import --disk cirros.img --osinfo cirros0.5.2
  thinvirt install --name box --cdrom debian-12.iso --disk size=20 --memory 2048 --vcpus 2
  thinvirt install --disk ?                lists what --disk takes; so do the other options
  thinvirt install … --print-command virt-install
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments; their names are virt-install's."""
    general = parser.add_argument_group("the VM")
    general.add_argument("--name", "-n", help="its name (made of the OS or the disk)")
    general.add_argument(
        "--memory", "--ram", "-r", metavar="SIZE", help="MiB, or with a suffix (512M, 2G)"
    )
    general.add_argument("--vcpus", metavar="N[,…]", help="virtual CPUs, and their topology")
    general.add_argument("--cpu", default="", metavar="MODEL", help="CPU model (host, max)")
    general.add_argument("--machine", choices=("pc", "q35"), help="machine type")
    general.add_argument(
        "--osinfo", "--os-variant", metavar="OS", help="the guest's OS; list shows them"
    )
    general.add_argument(
        "--virt-type", choices=("kvm", "qemu"), help="insist on KVM, or on emulation (what works)"
    )
    method = parser.add_argument_group("how it comes to its system")
    method.add_argument("--import", dest="import_", action="store_true", help="it is on its disk")
    method.add_argument("--cdrom", "-c", metavar="ISO", help="install from this disc")
    method.add_argument("--boot", metavar="…", help="what is booted; uefi for UEFI")
    method.add_argument(
        "--cloud-init", nargs="?", const="", metavar="…", help="give it a NoCloud seed"
    )
    devices = parser.add_argument_group("devices; ? as their value lists what they take")
    devices.add_argument("--disk", action="append", default=[], metavar="…", help="a disk")
    devices.add_argument("--network", "-w", action="append", metavar="…", help="a network card")
    devices.add_argument("--forward", action="append", default=[], metavar="HOST:GUEST")
    devices.add_argument("--graphics", metavar="…", help="vnc, spice or none")
    devices.add_argument("--video", metavar="…", help="the graphics card")
    devices.add_argument("--tpm", metavar="…", help="a TPM 2.0")
    devices.add_argument("--rng", metavar="DEVICE|none", help="random numbers of the host")
    devices.add_argument("--ssh-key", action="append", default=[], metavar="FILE")
    what = parser.add_argument_group("what is done")
    what.add_argument("--dry-run", action="store_true", help="only say what would be made")
    what.add_argument("--print-xml", action="store_true", help="only print the libvirt XML")
    what.add_argument("--print-command", choices=TWIN_FORMS, help="only print an equivalent")
    what.add_argument("--one-line", action="store_true", help="with it: a command on one line")
    what.add_argument("--noreboot", "--no-start", action="store_true", help="do not start it")
    what.add_argument(
        "--wait", nargs="?", type=float, const=-1.0, metavar="MINUTES", help="wait for its login"
    )
    what.add_argument("--noautoconsole", action="store_true", help="as ever: no console is opened")
    what.add_argument("--check", action="append", default=[], metavar="WHAT=off")
    what.add_argument("--json", action="store_true", help="print the VM as JSON")
    what.add_argument("--quiet", "-q", action="store_true", help="print errors only")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Make the VM, start it and wait for it if asked, and print it with its equivalent."""
    if _list_asked(args):
        return 0
    from thinvirt.service.installing import install, plan

    request = request_from_args(args)
    form = "xml" if args.print_xml else args.print_command
    store = _store(args, make=not (form or args.dry_run))
    planned = plan(store, request)
    if not args.quiet:
        for caution in planned.cautions:
            note(f"{caution.message.render()}; {caution.fix.render()}")
    if form:
        _print_twin(planned, form, one_line=args.one_line)
        return 0
    if store is None or args.dry_run:
        _tell_plan(planned)
        return 0
    vm = install(store, planned)
    if not args.quiet and not args.json:
        print(f"{vm.name}: {len(planned.spec.disks)} drives, {format_size(planned.virtual_size)}")
        note(f"the same with virt-install: thinvirt show {vm.name} --as virt-install")
    facts = {} if args.noreboot else _start(store, vm, args)
    if args.json:
        from thinvirt.service.inventory import vm_facts

        print_json(vm_facts(store, vm) | facts)
    return 0


def _store(args: argparse.Namespace, *, make: bool) -> "Store | None":
    """Return the store; None if there is none and nothing shall be made."""
    from thinvirt.store.opening import NoStore

    try:
        return store_of(args, create=make)
    except NoStore:
        return None


def _list_asked(args: argparse.Namespace) -> bool:
    """Print what an option takes if its value is "?"; return whether one is."""
    from thinvirt.vm.grammar.suboptions import LIST_KEYS, listing
    from thinvirt.vm.grammar.tables import TABLES

    for table in TABLES:
        given = getattr(args, table.option.removeprefix("--").replace("-", "_"))
        values = given if isinstance(given, list) else [given]
        if any(value in LIST_KEYS for value in values):
            for line in listing(table):
                print(line)
            return True
    if args.osinfo in (*LIST_KEYS, "list"):
        from thinvirt.service.os_knowledge import OsKnowledge

        for summary in OsKnowledge().summaries(today="9999"):
            print(", ".join((summary.short_id, *summary.aliases)))
        return True
    return False


def request_from_args(args: argparse.Namespace) -> "InstallRequest":
    """Return what the options ask for.

    Raises:
        UsageError: an option cannot be read, or options contradict each other.
        NotFound: a file named by an option is not there.
    """
    from thinvirt.service.installing import CHECKS, InstallRequest
    from thinvirt.vm.grammar import parts
    from thinvirt.vm.spec import BootSpec, GraphicsSpec, InstallSpec, VmSpec

    _check_method(args)
    vcpus, topology = parts.vcpus(args.vcpus) if args.vcpus else (1, None)
    boot = parts.boot(args.boot) if args.boot else parts.Boot(BootSpec(), "bios", False)
    info = _os_of(args)
    disks = [parts.disk(text) for text in args.disk]
    if None in disks and len(disks) > 1:
        raise UsageError("--disk none goes with no other disk")
    drives: list[DiskSpec] = [disk for disk in disks if disk is not None]
    name = args.name or _name_for(info, drives)
    unchecked = _unchecked(args.check, CHECKS)
    spec = VmSpec(
        os=info.short_id if info is not None else "",
        vcpus=vcpus,
        topology=topology,
        cpu=args.cpu,
        memory_mib=None if args.memory is None else parse_memory(args.memory),
        machine=args.machine,
        firmware=boot.firmware,
        secure_boot=boot.secure_boot,
        boot=boot.boot,
        install=InstallSpec(media=str(Path(args.cdrom).absolute())) if args.cdrom else None,
        disks=tuple(drives),
        networks=_networks(args, parts.network),
        forwards=tuple(parse_forward(text) for text in args.forward),
        graphics=parts.graphics(args.graphics) if args.graphics else GraphicsSpec(),
        video=parts.video(args.video) if args.video else None,
        seed=_seed(args),
        tpm=parts.tpm(args.tpm) if args.tpm else None,
        rng=args.rng != "none",
    )
    asked = bool(args.boot) and ("uefi" in args.boot or "firmware" in args.boot)
    return InstallRequest(name=name, spec=spec, os=info, firmware_asked=asked, unchecked=unchecked)


def _check_method(args: argparse.Namespace) -> None:
    from thinvirt.vm.grammar.suboptions import parse
    from thinvirt.vm.grammar.tables import BOOT

    boot = parse(BOOT, args.boot) if args.boot else {}
    if args.import_ and args.cdrom:
        raise UsageError("--import and --cdrom exclude each other", hint="--disk …,device=cdrom")
    if not (args.import_ or args.cdrom or boot):
        raise UsageError(
            "nothing says how the VM comes to its system",
            hint="--import for a disk that has one, or --cdrom ISO, or --boot …",
        )
    if args.import_ and not args.disk:
        raise UsageError("--import needs a disk that has a system", hint="--disk FILE")
    if args.cdrom and not args.disk:
        raise UsageError("there is no disk to install to", hint="--disk size=20, or --disk none")


def _os_of(args: argparse.Namespace) -> "OsInfo | None":
    """Return what the guest is: as it was named, else as the disc says."""
    from thinvirt.service.os_knowledge import OsKnowledge

    text = args.osinfo or ""
    words = dict(part.partition("=")[::2] for part in text.split(","))
    name = words.get("name") or words.get("short-id") or ("" if "=" in text else text)
    if name and name not in ("none", "detect"):
        return OsKnowledge().find(name)
    if args.cdrom and words.get("detect", "on") not in ("off", "no"):
        from thinvirt.errors import NotFound
        from thinvirt.vm.osinfo.media import NotIso

        try:
            return OsKnowledge().detect(Path(args.cdrom)).os
        except (NotFound, NotIso) as error:
            if not Path(args.cdrom).exists():
                raise
            if words.get("require") in ("on", "yes"):
                raise
            note(f"the OS of the disc is not known ({error}); --osinfo names it")
    return None


def _name_for(info: "OsInfo | None", drives: "list[DiskSpec]") -> str:
    """Return a name for a VM that was given none."""
    if info is not None:
        return info.short_id.replace(".", "-")
    stem = Path(drives[0].source or drives[0].backing).stem if drives else ""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem).strip("-")
    if not name:
        raise UsageError("the VM has no name", hint="--name NAME")
    return name[:63].strip("-")


def _unchecked(given: list[str], known: tuple[str, ...]) -> frozenset[str]:
    found: set[str] = set()
    for text in given:
        for part in text.split(","):
            what, _, value = part.partition("=")
            if what == "all" and value == "off":
                found.update(known)
            elif what not in known or value not in ("on", "off"):
                raise UsageError(
                    f"--check: '{part}' is not possible", hint=f"{', '.join(known)} or all, =off"
                )
            elif value == "off":
                found.add(what)
    return frozenset(found)


def _networks(
    args: argparse.Namespace, read: "Callable[[str], NetworkSpec]"
) -> "tuple[NetworkSpec, ...]":
    from thinvirt.vm.spec import USER_NETWORK

    if not args.network:
        return (USER_NETWORK,)
    return tuple(read(text) for text in args.network)


def _seed(args: argparse.Namespace) -> "SeedSpec | None":
    """Return the seed: as asked, one with keys for an imported guest, none for an installer."""
    from thinvirt.vm.grammar import parts
    from thinvirt.vm.spec import SeedSpec

    keys = tuple(key for name in args.ssh_key for key in read_keys(name))
    if args.cloud_init is None:
        if args.cdrom and not keys:
            return None
        return SeedSpec(ssh_keys=keys)
    files = parts.cloud_init(args.cloud_init)

    def content(name: str) -> str:
        return read_text(name, "--cloud-init") if name else ""

    more = tuple(read_keys(files.ssh_key)) if files.ssh_key else ()
    return SeedSpec(
        user_data=content(files.user_data),
        meta_data=content(files.meta_data),
        network_config=content(files.network_config),
        ssh_keys=(*keys, *more),
    )


def _print_twin(planned: "InstallPlan", form: str, *, one_line: bool) -> None:
    from thinvirt.service.twins import twin_of_install

    twin = twin_of_install(planned, form, one_line=one_line)  # type: ignore[arg-type]
    for need in twin.needs:
        note(f"first: {need}")
    print(twin.text, end="")


def _tell_plan(planned: "InstallPlan") -> None:
    print(f"would make VM {planned.name}:")
    for number, disk in enumerate(planned.spec.disks):
        new = next((each for each in planned.new_disks if each.number == number), None)
        where = disk.source or "in the store"
        size = f", {format_size(new.size)}" if new is not None and new.size else ""
        print(f"  {disk.device} {where}{' (new)' if new else ''}, {disk.format or 'raw'}{size}")


def _start(store: "Store", vm: "Vm", args: argparse.Namespace) -> dict[str, Any]:
    """Start the VM, wait for it if asked, and return what there is to say."""
    from thinvirt.cli import power_view
    from thinvirt.service.power import start

    quiet = args.quiet or args.json
    (result,) = start(store, [vm], say=None if quiet else note)
    if result.error is not None:
        raise result.error
    if not quiet:
        note(power_view.line(result))
    facts = result.to_facts()
    if args.wait is not None and args.wait != 0:
        from thinvirt.cli.waiting_view import require_reached, wait_and_tell

        limit = 86400.0 if args.wait < 0 else args.wait * 60
        waited = wait_and_tell(store, [vm], timeout_s=limit, quiet=quiet)
        try:
            require_reached(waited, as_json=args.json)
        except Timeout:
            sys.stdout.flush()
            raise
    return {key: facts[key] for key in ("accel", "ssh_port", "vnc", "pid") if key in facts}
