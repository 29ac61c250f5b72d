"""What the commands share in reading their command lines."""

from __future__ import annotations

from thinvirt.image.block.options import split_pairs
from thinvirt.image.block.schema import size_of
from thinvirt.image.qemu_img.getopt import Getopt, GetoptError, MissingArgument
from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from thinvirt.image.qemu_img.getopt import Command
    from thinvirt.image.qemu_img.opening import Images

MAX_SIZE = (1 << 63) - 1
MAX_INT = (1 << 31) - 1


class Words:
    """The options and operands of a command, in the order given.

    Iterate over (key, value); ``--help`` and what cannot be read end the command on the way.
    """

    def __init__(self, command: Command, words: list[str]) -> None:
        self._scan = Getopt(words, command.options)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        try:
            for key, value in self._scan:
                if key == "help":
                    from thinvirt.image.qemu_img.help import show_help

                    show_help()
                yield key, value
        except GetoptError as error:
            complain(error)

    def given(self, images: Images, *, status: int = 1) -> dict[str, str]:
        """Return what each option was given, the last one where there are several.

        ``--object`` makes objects at once, and several ``-o`` are joined.

        Args:
            images: where objects are made.
            status: of the command if one cannot be made.

        Raises:
            Exit: an option cannot be read, or an object not made.
        """
        given: dict[str, str] = {}
        for key, value in self:
            if key == "object":
                images.add_object(value, status=status)
            elif key == "options":
                given[key] = add_options(given.get(key), value)
                continue
            given[key] = value
        return given

    @property
    def operands(self) -> list[str]:
        """What is no option; complete when the iteration has ended."""
        return self._scan.operands

    def one_operand(self, complaint: str = "Expecting one image file name") -> str:
        """Return the only operand.

        Raises:
            Exit: there is none, or more than one.
        """
        if len(self.operands) != 1:
            console.usage(complaint)
        return self.operands[0]


def number_of(name: str, text: str, lowest: int = 0, highest: int = MAX_SIZE) -> int:
    """Return a size given on the command line, in bytes.

    Raises:
        Exit: it is none, or out of range.
    """
    warn_of_hex(text)
    value = size_of(text)
    if value is None:
        console.error(f"Invalid {name} specified. You may use k, M, G, T, P or E suffixes for")
        console.fail("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.")
    if not lowest <= value <= highest:
        console.fail(f"Invalid {name} specified. Must be between {lowest} and {highest}.")
    return value


def warn_of_hex(text: str) -> None:
    """Warn of a size with a suffix behind hexadecimal digits, as QEMU does."""
    digits = text.lstrip(" \t\n\v\f\r").removeprefix("+")
    if digits[:2] in ("0x", "0X"):
        rest = digits[2:].lstrip("0123456789abcdefABCDEF")
        if rest[:1] in tuple("kKmMgGtTpP"):
            console.warning(f"Using a multiplier suffix on hex numbers is deprecated: {text}")


def is_json(output: str | None) -> bool:
    """Return whether ``--output`` asks for JSON.

    Raises:
        Exit: it asks for something unknown.
    """
    if output in (None, "human"):
        return False
    if output != "json":
        console.fail("--output must be used with human or json as argument.")
    return True


def add_options(so_far: str | None, text: str) -> str:
    """Return ``-o`` texts joined.

    Raises:
        Exit: `text` cannot be joined with others: empty, or its commas are not doubled.
    """
    commas = len(text) - len(text.rstrip(","))
    if not text or text.startswith(",") or commas % 2:
        console.fail(f"Invalid option list: {text}")
    return text if so_far is None else f"{so_far},{text}"


def asks_help(options: str | None) -> bool:
    """Return whether ``-o`` asks for the list of options."""
    if options is None:
        return False
    return any(
        is_flag and name in ("help", "?") and value == "on"
        for name, value, is_flag in split_pairs(options)
    )


def complain(error: GetoptError) -> NoReturn:
    """Say what is wrong with an option and end.

    Raises:
        Exit: always.
    """
    if isinstance(error, MissingArgument):
        console.usage(f"missing argument for option '{error.word}'")
    console.usage(f"unrecognized option '{error.word}'")
