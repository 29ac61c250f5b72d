"""``thinvirt migrate --check``: whether a VM may be migrated live, and why not."""

import argparse

from thinvirt.cli.output import print_json
from thinvirt.cli.stores import store_of
from thinvirt.errors import UsageError

ANOTHER_HOST = "another-host"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="VM", help="its name")
    parser.add_argument("--check", action="store_true", help="give the verdict; move nothing")
    parser.add_argument(
        "--to",
        default=ANOTHER_HOST,
        metavar="this-host|another-host|URI",
        help="where to (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the verdict; exit status 1 if the migration is not safe."""
    if not args.check:
        raise UsageError(
            "only the check is there yet", hint=f"thinvirt migrate {args.name} --check"
        )
    from thinvirt.service.migrating import check

    store = store_of(args)
    found = check(store, store.catalog.find_vm(args.name), args.to)
    if args.json:
        print_json(found.to_facts())
        return 0 if found.safe else 1
    print(f"{found.name} to {found.to}: {'safe' if found.safe else 'not safe'}")
    for disk in found.disks:
        print(f"  {disk.disk}: {'safe' if disk.safe else 'refused'}: {disk.reason}")
        for way in disk.ways_out:
            print(f"    way out: {way}")
        if disk.warning:
            print(f"    warning: {disk.warning}")
    for obstacle in found.obstacles:
        print(f"  {obstacle.what}: {'refused' if obstacle.stops else 'note'}: {obstacle.reason}")
        print(f"    way out: {obstacle.way_out}")
    return 0 if found.safe else 1
