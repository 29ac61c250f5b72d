"""``compare``: do two images show the same?"""

from __future__ import annotations

from thinvirt.image.ops.compare import CompareFailed, Comparison
from thinvirt.image.qemu_img.commandline import Words
from thinvirt.image.qemu_img.getopt import (
    FORCE_SHARE,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    PROGRESS,
    QUIET,
    SOURCE_CACHE,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Cache, Images
from thinvirt.image.qemu_img.progress import Meter
from thinvirt.image.qemu_img.report import console

COMMAND = Command(
    "compare",
    "Compare what two images show: status 0 for the same, 1 if not, more if it is not known.",
    "FILE1 FILE2",
    (
        HELP,
        Option("format", "-f", "FORMAT", "format of the first image"),
        Option("format2", "-F", "FORMAT", "format of the second image"),
        SOURCE_CACHE,
        PROGRESS,
        QUIET,
        Option("strict", "-s", "", "sizes and allocation must be the same too"),
        OBJECT,
        IMAGE_OPTS,
        FORCE_SHARE,
    ),
)

# Exit statuses besides 0 and 1.
_NOT_OPENED, _NO_STATUS, _NOT_READ = 2, 3, 4


def run(words: list[str]) -> int:
    """Run the command."""
    scan = Words(COMMAND, words)
    with Images() as images:
        given = scan.given(images, status=_NOT_OPENED)
        if len(scan.operands) != 2:
            console.usage("Expecting two image file names")
        meter = Meter(shown="progress" in given and "quiet" not in given, step=2)
        with meter:
            return _compare(images, scan.operands, given, meter)


def _compare(images: Images, names: list[str], given: dict[str, str], meter: Meter) -> int:
    try:
        cache = Cache(given.get("source-cache", "writeback"))
    except KeyError:
        console.fail(f"Invalid source cache option: {given['source-cache']}", _NOT_OPENED)
    one, other = (
        images.open(
            name,
            given.get(format_key),
            cache.flags,
            image_opts="image-opts" in given,
            force_share="force-share" in given,
            writethrough=cache.writethrough,
            status=_NOT_OPENED,
        )
        for name, format_key in zip(names, ("format", "format2"), strict=True)
    )
    meter.percent(0)

    def say(text: str) -> None:
        if "quiet" not in given:
            console.line(text)

    comparison = Comparison((one, other), strict="strict" in given, watch=meter.watch)
    try:
        difference = comparison.run(on_size=lambda: say("Warning: Image size mismatch!"))
    except CompareFailed as error:
        name = names[error.index]
        if error.offset is None:
            console.fail(f"Sector allocation test failed for {name}", _NO_STATUS)
        console.fail(
            f"Error while reading offset {error.offset} of {name}: {error.cause.reason}", _NOT_READ
        )
    if difference is None:
        say("Images are identical.")
        return 0
    if difference.kind == "size":
        say("Strict mode: Image size mismatch!")
    elif difference.kind == "status":
        say(f"Strict mode: Offset {difference.offset} block status mismatch!")
    else:
        say(f"Content mismatch at offset {difference.offset}!")
    return 1
