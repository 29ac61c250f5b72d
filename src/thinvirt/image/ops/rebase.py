"""Put an image onto another backing file without changing what it shows."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import BackingChangeable
from thinvirt.image.block.errors import BlockError, NotSupported
from thinvirt.image.block.flags import SECTOR
from thinvirt.image.block.status import is_allocated, is_allocated_above, skip_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.root import Root

CHUNK = 2 << 20  # bytes compared at a time


def keep_content(
    image: Root,
    old: BlockNode | None,
    new: BlockNode | None,
    *,
    new_is_below: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> None:
    """Copy into an image what its new backing file shows otherwise than the old one.

    Whenever this is interrupted, the image shows what it did.

    Args:
        image: writable, on its old backing file still.
        old: the backing file it has; None for none.
        new: the one that it is to get; None for none.
        new_is_below: `new` is an image below `old`: only what lies between is looked at.
        watch: told bytes done and bytes in all; may raise to cancel.

    Raises:
        BlockError: one of them failed, in qemu-img's words.
    """
    own = skip_filters(image.node)
    assert own is not None
    size = image.size
    at = 0
    while at < size:
        length = min(CHUNK, size - at)
        length, inherited = _inherited(own, old, new if new_is_below else None, at, length)
        if inherited:
            length = _keep(image, old, new, at, length)
        at += length
        if watch is not None:
            watch(at, size)


def _inherited(
    own: BlockNode, old: BlockNode | None, below: BlockNode | None, at: int, length: int
) -> tuple[int, bool]:
    """Return how many bytes are alike, and whether they may show otherwise on the new file."""
    try:
        allocated, length = is_allocated(own, at, length)
        if allocated:
            return length, False
        if below is None or old is None:
            return length, True
        changed, known = is_allocated_above(old, below, at, length)
    except BlockError as error:
        raise BlockError(
            f"error while reading image metadata: {error.reason}", number=error.errno
        ) from error
    if not known:
        return length, True  # past the end of the old file, where zeroes showed
    return known, changed


def _keep(image: Root, old: BlockNode | None, new: BlockNode | None, at: int, length: int) -> int:
    """Write what would show otherwise at the beginning of a range; return its length."""
    length, old_data = _read(old, at, length, "old")
    length, new_data = _read(new, at, length, "new")
    old_size = old.size if old is not None else 0
    old_is_zero = at >= old_size
    view = memoryview(old_data)[:length]
    if new_data.startswith(view):
        return length
    try:
        for start, end in _different(old_data, new_data, length):
            if old_is_zero:
                image.write_zeroes(at + start, end - start)
            else:
                image.write(at + start, view[start:end])
    except BlockError as error:
        raise BlockError(
            f"Error while writing to COW image: {error.reason}", number=error.errno
        ) from error
    return length


def _read(node: BlockNode | None, at: int, length: int, which: str) -> tuple[int, bytes]:
    """Return how much of a range lies before or behind the end of a file, and its bytes."""
    if node is None or at >= node.size:
        return length, bytes(length)
    length = min(length, node.size - at)
    try:
        return length, node.read(at, length)
    except BlockError as error:
        raise BlockError(
            f"error while reading from {which} backing file", number=error.errno
        ) from error


def _different(one: bytes, other: bytes, length: int) -> list[tuple[int, int]]:
    """Return the runs of sectors that differ, as byte ranges."""
    runs: list[tuple[int, int]] = []
    for start in range(0, length, SECTOR):
        end = min(start + SECTOR, length)
        if one[start:end] == other[start:end]:
            continue
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def change_backing(node: BlockNode, name: str | None, image_format: str | None) -> None:
    """Write the name of another backing file into an image.

    Args:
        node: of the image, writable; filters are looked through.
        name: as it is to be written; None takes the image out of its chain.
        image_format: of the backing file; needed with `name`.

    Raises:
        BlockError: ``errno.EINVAL`` without format, ``errno.ENOSPC`` for too long a name.
    """
    own = skip_filters(node)
    if (name is None) != (image_format is None):
        raise BlockError("backing format must be specified", number=errno.EINVAL)
    if not isinstance(own, BackingChangeable):
        raise NotSupported
    own.change_backing(name, image_format)
    own.backing_file = own.auto_backing_file = name or ""
    own.backing_format = image_format or ""
