"""``thinvirt completion``: a completion script for bash, zsh or tcsh, made by shtab."""

import argparse

from thinvirt.errors import ProgramMissing

SHELLS = ("bash", "zsh", "tcsh")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell to complete for")


def run(args: argparse.Namespace) -> int:
    """Print the script; ``thinvirt completion bash > …/completions/thinvirt`` installs it."""
    try:
        import shtab
    except ImportError as error:
        raise ProgramMissing(
            "completion scripts are made by the Python package shtab, which is not installed",
            hint="pip install 'thinvirt[completion]'",
        ) from error
    from thinvirt.cli.parsers import whole_parser

    print(shtab.complete(whole_parser(), args.shell))
    return 0
