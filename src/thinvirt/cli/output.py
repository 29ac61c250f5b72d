"""How the commands print: errors, tables, JSON, and progress on a terminal."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from thinvirt.errors import ThinvirtError
from thinvirt.progress import Progress, Silent

PROGRAM = "thinvirt"


def tell_error(error: ThinvirtError, *, as_json: bool = False) -> None:
    """Print an error on stderr: message and hint, or one JSON object for programs."""
    sys.stdout.flush()
    if as_json:
        print(json.dumps({"error": error.as_facts()}), file=sys.stderr)
        return
    print(f"{PROGRAM}: {visible(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {visible(error.hint)}", file=sys.stderr)


def note(message: str) -> None:
    """Print a remark on stderr, beside what the command prints for programs."""
    print(f"{PROGRAM}: {visible(message)}", file=sys.stderr)


def visible(text: str) -> str:
    """Return `text` with what a terminal would obey written as escapes: file names may have it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _json(value: object, *, indent: int | None = None) -> str:
    # An escape of Python's for what the encoding does not have would be none of JSON's.
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, ensure_ascii=not is_utf8, indent=indent)


def print_json(facts: object) -> None:
    """Print facts as JSON: a list of objects is an array, one object a line."""
    if isinstance(facts, list):
        rows = (",\n ".join(_json(row) for row in facts)).join("[]")
        print(rows)
    else:
        print(_json(facts, indent=2))


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right: str = ""
) -> Iterator[str]:
    """Yield the lines of a table with aligned columns.

    Args:
        header: the column titles.
        rows: the cells, as text.
        right: one letter per column, "r" for those aligned to the right.
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        parts = [
            cell.rjust(width) if right[i : i + 1] == "r" else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(parts).rstrip()


def facts_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield ``name: value`` lines with the values aligned."""
    width = max((len(name) for name in facts), default=0) + 1
    for name, value in facts.items():
        yield f"{name + ':':<{width}} {value}"


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Give a `Progress` that draws bars on stderr if that is a terminal, else one line a step."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        from thinvirt.cli.progress_bars import Bars

        with Bars() as bars:
            yield bars
    else:
        yield _Lines()


class _Lines(Silent):
    """One line when a step begins: for logs."""

    def step(self, title: str, total: int | None = None, unit: str = "") -> None:
        note(title)


def print_json_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print a JSON array, one object a line, while the rows come: there may be 100,000."""
    before = "["
    for row in rows:
        print(before, _json(row), sep="", end="")
        before = ",\n "
    print("[]" if before == "[" else "]")


def print_table_rows(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right: str = "", page: int = 1000
) -> None:
    """Print a table while its rows come: columns are as wide as the first `page` rows need."""
    from itertools import islice

    remaining = iter(rows)
    first = list(islice(remaining, page))
    for line in table(header, first, right=right):
        print(line)
    widths = [max(len(row[i]) for row in (header, *first)) for i in range(len(header))]
    for row in remaining:
        parts = [
            cell.rjust(width) if right[i : i + 1] == "r" else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(parts).rstrip())
