"""The command ``thin-img``: a drop-in for qemu-img 7.2, by whatever name it is called.

Only the module of the command that is run is imported: this program is started by the hundred.
"""

from __future__ import annotations

import sys

from thinvirt.image.block.errors import BlockError, ForeignDriver, VerifyFailed
from thinvirt.image.qemu_img.commandline import complain
from thinvirt.image.qemu_img.getopt import Getopt, GetoptError
from thinvirt.image.qemu_img.report import Exit, OutputFailed, console, program_name
from thinvirt.image.qemu_img.table import COMMANDS, OPTIONS, command_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

QEMU_VERSION = "7.2.22"  # whose behaviour this is


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, the program's name first, and return the exit status."""
    _keep_standard_descriptors()
    words = list(sys.argv if argv is None else argv)
    console.program = program_name(words[0])
    console.has_failed = False
    try:
        status = _run_to_end(words)
    except ForeignDriver as error:
        from thinvirt.image.qemu_img.handover import hand_over

        console.drop()
        status = hand_over(words[1:], error)
    except BlockError as error:
        console.block_error(error)
        status = 1
    except VerifyFailed as error:
        console.message(f"{error.message}\n")
        status = 1
    except KeyboardInterrupt:
        console.message("\n")
        status = 130
    except RecursionError:
        console.error("the options are nested too deeply")
        status = 1
    except MemoryError:
        console.error("out of memory")
        status = 1
    except OutputFailed as error:
        console.drop()
        console.error(f"Could not write the output: {error.reason}")
        status = 1
    return status


def _keep_standard_descriptors() -> None:
    """Open what was closed of the standard descriptors: an image must not get their output."""
    import os

    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # writing to it fails as to a closed one


def program() -> None:
    """Run as the program and end; nothing is left to be torn down at leisure."""
    import os

    status = main()
    os._exit(status)


def _run_to_end(words: list[str]) -> int:
    try:
        status = _run(words)
    except Exit as end:
        status = end.status
    console.flush()
    return status


def _run(words: list[str]) -> int:
    if len(words) < 2:
        console.usage("Not enough arguments")
    scan = Getopt(words, OPTIONS, permute=False)
    try:
        for key, _ in scan:
            if key == "help":
                _help()
            if key == "version":
                _version()
    except GetoptError as error:
        complain(error)
    if not scan.operands:
        return 0
    name = scan.operands[0]
    if name not in COMMANDS:
        console.usage(f"Command not found: {name}")
    status: int = command_module(name).run(scan.operands)
    return status


def _help() -> None:
    from thinvirt.image.qemu_img.help import show_help

    show_help()


def _version() -> None:
    from thinvirt import __version__

    console.line(f"qemu-img version {QEMU_VERSION} (thinvirt {__version__})")
    console.line(
        "Copyright (c) the thinvirt authors, Apache License 2.0; this is not QEMU's program"
    )
    raise Exit(0)
