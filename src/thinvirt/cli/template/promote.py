"""``thinvirt template promote``: make a template of a stopped VM's disk."""

import argparse

from thinvirt.cli.output import print_json, progress
from thinvirt.cli.stores import store_of
from thinvirt.units import format_size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("vm", metavar="VM", help="a VM that does not run; it stays as it is")
    parser.add_argument("--name", metavar="NAME", help="the template's name (the VM's)")
    parser.add_argument("--json", action="store_true", help="print the template as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Promote it and print what it became."""
    from thinvirt.service.templates import promote, template_facts

    store = store_of(args)
    with progress(quiet=args.quiet or args.json) as bars:
        template = promote(store, args.vm, name=args.name, progress=bars)
    if args.json:
        print_json(template_facts(store, template, 0))
    else:
        print(f"{template.ref}: {template.format}, {format_size(template.virtual_size)}")
    return 0
