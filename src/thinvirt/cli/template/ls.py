"""``thinvirt template ls``: the templates."""

import argparse
from datetime import datetime

from thinvirt.cli.output import note, print_json_rows, table
from thinvirt.cli.stores import store_of
from thinvirt.units import format_size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def run(args: argparse.Namespace) -> int:
    """Print them, newest version of a name first."""
    from thinvirt.service.templates import template_facts
    from thinvirt.store import NoStore

    try:
        store = store_of(args)
        counts = store.catalog.clone_counts()
        rows = [template_facts(store, t, counts.get(t.id, 0)) for t in store.catalog.templates()]
    except NoStore:
        rows = []
    if args.json:
        print_json_rows(rows)
        return 0
    if not rows:
        note("there are no templates yet: thinvirt template build tiny, pull NAME or import FILE")
        return 0
    cells = (
        (
            row["ref"],
            row["format"],
            format_size(row["virtual_size"]),
            "missing" if row["allocated_bytes"] is None else format_size(row["allocated_bytes"]),
            str(row["clones"]),
            datetime.fromtimestamp(row["created"]).strftime("%Y-%m-%d %H:%M"),
        )
        for row in rows
    )
    header = ("NAME", "FORMAT", "SIZE", "ON DISK", "CLONES", "CREATED")
    for line in table(header, cells, right="llrrrl"):
        print(line)
    return 0
