"""Give an image another size."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Preallocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.root import Root


class WouldShrink(BlockError):
    """The new size is smaller, and shrinking was not asked for."""


def resize_image(
    image: Root,
    size: int,
    *,
    preallocation: str = Preallocation.OFF,
    shrink: bool = False,
) -> None:
    """Change the size that a guest sees.

    Args:
        image: opened with `Open.RESIZE`.
        size: bytes.
        preallocation: of `Preallocation`, for what is added.
        shrink: the content past a smaller end may be lost.

    Raises:
        WouldShrink: it would be lost, and `shrink` was not given.
        BlockError: not possible.
    """
    present = image.size
    if size <= 0:
        raise BlockError("New image size must be positive")
    if size <= present and preallocation != Preallocation.OFF:
        raise BlockError("Preallocation can only be used for growing images")
    if size < present and not shrink:
        raise WouldShrink("Use the --shrink option to perform a shrink operation.")
    image.truncate(size, exact=True, preallocation=preallocation)
