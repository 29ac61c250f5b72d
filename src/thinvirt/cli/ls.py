"""``thinvirt ls``: the VMs, their state, and what they occupy."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from thinvirt.cli.output import note, print_json_rows, print_table_rows
from thinvirt.cli.stores import store_of
from thinvirt.errors import UsageError
from thinvirt.units import format_size

_PAGE = 100  # VMs shown on a terminal unless more are asked for

_EPILOG = """examples:
  thinvirt ls 'web-*' --running
  thinvirt ls --limit 0                      all, on a terminal too
  thinvirt ls --json | jq -r '.[].name'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("names", nargs="*", metavar="PATTERN", help="only these, such as web-*")
    parser.add_argument("--template", "-t", metavar="TEMPLATE", help="only clones of this template")
    parser.add_argument("--running", action="store_true", help="only those that run")
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=f"show at most N; 0: all (on a terminal {_PAGE}, else all)",
    )
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Print them as they are read."""
    from thinvirt.service.inventory import Selection, count_vms, list_vms
    from thinvirt.store import NoStore

    if args.limit is not None and args.limit < 0:
        raise UsageError(f"a limit of {args.limit} is not possible", hint="0 for all, or more")
    chosen = Selection(args.names, args.template, args.running, _limit(args))
    try:
        store = store_of(args)
    except NoStore:
        if args.names or args.template:
            raise
        print_json_rows([]) if args.json else note("there are no VMs yet: thinvirt clone --help")
        return 0
    if args.json:
        print_json_rows(list_vms(store, chosen))
        return 0
    shown = 0

    def cells(facts: Mapping[str, Any]) -> tuple[str, ...]:
        nonlocal shown
        shown += 1
        return (
            facts["name"],
            facts["state"],
            facts["template"],
            str(facts["ssh_port"] or "-"),
            "missing" if facts["disk_bytes"] is None else format_size(facts["disk_bytes"]),
            format_size(facts["virtual_size"]),
        )

    print_table_rows(
        ("NAME", "STATE", "TEMPLATE", "SSH PORT", "ON DISK", "SIZE"),
        (cells(facts) for facts in list_vms(store, chosen)),
        right="lllrrr",
    )
    if shown == chosen.limit:
        every = count_vms(store, replace(chosen, limit=None))
        if every > shown:
            note(f"{shown} of {every} shown; more with --limit N, all with --limit 0")
    return 0


def _limit(args: argparse.Namespace) -> int | None:
    if args.limit is not None:
        limit: int = args.limit
        return limit or None
    return _PAGE if sys.stdout.isatty() and not args.json else None
