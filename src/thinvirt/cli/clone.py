"""``thinvirt clone``: linked clones of a template, one or many, in one transaction."""

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from thinvirt.cli import power_view
from thinvirt.cli.output import note, print_json_rows, progress
from thinvirt.cli.stores import store_of
from thinvirt.cli.values import seconds
from thinvirt.cli.vm_options import TWIN_FORMS, add_vm_options, wishes_from_args
from thinvirt.errors import ThinvirtError, Timeout
from thinvirt.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thinvirt.service.clones import ClonePlan
    from thinvirt.service.power import PowerResult
    from thinvirt.store import Store, Vm

_LISTED = 10  # names a person is shown; programs get all, by --json
_DEFAULT_TIMEOUT_S = 300.0

_EPILOG = """examples:
  thinvirt clone tiny web                    one VM, named web
  thinvirt clone tiny web --count 100        web-001 … web-100, all of them or none
  thinvirt clone tiny db --size 20G --memory 2G --start --wait
  thinvirt clone tiny db --disk cache=none --disk size=20,bus=scsi --graphics spice
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("template", metavar="TEMPLATE", help="NAME, NAME@VERSION, or a digest")
    parser.add_argument("name", metavar="NAME", help="the VM's name; with --count its beginning")
    parser.add_argument("--count", "-n", type=int, metavar="N", help="make N VMs: NAME-001 …")
    parser.add_argument(
        "--plain-l2",
        action="store_true",
        help="overlays without subclusters, for tools that cannot read extended L2 entries",
    )
    parser.add_argument("--start", action="store_true", help="start them")
    parser.add_argument(
        "--wait", action="store_true", help="wait until they are at their login prompt (--start)"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=_DEFAULT_TIMEOUT_S,
        metavar="S",
        help="with --wait: no longer than so many seconds (%(default)g)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be made")
    parser.add_argument(
        "--print-command",
        choices=TWIN_FORMS,
        help="make nothing; print what makes the same VMs, or disks, with another tool",
    )
    parser.add_argument(
        "--one-line", action="store_true", help="with --print-command: one line a command"
    )
    parser.add_argument("--json", action="store_true", help="print the VMs as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    add_vm_options(parser)
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Make the VMs, start and wait for them if asked, and print them."""
    from thinvirt.service.clones import CloneRequest, clone, plan

    wishes = wishes_from_args(args)
    request = CloneRequest(
        template=args.template,
        name=args.name,
        count=args.count,
        size=wishes.size,
        extended_l2=not args.plain_l2,
        spec=wishes.spec,
        os=wishes.os,
        firmware_asked=wishes.firmware_asked,
    )
    store = store_of(args)
    if args.print_command:
        from thinvirt.service.twins import twins_of_plan

        planned = plan(store, request)
        _tell_remarks(planned, args)
        for twin in twins_of_plan(store, planned, args.print_command, one_line=args.one_line):
            for need in twin.needs:
                note(f"first: {need}")
            print(twin.text, end="")
        return 0
    if args.dry_run:
        planned = plan(store, request)
        _tell_remarks(planned, args)
        _tell_plan(store, planned, as_json=args.json)
        return 0
    began = time.monotonic()
    with progress(quiet=args.quiet or args.json or not sys.stderr.isatty()) as bars:
        vms = clone(store, request, progress=bars, say=None if args.quiet else note)
    if not args.json:
        _tell(store, vms, time.monotonic() - began)
    started: dict[str, dict[str, Any]] = {}
    trouble = _start(store, vms, args, started) if args.start or args.wait else None
    if args.json:  # whatever became of their start: they are there
        print_json_rows(_facts(store, vm) | started.get(vm.name, {}) for vm in vms)
    if trouble is not None:
        raise trouble
    return 0


def _tell_remarks(planned: "ClonePlan", args: argparse.Namespace) -> None:
    for remark in planned.remarks if not args.quiet else ():
        note(remark)


def _tell(store: "Store", vms: "Sequence[Vm]", took_s: float) -> None:
    batch = vms[0].batch
    count = f"{len(vms)} linked clones" if len(vms) > 1 else "a linked clone"
    names = vms[0].name if len(vms) == 1 else f"{vms[0].name} … {vms[-1].name}"
    print(
        f"{names}: {count} of {vms[0].origin}, {format_size(batch.virtual_size)}"
        f"{' each' if len(vms) > 1 else ''}, in {format_duration(took_s)}"
    )


def _tell_plan(store: "Store", planned: "ClonePlan", *, as_json: bool) -> None:
    """Tell what would be made.

    Raises:
        Conflict: nothing, because names are taken; in JSON it is told which.
    """
    from thinvirt.store.batches import refuse_taken

    if as_json:
        taken = frozenset(store.catalog.taken(planned.names))
        print_json_rows(
            {
                "name": name,
                "template": planned.template.ref,
                "virtual_size": planned.virtual_size,
                "taken": name in taken,
            }
            for name in planned.names
        )
    refuse_taken(store, planned.names)
    if as_json:
        return
    count = len(planned.names)
    shown = ", ".join(planned.names[:_LISTED]) + (", …" if count > _LISTED else "")
    print(
        f"would make {count} linked {'clone' if count == 1 else 'clones'} of "
        f"{planned.template.ref}, {format_size(planned.virtual_size)} each: {shown}"
    )


def _start(
    store: "Store",
    vms: "Sequence[Vm]",
    args: argparse.Namespace,
    facts: dict[str, dict[str, Any]],
) -> ThinvirtError | None:
    """Start the new VMs, wait for them if asked, and return what went wrong first.

    Args:
        store: theirs.
        vms: the VMs.
        args: the command line.
        facts: what became of each is added here, by its name.
    """
    from thinvirt.service.power import start

    quiet = args.quiet or args.json
    try:
        results = start(
            store, vms, on_result=None if quiet else _tell_start, say=None if quiet else note
        )
    except ThinvirtError as error:  # not one of them could be started
        return error
    facts |= {result.name: _running_facts(result.to_facts()) for result in results}
    failed = [result for result in results if result.error is not None]
    for result in failed[1:]:
        if not args.json:
            note(f"{result.name}: {result.error}")
    trouble = failed[0].error if failed else None
    if args.wait:
        from thinvirt.cli.waiting_view import require_reached, wait_and_tell

        running = [vm for vm, result in zip(vms, results, strict=True) if result.done]
        waited = wait_and_tell(store, running, timeout_s=args.timeout, quiet=quiet)
        for outcome in waited:
            facts[outcome.name] |= outcome.to_facts()
        try:
            require_reached(waited, as_json=args.json)
        except Timeout as error:
            return trouble or error
    elif not quiet and not failed:
        which = vms[0].name if len(vms) == 1 else f"'{args.name}-*'"
        note(f"started; thinvirt wait {which} tells when they are at their login")
    return trouble


def _tell_start(result: "PowerResult") -> None:
    if result.error is None:  # told at the end, together
        note(power_view.line(result))


def _running_facts(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        key: facts[key]
        for key in ("accel", "ssh_port", "vnc", "spice", "pid", "error")
        if key in facts
    }


def _facts(store: "Store", vm: "Vm") -> dict[str, Any]:
    identity = store.identity(vm)
    return {
        "name": vm.name,
        "id": vm.id,
        "template": vm.origin,
        "uuid": identity.uuid,
        "mac": identity.mac,
        "lan_address": identity.lan_address,
        "disk": str(store.overlay(vm)),
        "virtual_size": vm.batch.virtual_size,
    }
