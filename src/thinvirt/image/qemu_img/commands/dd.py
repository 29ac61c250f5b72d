"""``dd``: copy a range of an image, with the operands of dd."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.ops.dd import copy_blocks
from thinvirt.image.qemu_img.commandline import MAX_INT, MAX_SIZE, Words, number_of
from thinvirt.image.qemu_img.getopt import (
    FORCE_SHARE,
    FORMAT,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Images
from thinvirt.image.qemu_img.report import console
from thinvirt.image.qemu_img.target import NewTarget

COMMAND = Command(
    "dd",
    "Copy blocks of an image into a new one.",
    "[bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=FILE of=FILE",
    (
        HELP,
        FORMAT,
        Option("output-format", "-O", "FORMAT", "format of the new image (raw)"),
        OBJECT,
        IMAGE_OPTS,
        FORCE_SHARE,
    ),
)

_NUMBERS = {"bs": (1, MAX_INT), "count": (0, MAX_SIZE), "skip": (0, MAX_SIZE)}


def run(words: list[str]) -> int:
    """Run the command."""
    scan = Words(COMMAND, words)
    with Images() as images:
        given = scan.given(images)
        names, numbers = _operands(scan.operands)
        return _copy(images, given, names, numbers)


def _operands(words: list[str]) -> tuple[dict[str, str], dict[str, int]]:
    names: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in ("if", "of"):
            names[name] = value
        elif equals and name in _NUMBERS:
            numbers[name] = number_of(name, value, *_NUMBERS[name])
        else:
            console.fail(f"unrecognized operand {name}")
    if len(names) < 2:
        console.fail("Must specify both input and output files")
    return names, numbers


def _copy(
    images: Images, given: dict[str, str], names: dict[str, str], numbers: dict[str, int]
) -> int:
    source = images.open(
        names["if"],
        given.get("format"),
        0,
        image_opts="image-opts" in given,
        force_share="force-share" in given,
    )
    image_format = given.get("output-format", "raw")
    new = NewTarget(image_format, names["of"], unknown="Unknown file format")
    block = numbers.get("bs", 512)
    end = min(source.size, numbers.get("count", MAX_SIZE) * block)
    start = numbers.get("skip", 0) * block
    new.set_options(None, max(end - start, 0))
    new.create(images.graph, "error while creating output image")
    target = images.open(names["of"], image_format, Open.RDWR)
    if start > end:
        console.error(f"{names['if']}: cannot skip to specified offset")
    try:
        copy_blocks(source, target, block=block, start=start, end=end)
    except BlockError as error:
        console.block_error(error)
        return 1
    return 0
