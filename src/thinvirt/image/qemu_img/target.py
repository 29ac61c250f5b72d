"""Make the image that ``convert`` or ``dd`` writes to."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, ForeignDriver
from thinvirt.image.ops.create import (
    create_driver_image,
    creation_options,
    find_creatable,
    set_backing_option,
)
from thinvirt.image.qemu_img.report import Exit, console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.schema import Values
    from thinvirt.image.ops.create import Driver


class NewTarget:
    """An image about to be made.

    Args:
        image_format: the driver's name.
        filename: with a protocol prefix, perhaps.
        unknown: said of a format that does not exist, instead of the usual words.

    Raises:
        Exit: such an image cannot be made, which was said.
    """

    def __init__(self, image_format: str, filename: str, *, unknown: str = "") -> None:
        self.image_format = image_format
        self.filename = filename
        try:
            self.driver: Driver = find_creatable(image_format)
            self.values: Values = creation_options(self.driver, filename).parse("")
        except ForeignDriver:
            raise
        except BlockError as error:
            if unknown and error.message.startswith("Unknown file format"):
                console.fail(unknown)
            console.block_error(error)
            raise Exit(1) from error

    def set_options(self, options: str | None, size: int) -> None:
        """Take ``-o`` and, whatever that says, the size.

        Raises:
            Exit: an option is wrong, which was said.
        """
        try:
            self.values.parse(options or "")
        except BlockError as error:
            console.block_error(error)
            raise Exit(1) from error
        self.values.set("size", str(size))

    def set_backing(self, name: str | None, image_format: str | None) -> None:
        """Take ``-B`` and ``-F``.

        Raises:
            Exit: the format has no backing files, which was said.
        """
        try:
            if name is not None:
                set_backing_option(
                    self.values, "backing_file", name, "Backing file", self.image_format
                )
            if image_format is not None:
                what = "Backing file format"
                set_backing_option(
                    self.values, "backing_fmt", image_format, what, self.image_format
                )
        except BlockError as error:
            console.block_error(error)
            raise Exit(1) from error

    def secrets(self) -> Options:
        """Return the options that name secrets, which opening the image needs as well."""
        given = self.values.given()
        return {name: text for name, text in given.items() if name.endswith("key-secret")}

    def create(self, graph: BlockGraph, what: str) -> None:
        """Make it; `what` stands before the reason if that fails.

        Raises:
            Exit: not possible, which was said.
        """
        try:
            create_driver_image(graph, self.driver, self.filename, self.values)
        except ForeignDriver:
            raise
        except BlockError as error:
            console.block_error(error, f"{self.filename}: {what}: ")
            raise Exit(1) from error
