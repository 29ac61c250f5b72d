"""``thinvirt start``: start VMs, and wait for them if asked."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thinvirt.cli.values import seconds
from thinvirt.errors import UsageError

if TYPE_CHECKING:
    from thinvirt.service.waiting import WaitResult

_DEFAULT_TIMEOUT_S = 600.0
_EPILOG = """
The VMs outlive this command. Never more boot at once than the host has cores (--parallel); the
command returns when the last one runs, or with --wait when all answer. A VM that QEMU halted
because there was no space left for its disk goes on where it stood, if there is now.

exit status: 0 all started, 3 no such VM, 4 one runs already or a port is taken, 5 another command
  is at one of them, 6 a template's file was changed, 7 with --wait: some did not come,
  69 QEMU is not installed, 75 still no space; with several VMs, the status of the first that failed
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="VMs, by name or pattern: 'web-*'")
    parser.add_argument(
        "--wait",
        nargs="?",
        const="login",
        choices=("login", "ssh", "agent"),
        help="wait until they answer: at their login prompt (default), SSH or agent",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=_DEFAULT_TIMEOUT_S,
        metavar="S",
        help="with --wait: no longer than so many seconds (%(default)g)",
    )
    parser.add_argument(
        "--parallel", type=int, metavar="N", help="how many may boot at once (the host's cores)"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON, at the end")
    parser.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Start, perhaps wait, and return the exit status."""
    from thinvirt.cli import power_view
    from thinvirt.cli.output import note
    from thinvirt.cli.stores import store_of
    from thinvirt.service import power
    from thinvirt.service.inventory import worth_acting_on

    if args.parallel is not None and args.parallel < 1:
        raise UsageError(f"--parallel {args.parallel} is not possible", hint="1 or more")
    store = store_of(args)
    vms, running = worth_acting_on(store, args.names, running=False)
    silent = args.json or args.quiet
    results = power.start(
        store,
        vms,
        parallel=args.parallel,
        on_result=power_view.teller(as_json=args.json),
        say=None if silent else note,
    )
    if running and not args.json:
        print(f"{len(running)} more ran already")
    waited: Sequence[WaitResult] = ()
    if args.wait:
        from thinvirt.cli.waiting_view import wait_and_tell

        started = [vm for vm, result in zip(vms, results, strict=True) if result.done]
        started += running
        waited = wait_and_tell(
            store, started, until=args.wait, timeout_s=args.timeout, quiet=silent
        )
    status = power_view.finish(results, as_json=args.json, waited=waited)
    if args.wait:
        from thinvirt.cli.waiting_view import require_reached

        require_reached(waited, as_json=args.json)
    return status
