"""Commands as a person pastes them: quoted, one option a line."""

import shlex
from collections.abc import Sequence


def one_line(words: Sequence[str]) -> str:
    """Return a command on one line, quoted for a POSIX shell."""
    return shlex.join(words)


def one_option_a_line(words: Sequence[str]) -> str:
    """Return a command with each option on a line of its own, continued by backslashes."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("-") and lines[0]:
            lines.append([])
        lines[-1].append(word)
    return " \\\n  ".join(shlex.join(line) for line in lines)
