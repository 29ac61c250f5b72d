"""``thinvirt template verify``: read templates whole and compare them with the catalogue."""

import argparse

from thinvirt.cli.output import print_json_rows, progress
from thinvirt.cli.stores import store_of
from thinvirt.errors import BaseChanged


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("templates", nargs="*", metavar="TEMPLATE", help="only these (all)")
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Verify them; exit status 6 if one is not what was published."""
    from thinvirt.service.templates import verify

    store = store_of(args)
    with progress(quiet=args.quiet or args.json) as bars:
        verdicts = list(verify(store, args.templates, progress=bars))
    if args.json:
        print_json_rows(
            {"name": v.template.ref, "ok": not v.problem, "problem": v.problem} for v in verdicts
        )
    else:
        for verdict in verdicts:
            print(f"{verdict.template.ref}: {verdict.problem or 'ok'}")
    return BaseChanged.exit_status if any(v.problem for v in verdicts) else 0
