"""``thinvirt screenshot``: save a VM's screen as PNG."""

import argparse
import sys
from pathlib import Path

from thinvirt.errors import ThinvirtError

_EPILOG = """
An earlier file of that name is replaced. The screen is there with --vnc off too.

exit status: 0 saved, 3 no such VM, 4 it does not run
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="NAME", help="the VM")
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="where to (NAME.png); - for standard output"
    )
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Save the screen, say where, and return the exit status."""
    from thinvirt.cli.stores import store_of
    from thinvirt.run.screenshot import screenshot, write_file
    from thinvirt.service.launching import folder_of, require_running

    store = store_of(args)
    vm = store.catalog.find_vm(args.name)
    require_running(store, vm)
    image = screenshot(folder_of(store, vm))
    if args.file == "-":
        sys.stdout.buffer.write(image)
        return 0
    path = Path(args.file or f"{vm.name}.png")
    try:
        write_file(path, image)
    except OSError as error:
        raise ThinvirtError(f"cannot write '{path}': {error.strerror}") from error
    print(path)
    return 0
