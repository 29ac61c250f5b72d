"""``-o help``: the options of a format."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, ForeignDriver
from thinvirt.image.ops.create import creation_options, find_creatable, find_format
from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.ops.create import Driver

_MORE = """
The protocol level may support further options.
Specify the target filename to include those options.
"""


def show_creation_options(image_format: str, filename: str | None) -> int:
    """Print what can be said of a new image; return the exit status.

    Args:
        image_format: the driver's name.
        filename: adds the options of its protocol.
    """
    try:
        declared = creation_options(find_creatable(image_format), filename)
    except BlockError as error:
        if isinstance(error, ForeignDriver):
            raise
        console.block_error(error)
        return 1
    console.line("Supported options:" if filename else f"Supported {image_format} options:")
    for line in declared.help_lines():
        console.line(line)
    if not filename:
        console.write(_MORE)
    return 0


def show_amend_options(image_format: str) -> int:
    """Print what can be changed later; return the exit status."""
    from thinvirt.image.block.abilities import Amendable

    driver: Driver | None = None
    try:
        driver = find_format(image_format)
    except ForeignDriver:
        pass  # of QEMU's formats none but ours can be amended
    except BlockError as error:
        console.block_error(error)
        return 1
    if driver is None or not issubclass(driver, Amendable):
        console.error(f"Format driver '{image_format}' does not support option amendment")
        return 1
    console.line(f"Amend options for '{image_format}':")
    for line in driver.amend_options.help_lines():
        console.line(line)
    return 0
