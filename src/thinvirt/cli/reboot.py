"""``thinvirt reboot``: restart VMs."""

import argparse

from thinvirt.cli.values import seconds

_EPILOG = """
The guest's agent is asked, or Ctrl-Alt-Delete is pressed where there is none. A guest that has not
restarted after the timeout is reset; --hard does so at once, like the button on a machine's front.

exit status: 0 all restarted, 3 no such VM, 4 one does not run, 5 another command is at one of them
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="VMs, by name or pattern: 'web-*'")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="S",
        help="how long the guest has to restart by itself (%(default)g)",
    )
    parser.add_argument("--hard", action="store_true", help="reset at once")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Restart, and return the exit status."""
    from thinvirt.cli import power_view
    from thinvirt.cli.stores import store_of
    from thinvirt.service import power

    store = store_of(args)
    results = power.reboot(
        store,
        store.catalog.find_vms(args.names),
        timeout_s=args.timeout,
        hard=args.hard,
        on_result=power_view.teller(as_json=args.json),
    )
    return power_view.finish(results, as_json=args.json)
