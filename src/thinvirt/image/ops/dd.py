"""Copy a range of an image block by block, as dd does."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, with_reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.root import Root

_CHUNK = 2 << 20  # bytes; small blocks are moved so many at a time


def copy_blocks(
    source: Root,
    target: Root,
    *,
    block: int,
    start: int,
    end: int,
    watch: Callable[[int, int], None] | None = None,
) -> None:
    """Copy ``source[start:end]`` to the beginning of `target`.

    Args:
        source: read.
        target: written, large enough.
        block: bytes that belong together.
        start: first byte.
        end: one past the last.
        watch: told bytes done and bytes in all; may raise to cancel.

    Raises:
        BlockError: one of them failed.
    """
    step = max(block, _CHUNK // block * block)
    at = start
    while at < end:
        length = min(step, end - at)
        try:
            data = source.read(at, length)
        except BlockError as error:
            text = "error while reading from input image file"
            raise with_reason(text, error.errno) from error
        try:
            target.write(at - start, data)
        except BlockError as error:
            text = "error while writing to output image file"
            raise with_reason(text, error.errno) from error
        at += length
        if watch is not None:
            watch(at - start, end - start)
