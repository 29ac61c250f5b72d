"""``thinvirt wait``: until VMs answer at their login, their SSH server or their agent."""

import argparse

from thinvirt.cli.output import print_json
from thinvirt.cli.stores import store_of
from thinvirt.cli.values import seconds

_DEFAULT_TIMEOUT_S = 600.0
_EPILOG = """
Times are counted from a VM's start. A VM that is there already is done at once; one that is not
running, or ends meanwhile, is told of with the reason.

exit status: 0 all came, 3 no such VM, 7 some did not come (stderr names stage and last lines)
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="VMs, by name or pattern: 'web-*'")
    until = parser.add_mutually_exclusive_group()
    until.add_argument(
        "--login",
        dest="until",
        action="store_const",
        const="login",
        default="login",
        help="until the login prompt stands on the serial console (default)",
    )
    until.add_argument(
        "--ssh",
        dest="until",
        action="store_const",
        const="ssh",
        help="until the SSH server sends its banner",
    )
    until.add_argument(
        "--agent",
        dest="until",
        action="store_const",
        const="agent",
        help="until the guest agent answers",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=_DEFAULT_TIMEOUT_S,
        metavar="S",
        help="wait no longer than so many seconds (%(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Wait, print the results, and return the exit status."""
    from thinvirt.cli.waiting_view import require_reached, wait_and_tell

    store = store_of(args)
    vms = store.catalog.find_vms(args.names)
    results = wait_and_tell(
        store, vms, until=args.until, timeout_s=args.timeout, quiet=args.quiet or args.json
    )
    if args.json:
        print_json([result.to_facts() for result in results])
    require_reached(results, as_json=args.json)
    return 0
