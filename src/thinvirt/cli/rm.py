"""``thinvirt rm``: remove VMs and their disks."""

import argparse
import sys

from thinvirt.cli.output import print_json_rows, progress
from thinvirt.cli.stores import store_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("names", nargs="+", metavar="VM", help="a name, or a pattern such as web-*")
    parser.add_argument(
        "--force", "-f", action="store_true", help="cut the power of those that run"
    )
    parser.add_argument("--json", action="store_true", help="print what was removed as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Remove them: all, or none."""
    from thinvirt.service.inventory import remove_vms

    store = store_of(args)
    with progress(quiet=args.quiet or args.json or not sys.stderr.isatty()) as bars:
        removed = remove_vms(store, args.names, force=args.force, progress=bars)
    if args.json:
        print_json_rows({"name": name, "removed": True} for name in removed)
    else:
        print(f"removed {removed[0] if len(removed) == 1 else f'{len(removed)} VMs'}")
    return 0
