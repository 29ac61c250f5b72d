"""Make a new image of any format that can be created here."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import Creatable
from thinvirt.image.block.errors import BlockError, ForeignDriver, NotSupported
from thinvirt.image.block.flags import Open
from thinvirt.image.block.names import backing_filename
from thinvirt.image.block.registry import find_driver, find_protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from thinvirt.image.block.base import BaseNode
    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.schema import OptionList, Values

    Driver: TypeAlias = type[BaseNode]


_READ_ONLY_FORMATS = ("bochs", "cloop", "dmg", "vvfat")  # of QEMU's, which nobody can create


def find_format(name: str) -> Driver:
    """Return the driver of a format (or protocol) by name.

    Raises:
        BlockError: there is none.
        ForeignDriver: QEMU has it.
    """
    driver = find_driver(name)
    if driver is None:
        raise BlockError(f"Unknown file format '{name}'")
    return driver


def find_creatable(name: str) -> Driver:
    """Return the driver of a format that images can be created in.

    Raises:
        BlockError: there is no such format, or images cannot be created in it.
        ForeignDriver: QEMU can.
    """
    if name in _READ_ONLY_FORMATS:
        raise BlockError(f"Format driver '{name}' does not support image creation")
    return find_format(name)


def creation_options(driver: Driver, filename: str | None) -> OptionList:
    """Return what can be said of a new image, first by its format, then by its protocol.

    Args:
        driver: of the format.
        filename: whose protocol's options to add; None adds none.

    Raises:
        BlockError: one of them cannot create.
    """
    if driver.create_options is None:
        raise BlockError(f"Format driver '{driver.driver}' does not support image creation")
    if filename is None:
        return driver.create_options
    protocol = find_protocol(filename)
    if protocol.create_options is None:
        raise BlockError(f"Protocol driver '{protocol.driver}' does not support image creation")
    return driver.create_options.joined(protocol.create_options)


def create_driver_image(graph: BlockGraph, driver: Driver, filename: str, values: Values) -> None:
    """Let a driver make an image; see `Creatable.create_image`.

    Raises:
        BlockError: not possible.
    """
    if not issubclass(driver, Creatable):
        raise NotSupported(f"Driver '{driver.driver}' does not support image creation")
    driver.create_image(graph, filename, values)


def create_image(
    graph: BlockGraph,
    filename: str,
    image_format: str = "raw",
    *,
    size: int | None = None,
    options: str | None = None,
    backing: str | None = None,
    backing_format: str | None = None,
    open_backing: bool = True,
    announce: Callable[[Values], None] | None = None,
) -> None:
    """Make a new image.

    Args:
        graph: what it is opened in, with its secrets.
        filename: with a protocol prefix, perhaps.
        image_format: the name of its driver.
        size: bytes; None takes that of the options, or of the backing file.
        options: of the format, ``name=value,…``.
        backing: what shows where nothing was written; relative to `filename`.
        backing_format: of the backing file; needed with `backing`.
        open_backing: look whether the backing file is there.
        announce: told all options just before the image is made.

    Raises:
        BlockError: not possible.
    """
    driver = find_creatable(image_format)
    values = _values(creation_options(driver, filename), options, size)
    for name, text, what in (
        ("backing_file", backing, "Backing file"),
        ("backing_fmt", backing_format, "Backing file format"),
    ):
        if text is not None:
            set_backing_option(values, name, text, what, image_format)
    _check_backing_name(filename, values.text("backing_file"))
    _complete_from_backing(graph, filename, values, open_backing=open_backing)
    if "size" not in values:
        raise BlockError("Image creation needs a size parameter")
    if announce is not None:
        announce(values)
    has_cluster_size = bool(values.get("cluster_size", 0))
    try:
        create_driver_image(graph, driver, filename, values)
    except BlockError as error:
        if error.errno != errno.EFBIG:
            raise
        hint = " (try using a larger cluster size)" if has_cluster_size else ""
        raise BlockError(
            f"The image size is too large for file format '{image_format}'{hint}",
            number=errno.EFBIG,
        ) from error


def set_backing_option(values: Values, name: str, text: str, what: str, image_format: str) -> None:
    """Set ``backing_file`` or ``backing_fmt``, which not every format has.

    Raises:
        BlockError: this one has not.
    """
    if values.declared.find(name) is None:
        raise BlockError(f"{what} not supported for file format '{image_format}'")
    values.set(name, text)


def _values(declared: OptionList, options: str | None, size: int | None) -> Values:
    values = declared.parse(options or "")
    if "size" in values:
        if size is not None:
            raise BlockError("The image size must be specified only once")
    elif size is not None:
        values.set("size", str(size))
    return values


def _check_backing_name(filename: str, backing: str | None) -> None:
    if backing == filename:
        raise BlockError(
            "Error: Trying to create an image with the same filename as the backing file"
        )
    if backing == "":
        raise BlockError("Expected backing file name, got empty string")


def _complete_from_backing(
    graph: BlockGraph, filename: str, values: Values, *, open_backing: bool
) -> None:
    """Look at the backing file: it must be there, its format be said; its size is the default."""
    backing = values.text("backing_file")
    if backing is None:
        return
    image_format = values.text("backing_fmt")
    if not open_backing:
        if image_format is None:
            raise BlockError("Backing file specified without backing format")
        return
    full = backing_filename(filename, backing)
    options: dict[str, str | bool] = {"force-share": True}
    if image_format is not None:
        options["driver"] = image_format
    try:
        node = graph.open(full, options, Open.NO_IO)
    except ForeignDriver:
        raise
    except BlockError as error:
        error.qemu_hint += "Could not open backing image.\n"
        raise
    try:
        if image_format is None:
            raise BlockError(
                "Backing file specified without backing format",
                qemu_hint=f"Detected format of {node.driver}.",
            )
        if "size" not in values:
            values.set("size", str(node.size))
    finally:
        graph.abandon(node)
