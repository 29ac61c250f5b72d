"""The requests of a node, the same for all drivers.

Bounds, alignment by read-modify-write, zeroes past the end, splitting, fallbacks for what a driver
cannot do, and flushes down the graph.
"""

from __future__ import annotations

import errno
import os

from thinvirt.image.block.errors import BlockError, NotSupported, failed
from thinvirt.image.block.flags import (
    MAX_LENGTH,
    SECTOR,
    Open,
    Permission,
    Preallocation,
    Role,
    WriteFlags,
)
from thinvirt.image.block.node import BlockNode, Child, Extent, Graph
from thinvirt.image.block.permissions import default_permissions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import Buffer
    from thinvirt.image.block.options import Options

_BOUNCE = 1 << 20  # zeroes are written in pieces of this size where nothing faster works
_ZEROES = bytes(_BOUNCE)


class BaseNode(BlockNode):
    """What drivers subclass."""

    def __init__(self, graph: Graph, options: Options, flags: int) -> None:
        super().__init__(graph, options, flags)
        self._size = 0
        self._unflushed = False

    @property
    def size(self) -> int:
        """Bytes, whole sectors."""
        if self.variable_length:
            self.refresh_size()
        return self._size

    def _child_permissions(self, child: Child, perm: int, shared: int) -> tuple[int, int]:
        return default_permissions(self, child, perm, shared)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes; zeroes past the end."""
        _check_request(offset, length)
        if not length:
            return b""
        mask = self.request_alignment - 1
        if not (offset | length) & mask:
            return self._read_aligned(offset, length)
        start = offset & ~mask
        end = (offset + length + mask) & ~mask
        return self._read_aligned(start, end - start)[offset - start : offset - start + length]

    def _read_aligned(self, offset: int, length: int) -> bytes:
        mask = self.request_alignment - 1
        available = (self.size - offset + mask) & ~mask
        if length > available:
            if available <= 0:
                return bytes(length)
            return self._read_aligned(offset, available) + bytes(length - available)
        if self.copy_on_read:
            return self.read_and_copy(offset, length)
        return self._read_pieces(offset, length)

    def _read_pieces(self, offset: int, length: int) -> bytes:
        limit = self.max_transfer
        if not limit or length <= limit:
            return self._read(offset, length)
        end = offset + length
        return b"".join(self._read(at, min(limit, end - at)) for at in range(offset, end, limit))

    def read_and_copy(self, offset: int, length: int) -> bytes:
        """Return bytes, and store here those that came from the backing file."""
        from thinvirt.image.block.status import is_allocated

        _check_request(offset, length)
        unit = max(self.cluster_size, self.request_alignment)
        start = offset // unit * unit
        end = min(-(-(offset + length) // unit) * unit, self.size)
        parts = []
        at = start
        while at < end:
            allocated, run = is_allocated(self, at, min(end - at, _BOUNCE))
            if not run:
                break
            data = self._read_pieces(at, run)
            if not allocated:
                self.debug_event("cor_write")
                if self.can_write_zeroes and is_zero(data):
                    self._zero_aligned(at, run, WriteFlags.UNCHANGED)
                else:
                    self._write_aligned(at, data, WriteFlags.UNCHANGED)
            parts.append(data)
            at += run
        data = b"".join(parts)[offset - start : offset - start + length]
        return data + bytes(length - len(data))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read into a buffer."""
        buffer[:] = self.read(offset, len(buffer))

    def write(self, offset: int, data: Buffer, flags: int = WriteFlags.NONE) -> None:
        """Store bytes."""
        length = len(data)
        self._check_writable(offset, length)
        if not length:
            return
        if self.detect_zeroes != "off" and self.can_write_zeroes and is_zero(data):
            unmap = WriteFlags.MAY_UNMAP if self.open_flags & Open.UNMAP else 0
            self.write_zeroes(offset, length, flags | unmap)
            return
        mask = self.request_alignment - 1
        if (offset | length) & mask:
            offset, data = self._pad(offset, data)
        self._write_aligned(offset, data, flags)

    def _write_aligned(self, offset: int, data: Buffer, flags: int) -> None:
        length = len(data)
        limit = self.max_transfer
        durable = flags & WriteFlags.FUA and not self.write_flags & WriteFlags.FUA
        self.debug_event("pwritev")
        self._unflushed = True
        passed = flags & self.write_flags
        if not limit or length <= limit:
            self._write(offset, data, passed)
        else:
            view = memoryview(data)
            for at in range(0, length, limit):
                self._write(offset + at, view[at : at + limit], passed)
        self._grown_to(offset + length)
        if durable:
            self.flush()
        self.debug_event("pwritev_done")

    def _pad(self, offset: int, data: Buffer) -> tuple[int, bytes]:
        """Return the aligned write that changes just `data`: read, modify, write."""
        mask = self.request_alignment - 1
        start = offset & ~mask
        end = offset + len(data)
        padded_end = (end + mask) & ~mask
        head = tail = b""
        if start < offset:
            self.debug_event("pwritev_rmw_head")
            head = self._read_aligned(start, mask + 1)[: offset - start]
            self.debug_event("pwritev_rmw_after_head")
        if end < padded_end:
            self.debug_event("pwritev_rmw_tail")
            tail = self._read_aligned(padded_end - mask - 1, mask + 1)[(end & mask) :]
            self.debug_event("pwritev_rmw_after_tail")
        return start, b"".join((head, data, tail))

    def write_zeroes(self, offset: int, length: int, flags: int = WriteFlags.NONE) -> None:
        """Make a range read as zeroes."""
        self._check_writable(offset, length)
        if not self.open_flags & Open.UNMAP:
            flags &= ~WriteFlags.MAY_UNMAP
        mask = self.request_alignment - 1
        end = offset + length
        if (offset | length) & mask:
            # The ragged ends share their block with other bytes.
            middle = (offset + mask) & ~mask
            middle_end = end & ~mask
            if middle >= middle_end:
                # Within one block, or touching two without filling either.
                for start, stop in _blocks(offset, end, mask + 1):
                    self.write(start, _ZEROES[: stop - start], flags & ~WriteFlags.MAY_UNMAP)
                return
            if offset < middle:
                self.write(offset, _ZEROES[: middle - offset])
            if middle_end < end:
                self.write(middle_end, _ZEROES[: end - middle_end])
            offset, length = middle, middle_end - middle
        if length:
            self.debug_event("pwritev_zero")
            self._zero_aligned(offset, length, flags)
            self.debug_event("pwritev_done")

    def _zero_aligned(self, offset: int, length: int, flags: int) -> None:
        if flags & WriteFlags.NO_FALLBACK & ~self.zero_flags:
            raise NotSupported
        self._unflushed = True
        alignment = max(self.zeroes_alignment, self.request_alignment)
        limit = self.max_zeroes // alignment * alignment
        end = offset + length
        for start, stop in _bulk(offset, end, alignment, limit):
            try:
                if not self.can_write_zeroes:
                    raise NotSupported
                self._write_zeroes(start, stop - start, flags & self.zero_flags)
            except NotSupported:
                if flags & WriteFlags.NO_FALLBACK:
                    raise
                self._write_out_zeroes(start, stop, flags & self.write_flags & ~WriteFlags.FUA)
        self._grown_to(end)
        if flags & WriteFlags.FUA:
            self.flush()

    def _write_out_zeroes(self, start: int, stop: int, flags: int) -> None:
        piece = min(self.max_transfer or _BOUNCE, _BOUNCE)
        for at in range(start, stop, piece):
            self._write(at, memoryview(_ZEROES)[: min(piece, stop - at)], flags)

    def write_compressed(self, offset: int, data: Buffer) -> None:
        """Store compressed."""
        self._check_writable(offset, len(data))
        if not self.supports_compressed_writes():
            raise NotSupported
        self._unflushed = True
        self._write_compressed(offset, data)
        self._grown_to(offset + len(data))

    def copy_from_file(self, file: BlockNode, file_offset: int, offset: int, length: int) -> None:
        """Store bytes of a host file without reading them."""
        self._check_writable(offset, length)
        if (offset | length | file_offset) & (self.request_alignment - 1):
            raise NotSupported
        if length:
            self._unflushed = True
            self._copy_from_file(file, file_offset, offset, length)
            self._grown_to(offset + length)

    def discard(self, offset: int, length: int) -> None:
        """Give a range up."""
        _check_request(offset, length)
        if not self.open_flags & Open.UNMAP or not self.can_discard:
            return
        self._check_writable(offset, length)
        self._unflushed = True
        alignment = max(self.discard_alignment, self.request_alignment)
        limit = self.max_discard // alignment * alignment
        for start, stop in _bulk(offset, offset + length, alignment, limit):
            try:
                self._discard(start, stop - start)
            except NotSupported:
                continue  # advice only; perhaps an aligned piece will do

    def status(self, offset: int, length: int, *, want_zero: bool = True) -> Extent:
        """Return what is known of the beginning of a range."""
        from thinvirt.image.block.status import node_status

        return node_status(self, offset, length, want_zero=want_zero)

    def flush(self) -> None:
        """Make durable."""
        if self.read_only:
            return
        if self._primary is not None:
            self._primary.debug_event("flush_to_os")
        self._flush_to_os()
        if not self.open_flags & Open.NO_FLUSH and self._unflushed:
            if self._primary is not None:
                self._primary.debug_event("flush_to_disk")
            self._flush_to_disk()
            self._unflushed = False
        for child in self.children.values():
            if child.perm & (Permission.WRITE | Permission.WRITE_UNCHANGED):
                child.node.flush()

    def truncate(
        self,
        size: int,
        *,
        exact: bool = False,
        preallocation: str = Preallocation.OFF,
        flags: int = WriteFlags.NONE,
    ) -> None:
        """Change the size."""
        if size < 0:
            raise BlockError("Image size cannot be negative")
        if size > MAX_LENGTH:
            raise BlockError(f"offset({size}) exceeds maximum({MAX_LENGTH})", number=errno.EIO)
        old_size = self.size
        if self.read_only:
            raise BlockError("Image is read-only", number=errno.EACCES)
        if size > old_size and self.backing is not None and self.backing.size > old_size:
            flags |= WriteFlags.ZERO
        self._unflushed = True
        if self.can_truncate:
            if flags & ~self.truncate_flags:
                raise NotSupported("Block driver does not support requested flags")
            self._truncate(size, exact=exact, preallocation=preallocation, flags=flags)
        elif self.filtered is not None:
            self.filtered.truncate(size, exact=exact, preallocation=preallocation, flags=flags)
        else:
            raise NotSupported("Image format driver does not support resize")
        self.refresh_size()

    def refresh_size(self) -> None:
        """Ask the driver."""
        length = self._length()
        if length > MAX_LENGTH:
            raise failed(errno.EFBIG)
        self._size = (length + SECTOR - 1) & -SECTOR

    def refresh_limits(self) -> None:
        """Merge the children's limits, then let the driver override them."""
        self.request_alignment = 1
        self.max_transfer = self.opt_transfer = self.zeroes_alignment = self.max_zeroes = 0
        self.discard_alignment = self.max_discard = 0
        for child in self.children.values():
            if child.role & (Role.DATA | Role.FILTERED | Role.COW):
                below = child.node
                self.max_transfer = _smaller(self.max_transfer, below.max_transfer)
                self.opt_transfer = max(self.opt_transfer, below.opt_transfer)
                self.discard_alignment = max(self.discard_alignment, below.discard_alignment)
        self._refresh_limits()

    def _grown_to(self, end: int) -> None:
        if end > self._size:
            self._size = (end + SECTOR - 1) & -SECTOR

    def _check_writable(self, offset: int, length: int) -> None:
        _check_request(offset, length)
        if not self.open_flags & Open.RDWR:
            raise failed(errno.EPERM)


def is_zero(data: Buffer) -> bool:
    """Return whether there is nothing but zeroes in `data`."""
    # `startswith` compares whole words; two memoryviews are compared byte by byte.
    length = len(data)
    if length <= _BOUNCE:
        return _ZEROES.startswith(data)
    view = memoryview(data)
    return all(_ZEROES.startswith(view[at : at + _BOUNCE]) for at in range(0, length, _BOUNCE))


def _check_request(offset: int, length: int) -> None:
    if offset < 0 or length < 0 or offset + length > MAX_LENGTH:
        raise BlockError(
            f"{os.strerror(errno.EIO)}: a request of {length} bytes at {offset} cannot be",
            number=errno.EIO,
        )


def _smaller(one: int, other: int) -> int:
    """Return the smaller limit, where 0 is none."""
    return min(one, other) if one and other else one or other


def _blocks(start: int, end: int, size: int) -> list[tuple[int, int]]:
    """Cut a range where blocks of `size` begin."""
    pieces = []
    while start < end:
        stop = min((start // size + 1) * size, end)
        pieces.append((start, stop))
        start = stop
    return pieces


def _bulk(start: int, end: int, alignment: int, limit: int) -> list[tuple[int, int]]:
    """Cut a range into a small head, aligned pieces of at most `limit`, and a small tail."""
    first = min((start + alignment - 1) // alignment * alignment, end)
    last = max(end // alignment * alignment, first)
    pieces = [(start, first)] if start < first else []
    step = limit or max(last - first, 1)
    pieces += [(at, min(at + step, last)) for at in range(first, last, step)]
    if last < end:
        pieces.append((last, end))
    return pieces
