"""``resize``: give an image another size."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open, Preallocation
from thinvirt.image.block.schema import parse_size
from thinvirt.image.ops.resize import WouldShrink, resize_image
from thinvirt.image.qemu_img.commandline import Words
from thinvirt.image.qemu_img.getopt import (
    FORMAT,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    QUIET,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Images
from thinvirt.image.qemu_img.report import console

COMMAND = Command(
    "resize",
    "Give an image another size, or make it larger or smaller by so much.",
    "FILE [+|-]SIZE",
    (
        HELP,
        FORMAT,
        Option("preallocation", "--preallocation", "MODE", "off, metadata, falloc or full"),
        Option("shrink", "--shrink", "", "what lies past a smaller end may be lost"),
        QUIET,
        OBJECT,
        IMAGE_OPTS,
    ),
)

_SHRINK_WARNING = (
    "Shrinking an image will delete all data beyond the shrunken image's end. Before performing "
    "such an operation, make sure there is no important data there."
)


def run(words: list[str]) -> int:
    """Run the command."""
    # The size comes last, whatever it looks like: "-1G" is no option.
    if len(words) < 3:
        console.usage("Not enough arguments")
    size_text = words[-1]
    given: dict[str, str] = {}
    scan = Words(COMMAND, words[:-1])
    with Images() as images:
        for key, value in scan:
            if key == "object":
                images.add_object(value)
            elif key == "preallocation" and value not in Preallocation.ALL:
                console.fail(f"Invalid preallocation mode '{value}'")
            given[key] = value
        filename = scan.one_operand("Expecting image file name and size")
        sign = size_text[:1] if size_text[:1] in ("+", "-") else ""
        try:
            amount = parse_size("size", size_text[len(sign) :])
        except BlockError as error:
            console.block_error(error)
            return 1
        image = images.open(
            filename,
            given.get("format"),
            Open.RDWR | Open.RESIZE,
            image_opts="image-opts" in given,
        )
        size = {"": amount, "+": image.size + amount, "-": image.size - amount}[sign]
        try:
            resize_image(
                image,
                _as_signed(size),
                preallocation=given.get("preallocation", Preallocation.OFF),
                shrink="shrink" in given,
            )
        except WouldShrink as error:
            console.block_error(error)
            console.warning(_SHRINK_WARNING)
            return 1
        except BlockError as error:
            console.block_error(error)
            return 1
        if "quiet" not in given:
            console.line("Image resized.")
    return 0


def _as_signed(size: int) -> int:
    """Return what 64 bits with a sign make of a size: too large ones are negative."""
    size &= (1 << 64) - 1
    return size - (1 << 64) if size >> 63 else size
