"""Creation where nothing can be created: devices and exports are there already, or not."""

from __future__ import annotations

from thinvirt.image.block.errors import NotSupported, prefixed
from thinvirt.image.block.flags import SECTOR, Open, Preallocation
from thinvirt.image.block.schema import Option, OptionList, OptionType, parse_choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.root import Root
    from thinvirt.image.block.schema import Values

SIMPLE_OPTIONS = OptionList(
    "simple-create-opts",
    (
        Option("size", OptionType.SIZE, "Virtual disk size"),
        Option("preallocation", OptionType.STRING, "Preallocation mode (allowed values: off)"),
    ),
)


def take_existing(graph: BlockGraph, driver: str, filename: str, values: Values) -> None:
    """Make an existing target ready for a new image.

    Args:
        graph: what it is opened in.
        driver: of the protocol.
        filename: as given.
        values: ``size`` and ``preallocation``.

    Raises:
        BlockError: it cannot be opened for writing, or is too small.
    """
    mode = parse_choice(values.text("preallocation") or Preallocation.OFF, Preallocation.ALL)
    if mode != Preallocation.OFF:
        raise NotSupported(f"Unsupported preallocation mode '{mode}'")
    prefix = (
        f"Protocol driver '{driver}' does not support image creation, and opening the image "
        "failed: "
    )
    with prefixed(prefix):
        target: Root = graph.open_root(filename, {"driver": driver}, Open.RDWR | Open.RESIZE)
    with target:
        _make_room(target, values.size("size"))
        # What was there must not be taken for a format.
        target.write_zeroes(0, min(SECTOR, target.size))


def _make_room(target: Root, size: int) -> None:
    try:
        target.truncate(size)
    except NotSupported:
        if target.size < size:
            raise
