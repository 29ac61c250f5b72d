"""``amend``: change options that were given when an image was made."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.ops.amend import amend_image, amend_values
from thinvirt.image.qemu_img.commandline import Words, asks_help
from thinvirt.image.qemu_img.getopt import (
    CACHE,
    FORMAT,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    OPTIONS,
    PROGRESS,
    QUIET,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Images, cache_mode
from thinvirt.image.qemu_img.option_help import show_amend_options
from thinvirt.image.qemu_img.progress import Meter
from thinvirt.image.qemu_img.report import console

COMMAND = Command(
    "amend",
    "Change creation options of an image.",
    "FILE",
    (
        HELP,
        FORMAT,
        OPTIONS,
        CACHE,
        Option("force", "--force", "", "even if keys are lost for good"),
        PROGRESS,
        QUIET,
        OBJECT,
        IMAGE_OPTS,
    ),
)


def run(words: list[str]) -> int:
    """Run the command."""
    scan = Words(COMMAND, words)
    with Images() as images:
        given = scan.given(images)
        options = given.get("options")
        if options is None:
            console.usage("Must specify options (-o)")
        with Meter(shown="progress" in given and "quiet" not in given, step=1) as meter:
            if "format" in given and asks_help(options):
                return show_amend_options(given["format"])
            if len(scan.operands) != 1:
                console.fail("Expecting one image file name")
            return _amend(images, scan.operands[0], given, options, meter)


def _amend(images: Images, filename: str, given: dict[str, str], options: str, meter: Meter) -> int:
    cache = cache_mode(given.get("cache", "writeback"))
    image = images.open(
        filename,
        given.get("format"),
        Open.RDWR | cache.flags,
        image_opts="image-opts" in given,
        writethrough=cache.writethrough,
    )
    node = image.node
    if asks_help(options):
        return show_amend_options(node.driver)
    try:
        values = amend_values(node, options)
    except BlockError as error:
        console.block_error(error)
        return 1
    meter.percent(0)
    try:
        amend_image(node, values, force="force" in given, watch=meter.watch)
    except BlockError as error:
        meter.percent(100)
        console.block_error(error)
        return 1
    meter.percent(100)
    return 0
