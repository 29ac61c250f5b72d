"""``thinvirt show``: all about one VM, and its twins in other tools' words."""

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from thinvirt.cli.output import facts_lines, note, print_json
from thinvirt.cli.stores import store_of
from thinvirt.cli.vm_options import TWIN_FORMS
from thinvirt.units import format_size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="VM", help="its name")
    parser.add_argument(
        "--as",
        dest="form",
        choices=(*TWIN_FORMS, "yaml", "json"),
        help="print what makes the same VM, or the same disk, with another tool; yaml and json: "
        "the file from which thinvirt apply makes it",
    )
    parser.add_argument("--one-line", action="store_true", help="with --as: a command on one line")
    parser.add_argument(
        "--seed", metavar="FILE", help="write the seed disc (NoCloud) that the VM is given"
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the facts or the twin."""
    store = store_of(args)
    vm = store.catalog.find_vm(args.name)
    if args.form in ("yaml", "json"):
        from thinvirt.service.applying import heading_and_spec
        from thinvirt.vm.file.writing import entry_facts, to_json, to_yaml

        entry = entry_facts(*heading_and_spec(vm))
        print((to_yaml if args.form == "yaml" else to_json)([entry]), end="")
        return 0
    if args.form:
        from thinvirt.service.twins import twin_of

        twin = twin_of(store, vm, args.form, one_line=args.one_line)
        for need in twin.needs:
            note(f"first: {need}")
        print(twin.text, end="")
        return 0
    if args.seed:
        from thinvirt.service.twins import write_seed

        write_seed(store, vm, Path(args.seed))
        return 0
    from thinvirt.service.inventory import vm_facts

    facts = vm_facts(store, vm)
    if args.json:
        print_json(facts)
    else:
        for line in facts_lines(_for_people(facts)):
            print(line)
    return 0


def _for_people(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the same facts with sizes and times in words."""
    told = {name.replace("_", " "): value for name, value in facts.items() if name != "spec"}
    for name in ("virtual size", "disk bytes"):
        size = told[name]
        told[name] = "missing" if size is None else f"{format_size(size)} ({size} bytes)"
    for name in ("created", "started at"):
        if name in told:
            told[name] = datetime.fromtimestamp(told[name]).isoformat(" ", "seconds")
    told |= {name.replace("_", " "): _text(_masked(value)) for name, value in facts["spec"].items()}
    return {name: "-" if value in (None, "") else value for name, value in told.items()}


def _masked(value: Any) -> Any:
    """Return a part of the specification without a password: it stands on somebody's screen."""
    if isinstance(value, dict) and "password" in value:
        return value | {"password": "(with a password)"}
    return value


def _text(value: object) -> str:
    if isinstance(value, str) and "\n" in value:
        return f"{len(value)} characters: {value.splitlines()[0]} …"
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, dict):
        return " ".join(str(item) for item in value.values())
    return str(value)
