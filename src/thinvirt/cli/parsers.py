"""All verbs in one parser: for completion and for the reference pages, never for a command."""

import argparse
from importlib import import_module

from thinvirt.cli.main import PROGRAM, VerbModule
from thinvirt.cli.verbs import VERBS


def whole_parser() -> argparse.ArgumentParser:
    """Return one parser with a subparser for each verb, groups nested."""
    top = argparse.ArgumentParser(prog=PROGRAM)
    verbs = top.add_subparsers()
    groups: dict[str, argparse._SubParsersAction[argparse.ArgumentParser]] = {}
    for verb in VERBS.values():
        *group, name = verb.name.split()
        target = verbs
        if group:
            if group[0] not in groups:
                groups[group[0]] = verbs.add_parser(group[0]).add_subparsers()
            target = groups[group[0]]
        parser = target.add_parser(
            name,
            help=verb.summary,
            description=verb.summary[0].upper() + verb.summary[1:] + ".",
        )
        parser.add_argument("--store", metavar="DIR", help="the store to use")
        module: VerbModule = import_module(verb.module)
        module.configure(parser)
    return top
