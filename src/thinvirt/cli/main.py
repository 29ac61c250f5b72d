"""The ``thinvirt`` command: finds the verb, loads only its module, turns errors into words."""

import argparse
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import NoReturn, Protocol, TextIO

from thinvirt import __version__
from thinvirt.cli.verbs import VERBS, Verb
from thinvirt.errors import INTERRUPTED_STATUS, ProgramMissing, ThinvirtError, UsageError

PROGRAM = "thinvirt"
_EXTRAS = {
    "pycdlib": "vm",
    "rich": "vm",
    "urllib3": "vm",
    "yaml": "vm",
}  # package → extra of pyproject.toml


class VerbModule(Protocol):
    """What the module of a verb offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it and return the exit status."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are `UsageError`s, told like every other error.

    Attributes:
        complaint: the error raised; a verb with exit statuses of its own may set another.
    """

    complaint: type[ThinvirtError] = UsageError

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print; for an option that is not known, with one like it."""
        raise self.complaint(message, hint=self._near(message) or f"{self.prog} --help")

    def _near(self, message: str) -> str:
        unknown = message.removeprefix("unrecognized arguments: ").split("=")[0].split()
        if not message.startswith("unrecognized") or not unknown[0].startswith("--"):
            return ""
        from difflib import get_close_matches

        near = get_close_matches(unknown[0], list(self._option_string_actions), n=1)
        return f"did you mean {near[0]}?" if near else ""


def build_parser(words: list[str]) -> argparse.ArgumentParser:
    """Return the parser of the verb that `words` begins with, or the parser of all verbs."""
    for length in (2, 1):
        verb = VERBS.get(" ".join(words[:length])) if len(words) >= length else None
        if verb is not None and verb.module:
            return verb_parser(verb)
    return overview_parser(words[0] if words and f"{words[0]} " in _groups() else "")


def verb_parser(verb: Verb) -> argparse.ArgumentParser:
    """Return the parser of one verb; loads that verb's module and no other."""
    module: VerbModule = import_module(verb.module)
    parser = Parser(
        prog=f"{PROGRAM} {verb.name}",
        description=verb.summary[0].upper() + verb.summary[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--store", metavar="DIR", help="the store to use instead of $THINVIRT_HOME or the default"
    )
    module.configure(parser)
    parser.set_defaults(run=module.run)
    return parser


def overview_parser(group: str = "") -> argparse.ArgumentParser:
    """Return a parser that only knows the names and summaries of the verbs (of one group)."""
    shown = [v for v in VERBS.values() if v.name.startswith(f"{group} " if group else "")]
    width = max(len(v.name) for v in shown)
    verbs = "\n".join(f"  {v.name:<{width}}  {v.summary}" for v in shown)
    parser = Parser(
        prog=f"{PROGRAM} {group}".strip(),
        usage=f"{PROGRAM} {group + ' ' if group else ''}VERB …  |  {PROGRAM} VERB --help",
        description=f"One read-only template, a thousand copy-on-write VMs.\n\nverbs:\n{verbs}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("verb", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _groups() -> set[str]:
    return {f"{name.split()[0]} " for name in VERBS if " " in name}


def _unknown_verb(words: list[str]) -> UsageError:
    from difflib import get_close_matches

    group = words[0] if words and f"{words[0]} " in _groups() else ""
    typed = " ".join(words[:2]) if group else words[0]
    near = get_close_matches(typed, list(VERBS), n=3, cutoff=0.5)
    help_of = f"{PROGRAM} {group}".strip()
    hint = f"did you mean {' or '.join(near)}?" if near else f"{help_of} --help"
    return UsageError(f"there is no verb '{typed}'", hint=hint)


def dispatch(argv: list[str]) -> int:
    """Run one command line and return its exit status; errors pass through."""
    if argv[:1] == ["image"]:  # a program of its own, with another way to read a command line
        from thinvirt.cli.image import run_words

        return run_words(argv[1:])
    words: list[str] = []
    for word in argv[:2]:
        if word.startswith("-"):
            break
        words.append(word)
    parser = build_parser(words)
    if isinstance(parser, Parser) and parser.get_default("run") is None:
        group_only = len(words) == 1 and f"{words[0]} " in _groups()
        if words and not group_only:
            raise _unknown_verb(words)
        args = parser.parse_args(argv[len(words) :])
        if args.verb:
            raise UsageError(f"unexpected '{args.verb}'", hint=f"{PROGRAM} --help")
        parser.print_help()
        return 0
    depth = len(parser.prog.split()) - 1
    args = parser.parse_args(argv[depth:])
    status: int = args.run(args)
    return status


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status; every planned error is told on stderr."""
    words = sys.argv[1:] if argv is None else argv
    _prepare_streams()
    try:
        try:
            status = dispatch(words)
        except SystemExit as ended:  # argparse has printed its help, or a version
            status = ended.code if isinstance(ended.code, int) else 0
        sys.stdout.flush()
    except ThinvirtError as error:
        return _fail(error, words)
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED_STATUS
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRAS:
            raise
        return _fail(_without_extra(error.name.partition(".")[0]), words)
    except BrokenPipeError:
        # The reader went away (`thinvirt ls | head`): nothing to tell, and nobody to tell it to.
        _drop(sys.stdout)
        sys.stderr.close()
        return 0
    except OSError as error:
        # The store and the image layer explain theirs, so this is our output or the surroundings.
        _drop(sys.stdout)
        return _fail(_explained(error), words)
    return status


def _without_extra(package: str) -> ThinvirtError:
    """Return the error of a command that needs more than was installed."""
    return ProgramMissing(
        f"this command needs the Python package {package}, which is not installed",
        hint=f"pip install 'thinvirt[{_EXTRAS[package]}]'",
    )


def _prepare_streams() -> None:
    """Make the standard streams fit to print on, however the command was started.

    A closed one would hand its number to the next file opened, which a child would then write to;
    and what a stream's encoding does not have is written as an escape.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _drop(stream: TextIO) -> None:
    """Forget what could not be printed, or the interpreter complains of it again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(error: ThinvirtError, words: list[str]) -> int:
    """Tell an error and return its exit status."""
    from thinvirt.cli.output import tell_error

    try:
        tell_error(error, as_json="--json" in words)
        sys.stderr.flush()
    except OSError:  # a full log still gets the right status
        _drop(sys.stderr)
    return error.exit_status


def _explained(error: OSError) -> ThinvirtError:
    from pathlib import Path

    try:
        Path.cwd()
    except FileNotFoundError:
        return ThinvirtError("the current directory has been removed", hint="cd")
    if error.filename:
        return ThinvirtError(f"{os.fsdecode(error.filename)}: {error.strerror}")
    return ThinvirtError(f"cannot write the output: {error.strerror or error}")


if __name__ == "__main__":
    sys.exit(main())
