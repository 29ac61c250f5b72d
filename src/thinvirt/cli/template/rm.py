"""``thinvirt template rm``: remove templates that have no clones."""

import argparse

from thinvirt.cli.output import print_json_rows
from thinvirt.cli.stores import store_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "templates",
        nargs="+",
        metavar="TEMPLATE",
        help="NAME@VERSION, or NAME for its newest version",
    )
    parser.add_argument("--json", action="store_true", help="print what was removed as JSON")


def run(args: argparse.Namespace) -> int:
    """Remove them; refused for one with clones, before anything is removed."""
    from thinvirt.service.templates import remove_templates

    removed = remove_templates(store_of(args), args.templates)
    if args.json:
        print_json_rows({"name": template.ref, "removed": True} for template in removed)
    else:
        for template in removed:
            print(f"removed {template.ref}")
    return 0
