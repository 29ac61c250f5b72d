"""Put an image onto another backing file without changing what it shows."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import BackingChangeable
from thinvirt.image.block.buffers import ReadBuffer
from thinvirt.image.block.errors import BlockError, NotSupported
from thinvirt.image.block.flags import SECTOR, Status
from thinvirt.image.block.status import overlaid, skip_filters
from thinvirt.image.block.walk import Ascending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.root import Root

CHUNK = 2 << 20  # bytes compared at a time
_PIECE = 1 << 20  # bytes read at a time: they stay in the processor's cache


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
    size = image.size
    at = 0
    keeper = _Keeper(image, old, new, new_is_below=new_is_below)
    while at < size:
        at += keeper.keep(at, min(CHUNK, size - at))
        if watch is not None:
            watch(at, size)


class _Keeper:
    """Goes through an image and two backing files at once."""

    def __init__(
        self,
        image: Root,
        old: BlockNode | None,
        new: BlockNode | None,
        *,
        new_is_below: bool,
    ) -> None:
        own = skip_filters(image.node)
        assert own is not None
        self.image = image
        self.files = _Backing(old, "old"), _Backing(new, "new")
        self._own = Ascending(own, overlaid(own), want_zero=False, alike=Status.ALLOCATED)
        self._between = None
        if new_is_below and old is not None and new is not None:
            self._between = Ascending(old, new, want_zero=False, alike=Status.ALLOCATED)

    def keep(self, at: int, length: int) -> int:
        """Keep what the beginning of a range shows; return how much of it is done."""
        try:
            length, inherited = self._inherited(at, length)
        except BlockError as error:
            raise BlockError(
                f"error while reading image metadata: {error.reason}", number=error.errno
            ) from error
        return self._keep(at, length) if inherited else length

    def _inherited(self, at: int, length: int) -> tuple[int, bool]:
        """Return how many bytes are alike, and whether they may show otherwise on the new file."""
        flags, run = self._own.at(at)
        length = min(length, run)
        if flags & Status.ALLOCATED:
            return length, False
        if self._between is None or at >= self.files[0].size:
            return length, True  # past the end of the old file zeroes showed
        flags, run = self._between.at(at)
        return min(length, run), bool(flags & Status.ALLOCATED)

    def _keep(self, at: int, length: int) -> int:
        old, new = self.files
        length = min(length, old.alike(at, length))
        length = min(length, new.alike(at, length))
        old_is_zero, run = old.zeroes(at)
        length = min(length, run)
        new_is_zero, run = new.zeroes(at)
        length = min(length, run)
        if old_is_zero and new_is_zero:
            return length
        for start in range(0, length, _PIECE):
            end = min(start + _PIECE, length)
            self._read_both(at, start, end)
            if not old.buffer.is_same(new.buffer, start, end):
                self._read_both(at, end, length)
                self._write(at, length)
                break
        return length

    def _read_both(self, at: int, start: int, end: int) -> None:
        if start < end:
            for file in self.files:
                file.read(at, start, end)

    def _write(self, at: int, length: int) -> None:
        """Write what differs in the buffers."""
        old, new = self.files
        try:
            for start, end in _different(old.buffer, new.buffer, length):
                if at >= old.size:
                    self.image.write_zeroes(at + start, end - start)
                else:
                    self.image.write(at + start, old.buffer.view[start:end])
        except BlockError as error:
            raise BlockError(
                f"Error while writing to COW image: {error.reason}", number=error.errno
            ) from error


class _Backing:
    """A backing file, or none: that is one of no bytes."""

    def __init__(self, node: BlockNode | None, which: str) -> None:
        self.node = node
        self.which = which
        self.size = node.size if node is not None else 0
        self.buffer = ReadBuffer(CHUNK)
        self._status = Ascending(node, alike=Status.ZERO) if node is not None else None
        self._may_ask = True

    def alike(self, at: int, length: int) -> int:
        """Return how much of a range lies before or behind the end of the file."""
        return min(length, self.size - at) if at < self.size else length

    def zeroes(self, at: int) -> tuple[bool, int]:
        """Return whether zeroes are known to be at an offset, and for how many bytes this holds."""
        if self._status is None or at >= self.size:
            return True, CHUNK
        if self._may_ask:
            try:
                flags, length = self._status.at(at)
            except BlockError:
                self._may_ask = False  # reading tells what is wrong
            else:
                return bool(flags & Status.ZERO), length
        return False, CHUNK

    def read(self, at: int, start: int, end: int) -> None:
        """Read a part of what is at `at` into the same part of the buffer."""
        view = self.buffer.view[start:end]
        if self.node is None or at >= self.size:
            view[:] = bytes(end - start)
            return
        try:
            self.node.read_into(at + start, view)
        except BlockError as error:
            raise BlockError(
                f"error while reading from {self.which} backing file", number=error.errno
            ) from error


def _different(one: ReadBuffer, other: ReadBuffer, length: int) -> list[tuple[int, int]]:
    """Return the runs of sectors that differ, as byte ranges."""
    runs: list[tuple[int, int]] = []
    for start in range(0, length, SECTOR):
        end = min(start + SECTOR, length)
        if one.is_same(other, start, end):
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
