"""``-l``: which snapshot of an image is meant."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.options import split_pairs
from thinvirt.image.block.schema import Option, OptionList, OptionType, Values
from thinvirt.image.ops.snapshot import show_snapshot, show_snapshot_called
from thinvirt.image.qemu_img.report import Exit, console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.node import BlockNode

_PREFIX = "snapshot."
_OPTIONS = OptionList(
    "snapshot",
    (
        Option(_PREFIX + "id", OptionType.STRING, "snapshot id"),
        Option(_PREFIX + "name", OptionType.STRING, "snapshot name"),
    ),
)


def snapshot_loader(text: str) -> Callable[[BlockNode], None]:
    """Return what lets a node show the snapshot that ``-l`` means.

    Args:
        text: an ID or name, or ``snapshot.id=…,snapshot.name=…``.

    Raises:
        Exit: it cannot be read.
    """
    if not text.startswith(_PREFIX):
        return lambda node: show_snapshot_called(node, text)
    values = Values(_OPTIONS)
    try:
        for name, value, is_flag in split_pairs(text):
            if is_flag and not (value == "on" and name in ("help", "?")):
                word = name if value == "on" else f"no{name}"
                console.warning(f"short-form boolean option '{word}' deprecated")
                console.message(f"Please use {name}={value} instead\n")
            values.set(name, value)
    except BlockError as error:
        console.block_error(error)
        console.error(f"Failed in parsing snapshot param '{text}'")
        raise Exit(1) from error
    return lambda node: show_snapshot(
        node, id=values.text(_PREFIX + "id"), name=values.text(_PREFIX + "name")
    )


def load_snapshot(load: Callable[[BlockNode], None], node: BlockNode) -> None:
    """Let a node show a snapshot.

    Raises:
        Exit: it cannot, which was said.
    """
    try:
        load(node)
    except BlockError as error:
        console.block_error(error, "Failed to load snapshot: ")
        raise Exit(1) from error
