"""GNU's getopt_long: bundled short options, abbreviated long ones, options after operands.

Options are declared as data, once per command; parsing, ``--help`` and the compatibility table of
the reference are made from that. The library's own `getopt` and `argparse` behave differently at
the edges (order, abbreviations, texts), and the latter takes longer to import than ``info`` to run.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final

YES, DIFFERS, ACCEPTED = "yes", "differs", "accepted"


class Option:
    """One option of a command.

    Attributes:
        key: what the command knows it by.
        names: as typed: ``-f``, ``--format``, or both.
        value: the name of its value in the help, "" if it takes none.
        help: what it does.
        support: `YES`, `DIFFERS` (the help says how) or `ACCEPTED` (and without effect).
    """

    __slots__ = ("help", "key", "names", "support", "value")

    def __init__(
        self,
        key: str,
        names: str,
        value: str = "",
        help: str = "",  # noqa: A002
        support: str = YES,
    ) -> None:
        self.key = key
        self.names = tuple(names.split())
        self.value = value
        self.help = help
        self.support = support


class Command:
    """A command: its options, and the operands as the help shows them."""

    __slots__ = ("name", "operands", "options", "summary")

    def __init__(self, name: str, summary: str, operands: str, options: Sequence[Option]) -> None:
        self.name = name
        self.summary = summary
        self.operands = operands
        self.options = tuple(options)


# Options that several commands have, in the same words.
HELP: Final = Option("help", "-h --help", "", "show the help and exit")
OBJECT: Final = Option("object", "--object", "OBJECT", "make an object: secret, throttle-group")
IMAGE_OPTS: Final = Option("image-opts", "--image-opts", "", "the image is named by options")
FORCE_SHARE: Final = Option("force-share", "-U --force-share", "", "whatever others do with it")
FORMAT: Final = Option("format", "-f", "FORMAT", "format of the image, instead of guessing it")
QUIET: Final = Option("quiet", "-q", "", "print nothing but errors")
PROGRESS: Final = Option("progress", "-p", "", "show how far it is")
OUTPUT: Final = Option("output", "--output", "human|json", "form of the output")
CACHE: Final = Option("cache", "-t", "CACHE", "cache mode of the image that is written")
SOURCE_CACHE: Final = Option("source-cache", "-T", "CACHE", "cache mode of images that are read")
OPTIONS: Final = Option("options", "-o", "OPTIONS", "name=value,… of the format; help lists them")


class GetoptError(Exception):
    """The command line cannot be read; `word` is the argument QEMU quotes."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class UnknownOption(GetoptError):
    """No such option, an abbreviation that fits several, or a value where none is taken."""


class MissingArgument(GetoptError):
    """An option that needs a value ends the command line."""


class Getopt:
    """Iterate over (key, value) in the order given; `operands` are complete afterwards.

    Args:
        words: the command line, the name of the program or command first.
        options: those known.
        permute: options may follow operands.

    Raises:
        GetoptError: while iterating, when its turn has come: what stood before was yielded.
    """

    def __init__(
        self, words: Sequence[str], options: Sequence[Option], *, permute: bool = True
    ) -> None:
        self.words = words
        self.permute = permute and "POSIXLY_CORRECT" not in os.environ
        self.operands: list[str] = []
        self._next = 1
        self._short: dict[str, Option] = {}
        self._long: dict[str, Option] = {}
        for option in options:
            for name in option.names:
                if name.startswith("--"):
                    self._long[name[2:]] = option
                else:
                    self._short[name[1:]] = option

    def __iter__(self) -> Iterator[tuple[str, str]]:
        while self._next < len(self.words):
            word = self.words[self._next]
            if word.startswith("-") and word not in ("-", "--"):
                if word.startswith("--"):
                    self._next += 1
                    yield self._long_option(word)
                else:
                    yield from self._bundle(word)
                continue
            if word == "--":
                self._next += 1
            elif self.permute:
                self._next += 1
                self.operands.append(word)
                continue
            self.operands += self.words[self._next :]
            return

    def _long_option(self, word: str) -> tuple[str, str]:
        name, equals, value = word[2:].partition("=")
        option = self._long.get(name)
        if option is None:
            fitting = {o.key: o for n, o in self._long.items() if n.startswith(name)}
            if len(fitting) != 1:
                raise UnknownOption(word)
            (option,) = fitting.values()
        if option.value:
            return option.key, value if equals else self._argument(word)
        if equals:
            raise UnknownOption(word)
        return option.key, ""

    def _bundle(self, word: str) -> Iterator[tuple[str, str]]:
        for at in range(1, len(word)):
            option = self._short.get(word[at])
            is_last = at == len(word) - 1
            if option is None:
                raise UnknownOption(word if is_last else self._word_before())
            if option.value:
                self._next += 1
                yield option.key, self._argument(word) if is_last else word[at + 1 :]
                return
            if is_last:
                self._next += 1
            yield option.key, ""

    def _argument(self, word: str) -> str:
        if self._next >= len(self.words):
            raise MissingArgument(word)
        self._next += 1
        return self.words[self._next - 1]

    def _word_before(self) -> str:
        """Return what QEMU quotes in the midst of a bundle, once the C library has reordered."""
        return self.operands[-1] if self.operands else self.words[self._next - 1]
