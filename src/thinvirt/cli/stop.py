"""``thinvirt stop``: power VMs off, by ACPI and then by force."""

import argparse

from thinvirt.cli.values import seconds

_EPILOG = """
The guest is asked by its power button, again and again while it boots. If it is still there after
the timeout QEMU is told to quit, which loses nothing that the guest had written out; --now does so
at once. --force kills QEMU: a power cut. A VM that does not run is left as it is.

exit status: 0 all are off, 3 no such VM, 5 another command is at one of them
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="VMs, by name or pattern: 'web-*'")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="S",
        help="how long the guest has to power off by itself (%(default)g)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--now", action="store_true", help="do not ask the guest")
    how.add_argument("--force", action="store_true", help="kill QEMU at once")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Stop, and return the exit status."""
    from thinvirt.cli import power_view
    from thinvirt.cli.stores import store_of
    from thinvirt.service import power
    from thinvirt.service.inventory import worth_acting_on

    store = store_of(args)
    vms, passed_over = worth_acting_on(store, args.names, running=True)
    results = power.stop(
        store,
        vms,
        timeout_s=args.timeout,
        force="kill" if args.force else "quit" if args.now else "",
        on_result=power_view.teller(as_json=args.json),
    )
    if passed_over and not args.json:
        print(f"{len(passed_over)} more did not run")
    return power_view.finish(results, as_json=args.json)
