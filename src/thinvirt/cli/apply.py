"""``thinvirt apply``: VMs as YAML or JSON files describe them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from thinvirt.cli.output import note, print_json_rows
from thinvirt.cli.stores import store_of
from thinvirt.cli.vm_options import TWIN_FORMS
from thinvirt.errors import UsageError

if TYPE_CHECKING:
    from thinvirt.service.applying import ApplyPlan
    from thinvirt.store import Store

_EPILOG = """examples:
  thinvirt apply lab.yaml                 make what is missing
  thinvirt apply lab.yaml --dry-run       only say what would be made, and what differs
  thinvirt show NAME --as yaml            a VM as such a file describes it
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="YAML, or JSON (*.json)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be made")
    parser.add_argument("--print-command", choices=TWIN_FORMS, help="only print an equivalent")
    parser.add_argument("--start", action="store_true", help="start the VMs that are made")
    parser.add_argument("--json", action="store_true", help="print what became of each as JSON")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Make what is missing and print what became of each VM."""
    from thinvirt.service.applying import apply, plan, read_files
    from thinvirt.vm.file.document import InvalidFile

    try:
        entries = read_files([Path(name) for name in args.files])
        make = not (args.dry_run or args.print_command)
        store = store_of(args, create=make)
        planned = plan(store, entries)
    except InvalidFile as error:
        if args.json or len(error.findings) == 1:
            raise
        for finding in error.findings:
            note(str(finding))
        raise UsageError(f"{len(error.findings)} problems; nothing was changed") from None
    if args.print_command:
        _print_twins(store, planned, args.print_command)
        return 0
    words = {"missing": "would be made"}
    if not args.dry_run:
        made = apply(store, planned)
        words = {"missing": "made"}
        if args.start and made:
            from thinvirt.service.power import exit_status, start

            results = start(store, made, say=None if args.json else note)
            _tell(planned, words, as_json=args.json)
            for result in results:
                if result.error is not None:
                    note(f"{result.name}: {result.error}")
            return exit_status(results)
    _tell(planned, words, as_json=args.json)
    return 0


def _tell(planned: "ApplyPlan", words: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json_rows(
            {
                "name": each.name,
                "state": words.get(each.state, each.state),
                "differences": [
                    {"key": d.key, "now": d.now, "written": d.written} for d in each.differences
                ],
            }
            for each in planned.found
        )
        return
    for each in planned.found:
        print(f"{each.name}: {words.get(each.state, each.state)}")
        for difference in each.differences:
            print(f"  {difference}")


def _print_twins(store: "Store", planned: "ApplyPlan", form: str) -> None:
    from thinvirt.service.twins import twin_of_install, twins_of_plan

    twins = [
        twin
        for each in planned.clones
        for twin in twins_of_plan(store, each, form)  # type: ignore[arg-type]
    ]
    twins += [twin_of_install(each, form) for each in planned.own]  # type: ignore[arg-type]
    for twin in twins:
        for need in twin.needs:
            note(f"first: {need}")
        print(twin.text, end="")
