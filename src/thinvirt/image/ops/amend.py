"""Change creation options of an existing image."""

from __future__ import annotations

from thinvirt.image.block.abilities import Amendable
from thinvirt.image.block.errors import BlockError, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.abilities import Watcher
    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.schema import Values


def amend_values(node: BlockNode, options: str) -> Values:
    """Return what is to be changed.

    Args:
        node: of the image.
        options: ``name=value,…``.

    Raises:
        NotSupported: nothing can be changed in this format.
        BlockError: an option is not known, or only when an image is created.
    """
    if not isinstance(node, Amendable):
        raise NotSupported(f"Format driver '{node.driver}' does not support option amendment")
    try:
        return node.amend_options.parse(options)
    except BlockError as error:
        if node.create_options is not None:
            _add_hint(error, node, options)
        raise


def _add_hint(error: BlockError, node: BlockNode, options: str) -> None:
    assert isinstance(node, Amendable)
    assert node.create_options is not None
    try:
        node.amend_options.joined(node.create_options).parse(options)
    except BlockError:
        return
    error.qemu_hint += "This option is only supported for image creation\n"


def amend_image(
    node: BlockNode, values: Values, *, force: bool = False, watch: Watcher | None = None
) -> None:
    """Change options; see `Amendable.amend_image`.

    Raises:
        BlockError: not possible.
    """
    if not isinstance(node, Amendable):
        raise NotSupported(f"Format driver '{node.driver}' does not support option amendment")
    node.amend_image(values, force=force, watch=watch or _nobody)


def _nobody(done: int, total: int) -> None:
    """Nobody watches."""
