"""``thinvirt console``: attach to a VM's serial console, or print what it recorded."""

import argparse
import sys
from typing import TYPE_CHECKING

from thinvirt.cli.output import note
from thinvirt.cli.stores import store_of
from thinvirt.cli.values import seconds
from thinvirt.errors import NotFound, UsageError

if TYPE_CHECKING:
    from thinvirt.run.folder import VmFolder

_ESCAPE, _LINGER_S = "^]", 1.0  # run.console's, which is loaded only to attach
_EPILOG = """
On a terminal, the escape character (Ctrl-]) detaches; the VM runs on. Without a terminal, standard
input goes to the guest and what it says to standard output, for scripts.

exit status: 0 detached or the VM ended, 3 no such VM or no record, 4 not running,
  5 another console is attached (--force takes it over)
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="NAME", help="the VM")
    parser.add_argument(
        "--escape",
        default=_ESCAPE,
        metavar="CHAR",
        help=f"what detaches: a character, or ^ and one ({_ESCAPE})",
    )
    parser.add_argument(
        "--force", action="store_true", help="detach whoever is attached to this console"
    )
    parser.add_argument(
        "--linger",
        type=seconds,
        default=_LINGER_S,
        metavar="S",
        help="at the end of piped input, leave after so many seconds of silence (%(default)g)",
    )
    parser.add_argument("--log", action="store_true", help="print what the console has recorded")
    parser.add_argument(
        "--follow", action="store_true", help="with --log: go on until the VM has ended"
    )
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Attach or print, and return the exit status."""
    from thinvirt.run.console import parse_escape
    from thinvirt.service.launching import folder_of

    if args.follow and not args.log:
        raise UsageError("--follow goes with --log", hint="thinvirt console --log --follow NAME")
    escape = parse_escape(args.escape)
    store = store_of(args)
    vm = store.catalog.find_vm(args.name)
    folder = folder_of(store, vm)
    store.close()
    if args.log:
        return _print_log(folder, vm.name, follow=args.follow)
    return _attach(folder, vm.name, escape, args)


def _attach(folder: "VmFolder", name: str, escape: bytes, args: argparse.Namespace) -> int:
    from thinvirt.run import console, liveness

    if not liveness.is_alive(folder.run):
        raise console.not_running(name)
    on_terminal = sys.stdin.isatty()
    with console.claim(folder, name, force=args.force):
        if on_terminal:
            note(f"connected to '{name}'; escape character is {args.escape}")
            sys.stdout.buffer.write(console.recent(folder))
            sys.stdout.flush()
        end = console.attach(folder, name, escape=escape, linger_s=args.linger)
    if on_terminal:
        print()
    if end == "ended":
        note(f"'{name}' has ended")
    elif end == "signal":
        note(f"detached from '{name}' by a signal; the VM runs on")
    elif on_terminal:
        note(f"detached from '{name}'; it runs on")
    return 0


def _print_log(folder: "VmFolder", name: str, *, follow: bool) -> int:
    from thinvirt.run.console import print_log

    def write(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()

    try:
        print_log(folder, write, follow=follow)
    except FileNotFoundError:
        raise NotFound(
            f"nothing is recorded of '{name}': it was never started", hint=f"thinvirt start {name}"
        ) from None
    return 0
