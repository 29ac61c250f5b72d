"""``thinvirt template show``: all about one template."""

import argparse
from datetime import datetime

from thinvirt.cli.output import facts_lines, print_json
from thinvirt.cli.stores import store_of
from thinvirt.units import format_size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("template", metavar="TEMPLATE", help="NAME, NAME@VERSION, or a digest")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    from thinvirt.service.templates import template_facts

    store = store_of(args)
    template = store.catalog.find_template(args.template)
    facts = template_facts(store, template, store.catalog.clone_counts().get(template.id, 0))
    if args.json:
        print_json(facts)
        return 0
    told = {name.replace("_", " "): value for name, value in facts.items() if name != "guest"}
    for name in ("virtual size", "file size", "allocated bytes"):
        size = told[name]
        told[name] = "missing" if size is None else f"{format_size(size)} ({size} bytes)"
    told["created"] = datetime.fromtimestamp(facts["created"]).isoformat(" ", "seconds")
    told |= {f"guest {name.replace('_', ' ')}": value for name, value in facts["guest"].items()}
    for line in facts_lines(told):
        print(line)
    return 0
