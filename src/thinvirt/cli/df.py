"""``thinvirt df``: what templates and clones occupy, and what sharing saves."""

import argparse
import sys
from typing import TYPE_CHECKING

from thinvirt.cli.output import note, print_json_rows, table
from thinvirt.cli.stores import store_of
from thinvirt.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thinvirt.service.usage import Usage

_BAR_WIDTH = 30
_EIGHTHS = " ▏▎▍▌▋▊▉"

_EPILOG = """Bytes are those allocated on disk. A full copy of a VM is counted with the larger of
what its template and its overlay occupy, which it needs at the least; both sides include the
template.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("templates", nargs="*", metavar="TEMPLATE", help="only these")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Print the figures, and bars that compare them."""
    from thinvirt.service.usage import total, usage
    from thinvirt.store import NoStore

    try:
        figures = usage(store_of(args), args.templates)
    except NoStore:
        if args.templates:
            raise
        figures = []
    if args.json:
        print_json_rows(figure.as_facts() for figure in (*figures, total(figures)))
        return 0
    if not figures:
        note("there are no templates yet: thinvirt template build tiny")
        return 0
    shown = [*figures, total(figures)] if len(figures) > 1 else figures
    header = ("TEMPLATE", "CLONES", "TEMPLATE ITSELF", "OVERLAYS", "TOGETHER", "AS FULL COPIES", "")
    for line in table(header, (_cells(figure) for figure in shown), right="lrrrrrl"):
        print(line)
    print()
    for line in _bars(shown):
        print(line)
    return 0


def _cells(figure: "Usage") -> tuple[str, ...]:
    return (
        figure.name,
        str(figure.clones),
        format_size(figure.template_bytes),
        format_size(figure.clones_bytes),
        format_size(figure.occupied_bytes),
        format_size(figure.full_copies_bytes),
        f"{figure.factor:.3g} times as much" if figure.clones else "",
    )


def _bars(figures: "Sequence[Usage]") -> "Sequence[str]":
    """Return two bars per row, all to one scale: what is occupied, and what copies would be."""
    longest = max(figure.full_copies_bytes for figure in figures)
    width = max(len(figure.name) for figure in figures)
    blocks = sys.stdout.isatty() and "utf" in (sys.stdout.encoding or "").lower()
    lines = []
    for figure in figures:
        for name, what, size in (
            (figure.name, "linked", figure.occupied_bytes),
            ("", "copies", figure.full_copies_bytes),
        ):
            drawn = bar(size / longest if longest else 0.0, blocks=blocks)
            lines.append(f"{name:<{width}}  {what} {drawn} {format_size(size)}".rstrip())
    return lines


def bar(share: float, *, blocks: bool, width: int = _BAR_WIDTH) -> str:
    """Return a bar that is `share` of `width` long; whatever is not nothing shows a little."""
    if not blocks:
        return ("#" * max(round(share * width), 1 if share > 0 else 0)).ljust(width, ".")
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
    return drawn.ljust(width, "░")
