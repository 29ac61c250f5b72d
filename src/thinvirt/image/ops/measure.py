"""What a new image would need of the host's file system."""

from __future__ import annotations

from thinvirt.image.block.abilities import Measurable, Measure
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.file_create import CREATE_OPTIONS
from thinvirt.image.ops.create import creation_options, find_creatable, find_format

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.schema import Values


class InvalidOptions(BlockError):
    """The options are none of this format's."""


def measure_values(image_format: str, options: str | None, size: int | None) -> Values:
    """Return creation options for an image in a host file.

    Raises:
        InvalidOptions: some are not known to the format.
        BlockError: no such format.
    """
    declared = creation_options(find_creatable(image_format), None).joined(CREATE_OPTIONS)
    try:
        values = declared.parse(options or "")
    except BlockError as error:
        raise InvalidOptions(error.message, qemu_hint=error.qemu_hint) from error
    if size is not None:
        values.set("size", str(size))
    return values


def measure_image(image_format: str, values: Values, source: BlockNode | None) -> Measure:
    """Return what an image would need.

    Args:
        image_format: the driver's name.
        values: from `measure_values`.
        source: what would be converted to it; None for an empty image.

    Raises:
        BlockError: the format cannot tell.
    """
    driver = find_format(image_format)
    if not issubclass(driver, Measurable):
        raise BlockError(f"Block driver '{driver.driver}' does not support size measurement")
    return driver.measure_image(values, source)
