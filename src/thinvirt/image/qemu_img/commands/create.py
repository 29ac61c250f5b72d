"""``create``: make a new image."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, ForeignDriver
from thinvirt.image.block.options import double_commas
from thinvirt.image.block.schema import OptionType
from thinvirt.image.ops.create import create_image
from thinvirt.image.qemu_img.commandline import Words, asks_help, number_of
from thinvirt.image.qemu_img.getopt import HELP, OBJECT, OPTIONS, QUIET, Command, Option
from thinvirt.image.qemu_img.opening import Images
from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.schema import Values

COMMAND = Command(
    "create",
    "Make a new image.",
    "FILE [SIZE]",
    (
        HELP,
        Option("format", "-f", "FORMAT", "format of the new image (raw)"),
        Option("backing", "-b", "FILE", "backing file: what shows where nothing was written"),
        Option("backing-format", "-F", "FORMAT", "format of the backing file"),
        Option("unchecked", "-u", "", "do not look for the backing file"),
        OPTIONS,
        QUIET,
        OBJECT,
    ),
)


def run(words: list[str]) -> int:
    """Run the command."""
    scan = Words(COMMAND, words)
    with Images() as images:
        given = scan.given(images)
        options = given.get("options")
        image_format = given.get("format", "raw")
        operands = scan.operands
        if asks_help(options):
            from thinvirt.image.qemu_img.option_help import show_creation_options

            return show_creation_options(image_format, operands[0] if operands else None)
        if not operands:
            console.usage("Expecting image file name")
        size = number_of("image size", operands[1]) if len(operands) > 1 else None
        if len(operands) > 2:
            console.usage(f"Unexpected argument: {operands[2]}")
        filename = operands[0]

        def announce(values: Values) -> None:
            if "quiet" not in given:
                console.line(f"Formatting '{filename}', fmt={image_format} {shown(values)}")
                if not _may_be_handed_on(image_format, values):
                    console.flush()

        try:
            create_image(
                images.graph,
                filename,
                image_format,
                size=size,
                options=options,
                backing=given.get("backing"),
                backing_format=given.get("backing-format"),
                open_backing="unchecked" not in given,
                announce=announce,
            )
        except ForeignDriver:
            raise
        except BlockError as error:
            console.flush()  # it was said before
            console.block_error(error, f"{filename}: ")
            return 1
    return 0


def _may_be_handed_on(image_format: str, values: Values) -> bool:
    """Whether it shows only while the image is made that just QEMU can: its program says it all."""
    return image_format == "luks" or any(
        name == "data_file" or name.startswith("encrypt.") for name in values.given()
    )


def shown(values: Values) -> str:
    """Return options in the order their driver declares them, defaults included."""
    parts = []
    for option in values.declared:
        text = values.text(option.name)
        if text is None:
            continue
        if option.type == OptionType.STRING:
            text = double_commas(text)
        elif option.type in (OptionType.SIZE, OptionType.NUMBER) and option.name in values:
            number = values.size(option.name)
            text = str(number - (1 << 64) if number >= 1 << 63 else number)
        parts.append(f"{option.name}={text}")
    return " ".join(parts)
