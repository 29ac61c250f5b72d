"""``thinvirt install``: a VM as virt-install makes it, with virt-install's options."""

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thinvirt.cli.output import note, print_json
from thinvirt.cli.stores import store_of
from thinvirt.errors import Conflict, ThinvirtError, Timeout
from thinvirt.units import format_size

if TYPE_CHECKING:
    from thinvirt.service.installing import InstallPlan
    from thinvirt.service.twins import Form
    from thinvirt.store import Store, Vm
    from thinvirt.vm.spec import VmSpec

_EPILOG = """examples:
  thinvirt install --name web --import --disk cirros.img --osinfo cirros0.5.2
  thinvirt install --name box --cdrom debian-12.iso --disk size=20 --memory 2048 --vcpus 2
  thinvirt install --location debian-12.iso -x console=ttyS0 --disk size=20
  thinvirt install --disk ?                lists what --disk takes; so do the other options
  thinvirt install … --print-command virt-install

An installer's first restart is seen to: the VM comes back from its disk without anybody waiting.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments; their names are virt-install's."""
    from thinvirt.cli.install_options import add_options

    add_options(parser)
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Make the VM, start it and wait for it if asked, and print it with its equivalent."""
    if _list_asked(args):
        return 0
    from thinvirt.cli.install_request import request_from_args
    from thinvirt.service.installing import install, plan

    request = request_from_args(args)
    printed = args.print_xml or args.print_command
    store = _store(args, make=not (printed or args.dry_run))
    planned = plan(store, request)
    if not args.quiet:
        for caution in planned.cautions:
            note(f"{caution.message.render()}; {caution.fix.render()}")
        for remark in planned.remarks:
            note(remark)
    if printed:
        _print_equivalents(planned, args)
        return 0
    if store is None or args.dry_run:
        _tell_plan(planned)
        return 0
    _check_acceleration(args.virt_type)
    vm = install(store, planned)
    if not args.quiet and not args.json:
        print(f"{vm.name}: {len(planned.spec.disks)} drives, {format_size(planned.virtual_size)}")
        _tell_equivalent(store, vm)
    stays = args.no_start or (args.noreboot and planned.spec.install is None)
    facts = {} if stays else _start(store, vm, args)
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
    """Print what an option takes that has no keys, if its value is "?"; return whether one is."""
    from thinvirt.vm.grammar.suboptions import LIST_KEYS

    if any(text in LIST_KEYS for text in args.check):
        from thinvirt.service.installing import CHECKS

        for name, text in CHECKS.items():
            print(f"  {name:<12}  {text}")
        return True
    if args.osinfo in (*LIST_KEYS, "list"):
        from thinvirt.service.os_knowledge import OsKnowledge

        for summary in OsKnowledge().summaries(today="9999"):
            print(", ".join((summary.short_id, *summary.aliases)))
        return True
    return False


def _check_acceleration(wanted: str | None) -> None:
    """Return if guests run as ``--virt-type`` insists.

    Raises:
        Conflict: they do not.
    """
    if wanted is None:
        return
    from thinvirt.service.launching import acceleration

    found = acceleration(note)
    if wanted == "kvm" and found.name != "kvm":
        raise Conflict(
            f"--virt-type kvm: guests do not run under KVM here: {found.reason}",
            hint="without --virt-type they are emulated",
        )
    if wanted == "qemu" and found.name == "kvm":
        raise Conflict(
            "--virt-type qemu: guests run under KVM here", hint="THINVIRT_ACCEL=tcg emulates them"
        )


def _print_equivalents(planned: "InstallPlan", args: argparse.Namespace) -> None:
    """Print a command, or the libvirt XML of one phase or both.

    Raises:
        Conflict: there is no such phase.
    """
    if args.print_command:
        _print_twin(planned, args.print_command, one_line=args.one_line)
        return
    phases = _phases(planned.spec)
    if args.print_xml == "2" and len(phases) < 2:
        raise Conflict(
            f"VM '{planned.name}' has no second phase: nothing is installed", hint="--print-xml 1"
        )
    chosen = phases if args.print_xml == "all" else [phases[int(args.print_xml) - 1]]
    for spec in chosen:
        installer = planned.installer if spec.install is not None else None
        _print_twin(replace(planned, spec=spec, installer=installer), "xml", one_line=False)


def _phases(spec: "VmSpec") -> "list[VmSpec]":
    from thinvirt.vm.phases import second_phase

    return [spec] if spec.install is None else [spec, second_phase(spec)]


def _print_twin(planned: "InstallPlan", form: "Form", *, one_line: bool) -> None:
    from thinvirt.service.twins import twin_of_install

    twin = twin_of_install(planned, form, one_line=one_line)
    for need in twin.needs:
        note(f"first: {need}")
    print(twin.text, end="")


def _tell_equivalent(store: "Store", vm: "Vm") -> None:
    """Tell the same VM as a command of virt-install's."""
    from thinvirt.service.twins import twin_of

    try:
        note(
            f"the same with virt-install: {twin_of(store, vm, 'virt-install', one_line=True).text}"
        )
    except ThinvirtError as error:  # the VM is made; what cannot be said now, `show` says later
        note(f"thinvirt show {vm.name} --as virt-install gives the same as a command ({error})")


def _tell_plan(planned: "InstallPlan") -> None:
    spec = planned.spec
    print(f"would make VM {planned.name}:")
    for number, disk in enumerate(spec.disks):
        new = next((each for each in planned.new_disks if each.number == number), None)
        where = disk.source or ("empty" if disk.device == "cdrom" else "in the store")
        size = f", {format_size(new.size)}" if new is not None and new.size else ""
        print(f"  {disk.device} {where}{' (new)' if new else ''}, {disk.format or 'raw'}{size}")
    install = spec.install
    if install is not None:
        what = install.location or install.media or install.kernel or str(install.boot)
        print(f"  installed from {what}, then started from its disk")
    print("  the command: thinvirt install … --print-command virt-install")


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
        limit = 86400.0 if args.wait < 0 else args.wait * 60
        if vm.spec.install is not None:
            from thinvirt.service.second_phase import wait_installed

            wait_installed(store, vm, timeout_s=limit)
        else:
            _wait(store, vm, limit, args)
    return {key: facts[key] for key in ("accel", "ssh_port", "vnc", "pid") if key in facts}


def _wait(store: "Store", vm: "Vm", limit: float, args: argparse.Namespace) -> None:
    from thinvirt.cli.waiting_view import require_reached, wait_and_tell

    waited = wait_and_tell(store, [vm], timeout_s=limit, quiet=args.quiet or args.json)
    try:
        require_reached(waited, as_json=args.json)
    except Timeout:
        sys.stdout.flush()
        raise
