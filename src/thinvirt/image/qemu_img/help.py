"""``--help``: made from the declarations of the commands."""

from __future__ import annotations

from thinvirt.image.qemu_img.report import Exit, console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from thinvirt.image.qemu_img.getopt import Command, Option

_COLUMN = 34


def show_help() -> NoReturn:
    """Print the whole help and end.

    Raises:
        Exit: always, with status 0.
    """
    from thinvirt.image.block.registry import FOREIGN_FORMATS, driver_names
    from thinvirt.image.qemu_img.table import COMMANDS, OPTIONS, command_module

    program = console.program
    console.line(f"usage: {program} [standard options] command [command options]")
    console.line("Disk images of the formats raw, qcow2 and luks, with qemu-img's command line.\n")
    for option in OPTIONS:
        console.line(_option_line(option))
    console.line("\nCommands:")
    for name in COMMANDS:
        command: Command = command_module(name).COMMAND
        console.line(f"\n  {name} [options] {command.operands}".rstrip())
        console.line(f"    {command.summary}")
        for option in command.options:
            console.line(_option_line(option))
    console.line(_VALUES)
    # Scripts look here for what they need: the protocols and filters count.
    console.line(f"Supported formats: {' '.join(driver_names())}")
    console.line(f"Handed to an installed qemu-img: {' '.join(sorted(FOREIGN_FORMATS))}")
    raise Exit(0)


def _option_line(option: Option) -> str:
    names = ", ".join(option.names)
    shown = f"      {names} {option.value}".rstrip()
    return f"{shown:<{_COLUMN}} {option.help}"


_VALUES = """
Values:
  sizes                bytes, or with a suffix: k M G T P E, each 1024 times the one before
  CACHE                none, writeback, writethrough, directsync, unsafe
  OPTIONS              name=value,name=value…; a comma within a value is doubled; help lists them
  images               a file name, PROTOCOL:…, json:{…}, or options after --image-opts
"""
