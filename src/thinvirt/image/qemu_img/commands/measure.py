"""``measure``: how large would an image be?"""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, ForeignDriver
from thinvirt.image.ops.measure import InvalidOptions, measure_image, measure_values
from thinvirt.image.qemu_img.commandline import add_options, is_json, number_of
from thinvirt.image.qemu_img.getopt import (
    FORCE_SHARE,
    FORMAT,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    OPTIONS,
    OUTPUT,
    Command,
    Getopt,
    GetoptError,
    MissingArgument,
    Option,
)
from thinvirt.image.qemu_img.opening import Images
from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from thinvirt.image.block.abilities import Measure
    from thinvirt.image.block.node import BlockNode

COMMAND = Command(
    "measure",
    "Tell how much space a new image would take.",
    "[FILE]",
    (
        HELP,
        FORMAT,
        Option("output-format", "-O", "FORMAT", "format of the new image (raw)"),
        OPTIONS,
        Option("snapshot", "-l", "SNAPSHOT", "of a snapshot of the image"),
        Option("size", "--size", "SIZE", "of an empty image of that size"),
        OUTPUT,
        OBJECT,
        IMAGE_OPTS,
        FORCE_SHARE,
    ),
)


class _Request:
    """What the command line asks for."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self.options: str | None = None
        self.size: int | None = None
        self.load: Callable[[BlockNode], None] | None = None
        self.as_json = False

    def take(self, key: str, value: str, images: Images) -> None:
        if key == "object":
            images.add_object(value)
        elif key == "options":
            self.options = add_options(self.options, value)
        elif key == "size":
            self.size = number_of("image size", value)
        elif key == "output":
            self.as_json = is_json(value)
        elif key == "snapshot":
            from thinvirt.image.qemu_img.snapshot_option import snapshot_loader

            self.load = snapshot_loader(value)
        self.given[key] = value


def run(words: list[str]) -> int:
    """Run the command."""
    request = _Request()
    scan = Getopt(words, COMMAND.options)
    with Images() as images:
        for key, value in _scan(scan, words[0]):
            request.take(key, value, images)
        if len(scan.operands) > 1:
            console.fail("At most one filename argument is allowed.")
        filename = scan.operands[0] if scan.operands else None
        _check(request, filename)
        try:
            measure = _measure(images, request, filename)
        except ForeignDriver:
            raise
        except BlockError as error:
            console.block_error(error)
            if isinstance(error, InvalidOptions):
                image_format = request.given.get("output-format", "raw")
                console.error(f"Invalid options for file format '{image_format}'")
            return 1
    _show(measure, as_json=request.as_json)
    return 0


def _scan(scan: Getopt, name: str) -> Iterator[tuple[str, str]]:
    """Yield the options; this command alone shows the help when it does not understand."""
    from thinvirt.image.qemu_img.help import show_help

    try:
        for key, value in scan:
            if key == "help":
                show_help()
            yield key, value
    except MissingArgument as error:
        what = f"option '{error.word}' requires an argument"
        if not error.word.startswith("--"):
            what = f"option requires an argument -- '{error.word[-1]}'"
        console.message(f"{name}: {what}\n")
        show_help()
    except GetoptError as error:
        what = f"unrecognized option '{error.word}'"
        if not error.word.startswith("--"):
            what = f"invalid option -- '{error.word[-1]}'"
        console.message(f"{name}: {what}\n")
        show_help()


def _check(request: _Request, filename: str | None) -> None:
    """Refuse what does not fit together."""
    given = request.given
    if filename is None and {"image-opts", "format", "snapshot"} & set(given):
        console.fail("--image-opts, -f, and -l require a filename argument.")
    if filename is not None and request.size is not None:
        console.fail("--size N cannot be used together with a filename.")
    if filename is None and request.size is None:
        console.fail("Either --size N or one filename must be specified.")


def _measure(images: Images, request: _Request, filename: str | None) -> Measure:
    given = request.given
    source = None
    if filename is not None:
        source = images.open(
            filename,
            given.get("format"),
            0,
            image_opts="image-opts" in given,
            force_share="force-share" in given,
        ).node
        if request.load is not None:
            from thinvirt.image.qemu_img.snapshot_option import load_snapshot

            load_snapshot(request.load, source)
    image_format = given.get("output-format", "raw")
    values = measure_values(image_format, request.options, request.size)
    return measure_image(image_format, values, source)


def _show(measure: Measure, *, as_json: bool) -> None:
    if not as_json:
        console.line(f"required size: {measure.required}")
        console.line(f"fully allocated size: {measure.fully_allocated}")
        if measure.bitmaps is not None:
            console.line(f"bitmaps size: {measure.bitmaps}")
        return
    from thinvirt.image.block.qemu_json import dumps

    facts = {"required": measure.required, "fully-allocated": measure.fully_allocated}
    if measure.bitmaps is not None:
        facts["bitmaps"] = measure.bitmaps
    console.line(dumps(facts, pretty=True))
