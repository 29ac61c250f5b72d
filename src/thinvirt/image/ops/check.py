"""Check the structures of an image against each other, and repair them."""

from __future__ import annotations

from thinvirt.image.block.abilities import Checkable, CheckResult
from thinvirt.image.block.errors import NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.node import BlockNode


def check_image(
    node: BlockNode, *, repair: int = 0, tell: Callable[[str], None] | None = None
) -> CheckResult:
    """Check an image.

    Args:
        node: of the image, writable if it is to be repaired, opened with `Open.CHECK`.
        repair: of `Repair`.
        tell: called with each finding.

    Raises:
        NotSupported: its format has nothing to check.
        BlockError: the check could not be done.
    """
    if not isinstance(node, Checkable):
        raise NotSupported
    return node.check_image(repair, tell or _nobody)


def _nobody(text: str) -> None:
    """Nobody listens."""
