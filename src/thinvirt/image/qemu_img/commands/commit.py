"""``commit``: write what an image changed back into its backing file."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.status import backing_chain_next
from thinvirt.image.ops.chain import find_backing
from thinvirt.image.ops.commit import commit_image, empty_image
from thinvirt.image.ops.pace import pacer
from thinvirt.image.qemu_img.commandline import Words, number_of
from thinvirt.image.qemu_img.getopt import (
    CACHE,
    FORMAT,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    PROGRESS,
    QUIET,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Images, cache_mode
from thinvirt.image.qemu_img.progress import Meter
from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.root import Root

COMMAND = Command(
    "commit",
    "Write what an image changed into its backing file.",
    "FILE",
    (
        HELP,
        FORMAT,
        CACHE,
        Option("base", "-b", "FILE", "into this image of the chain; implies -d"),
        Option("drop", "-d", "", "do not empty the image afterwards"),
        Option("rate", "-r", "RATE", "bytes a second at most"),
        PROGRESS,
        QUIET,
        OBJECT,
        IMAGE_OPTS,
    ),
)


def run(words: list[str]) -> int:
    """Run the command."""
    given: dict[str, str] = {}
    rate = 0
    scan = Words(COMMAND, words)
    with Images() as images:
        for key, value in scan:
            if key == "object":
                images.add_object(value)
            elif key == "rate":
                rate = number_of("rate limit", value)
            given[key] = value
        filename = scan.one_operand()
        cache = cache_mode(given.get("cache", "writeback"))
        image = images.open(
            filename,
            given.get("format"),
            Open.RDWR | Open.UNMAP | cache.flags,
            image_opts="image-opts" in given,
            writethrough=cache.writethrough,
        )
        meter = Meter(shown="progress" in given and "quiet" not in given, step=1)
        try:
            with meter:
                meter.percent(0)
                base = _find_base(image, filename, given.get("base"))
                commit_image(images.graph, image.node, base, watch=meter.watch, pace=pacer(rate))
                meter.percent(100)
                if not {"base", "drop"} & set(given):
                    empty_image(image.node)
        except BlockError as error:
            console.block_error(error)
            return 1
    if "quiet" not in given:
        console.line("Image committed.")
    return 0


def _find_base(image: Root, filename: str, name: str | None) -> BlockNode:
    """Return the image below that is written to: the next one, or the one called `name`."""
    if name is None:
        base = backing_chain_next(image.node)
        if base is None:
            raise BlockError("Image does not have a backing file")
    else:
        base = find_backing(image.node, name)
        if base is None:
            raise BlockError(f"Did not find '{name}' in the backing chain of '{filename}'")
    return base
