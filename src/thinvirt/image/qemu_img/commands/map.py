"""``map``: what of an image is where, in which file of its chain."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Status
from thinvirt.image.ops.map import map_rows
from thinvirt.image.qemu_img.commandline import Words, is_json, number_of
from thinvirt.image.qemu_img.getopt import (
    FORCE_SHARE,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    OUTPUT,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Images
from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from thinvirt.image.ops.map import MapRow

COMMAND = Command(
    "map",
    "Show what of an image is where.",
    "FILE",
    (
        HELP,
        Option("format", "-f --format", "FORMAT", "format of the image, instead of guessing it"),
        OUTPUT,
        Option("start", "-s --start-offset", "OFFSET", "begin there"),
        Option("length", "-l --max-length", "LENGTH", "show no more than that"),
        OBJECT,
        IMAGE_OPTS,
        FORCE_SHARE,
    ),
)


def run(words: list[str]) -> int:
    """Run the command."""
    given: dict[str, str] = {}
    start, length = 0, None
    scan = Words(COMMAND, words)
    with Images() as images:
        for key, value in scan:
            if key == "object":
                images.add_object(value)
            elif key == "start":
                start = number_of("start offset", value)
            elif key == "length":
                length = number_of("max length", value)
            given[key] = value
        filename = scan.one_operand()
        as_json = is_json(given.get("output"))
        root = images.open(
            filename,
            given.get("format"),
            0,
            image_opts="image-opts" in given,
            force_share="force-share" in given,
        )
        rows = map_rows(root.node, start, None if length is None else start + length)
        try:
            if as_json:
                _show_json(rows, start)
            else:
                _show_table(rows)
        except BlockError as error:
            console.error(f"Could not read file metadata: {error.reason}")
            return 1
    return 0


def _show_table(rows: Iterator[MapRow]) -> None:
    console.write("Offset          Length          Mapped to       File\n")
    for start, length, _, flags, offset, filename in rows:
        if flags & (Status.DATA | Status.ZERO) != Status.DATA:
            continue
        if not flags & Status.OFFSET_VALID:
            console.fail("File contains external, encrypted or compressed clusters.")
        console.write(f"{_hex(start)}{_hex(length)}{_hex(offset)}{filename or ''}\n")


def _hex(value: int) -> str:
    """Return a number as C prints it with ``%#-16x``: zero has no prefix."""
    return f"{value:<#16x}" if value else "0               "


_PLACED = Status.OFFSET_VALID
_TOGETHER = 256  # an image may have millions of rows
_JSON_BOOL = ("false", "true")


def _show_json(rows: Iterator[MapRow], start: int) -> None:
    console.write("[")
    separator = ""
    parts: list[str] = []
    words: dict[int, str] = {}  # what follows from the flags, by these
    for begin, length, depth, flags, offset, _ in rows:
        told = words.get(flags)
        if told is None:
            told = words[flags] = _json_flags(flags)
        where = offset if flags & _PLACED else ""
        parts.append(f'{{ "start": {begin}, "length": {length}, "depth": {depth},{told}{where}}}')
        if len(parts) == _TOGETHER:
            console.write(separator + ",\n".join(parts))
            separator = ",\n"
            parts.clear()
    if parts:
        console.write(separator + ",\n".join(parts))
    elif not separator:  # nothing there is shown as one run without length
        console.write(
            f'{{ "start": {start}, "length": 0, "depth": 0, "present": false, "zero": false,'
            ' "data": false}'
        )
    console.write("]\n")


def _json_flags(flags: int) -> str:
    present, zero, data = (
        _JSON_BOOL[bool(flags & flag)] for flag in (Status.ALLOCATED, Status.ZERO, Status.DATA)
    )
    where = ', "offset": ' if flags & _PLACED else ""
    return f' "present": {present}, "zero": {zero}, "data": {data}{where}'
