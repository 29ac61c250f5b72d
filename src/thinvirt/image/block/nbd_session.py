"""Requests over an NBD connection, one at a time, and their replies."""

from __future__ import annotations

import errno
from struct import Struct

from thinvirt.image.block.errors import BlockError, failed
from thinvirt.image.block.nbd_handshake import receive, receive_into

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket
    from typing import Final

    from thinvirt.image.block.nbd_handshake import Export
    from thinvirt.image.block.node import Buffer

_REQUEST = Struct(">IHHQQI")
_SIMPLE = Struct(">IQ")  # behind the magic number: error, handle
_CHUNK = Struct(">HHQI")  # behind the magic number: flags, type, handle, length
_REQUEST_MAGIC = 0x25609513
_SIMPLE_MAGIC, _CHUNK_MAGIC = 0x67446698, 0x668E33EF
_DONE = 1
_MAX_MESSAGE = 4096

# The protocol's errno values, which are Linux's; any other means EINVAL.
_ERRNOS = frozenset(
    {
        errno.EPERM, errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENOSPC, errno.EOVERFLOW,
        errno.ENOTSUP, errno.ESHUTDOWN,
    }
)  # fmt: skip


class Command:
    """What can be asked of a server."""

    READ: Final = 0
    WRITE: Final = 1
    DISCONNECT: Final = 2
    FLUSH: Final = 3
    TRIM: Final = 4
    WRITE_ZEROES: Final = 6
    BLOCK_STATUS: Final = 7


class CommandFlags:
    """How."""

    FUA: Final = 1 << 0
    NO_HOLE: Final = 1 << 1
    REQ_ONE: Final = 1 << 3
    FAST_ZERO: Final = 1 << 4


class _ChunkKind:
    NONE: Final = 0
    OFFSET_DATA: Final = 1
    OFFSET_HOLE: Final = 2
    BLOCK_STATUS: Final = 5
    ERROR: Final = 1 << 15
    ERROR_OFFSET: Final = (1 << 15) + 2


class Broken(BlockError):
    """The connection is of no use any more."""

    def __init__(self, message: str) -> None:
        super().__init__(message, number=errno.EIO)


class Session:
    """A connection past its handshake."""

    def __init__(self, connection: socket, export: Export) -> None:
        self.connection = connection
        self.export = export
        self._handle = 0

    def close(self) -> None:
        """Say goodbye."""
        try:
            self._send(Command.DISCONNECT, 0, 0, 0)
        except Broken:
            pass  # the server went first
        finally:
            self.connection.close()

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the export."""
        handle = self._send(Command.READ, 0, offset, length)
        data = bytearray(length)
        self._receive(handle, reading=(memoryview(data), offset))
        return bytes(data)

    def command(
        self, command: int, flags: int, offset: int, length: int, data: Buffer = b""
    ) -> None:
        """Ask for something that is answered by yes or no.

        Raises:
            RequestFailed: the server said no.
            Broken: the server made no sense, or is gone.
        """
        self._receive(self._send(command, flags, offset, length, data))

    def block_status(self, offset: int, length: int) -> tuple[int, int]:
        """Return (length, flags of the context) of the beginning of a range."""
        handle = self._send(Command.BLOCK_STATUS, CommandFlags.REQ_ONE, offset, length)
        status = self._receive(handle)
        if status is None:
            raise Broken("Protocol error: server did not reply with any status extents")
        run, flags = status
        unit = self.export.min_block
        if unit and run % unit:
            # Some servers tell of the ragged end of a file: round, and know less rather than more.
            run, flags = (run // unit * unit, flags) if run > unit else (unit, 0)
        return min(run, length), flags

    # ---------------------------------------------------------------- messages

    def _send(self, command: int, flags: int, offset: int, length: int, data: Buffer = b"") -> int:
        self._handle += 1
        header = _REQUEST.pack(_REQUEST_MAGIC, flags, command, self._handle, offset, length)
        try:
            self.connection.sendall(header)
            if data:
                self.connection.sendall(data)
        except OSError as error:
            raise Broken(f"Unable to write to socket: {error.strerror}") from error
        return self._handle

    def _take(self, length: int, what: str) -> bytearray:
        try:
            return receive(self.connection, length, what)
        except BlockError as error:
            raise Broken(error.message) from error

    def _receive(
        self, handle: int, *, reading: tuple[memoryview, int] | None = None
    ) -> tuple[int, int] | None:
        """Receive the reply; return the block status if there is one in it."""
        self._missing = len(reading[0]) if reading else 0
        status: tuple[int, int] | None = None
        error = 0
        while True:
            magic = int.from_bytes(self._take(4, "reply"), "big")
            if magic == _SIMPLE_MAGIC:
                self._receive_simple(handle, reading)
                return None
            if magic != _CHUNK_MAGIC:
                raise Broken(f"invalid magic (got 0x{magic:x})")
            flags, kind, replied, length = _CHUNK.unpack(self._take(_CHUNK.size, "reply"))
            self._check_handle(replied, handle)
            if kind & _ChunkKind.ERROR:
                error = error or self._receive_error(kind, length)
            elif kind == _ChunkKind.BLOCK_STATUS:
                status = self._receive_status(length)
            elif kind == _ChunkKind.NONE and not length:
                pass
            elif reading is not None and kind in (_ChunkKind.OFFSET_DATA, _ChunkKind.OFFSET_HOLE):
                self._receive_part(kind, length, *reading)
            else:
                raise Broken(f"Protocol error: unexpected chunk type {kind} of {length} bytes")
            if flags & _DONE:
                break
        if error:
            raise failed(error)
        if self._missing > 0:
            raise Broken("Protocol error: server sent less data than was asked for")
        return status

    def _check_handle(self, replied: int, handle: int) -> None:
        if replied != handle:
            raise Broken(f"Protocol error: reply to request {replied} instead of {handle}")

    def _receive_simple(self, handle: int, reading: tuple[memoryview, int] | None) -> None:
        number, replied = _SIMPLE.unpack(self._take(_SIMPLE.size, "reply"))
        self._check_handle(replied, handle)
        if number:
            raise failed(_known(number))
        if reading is not None:
            if self.export.structured:
                raise Broken(
                    "Protocol error: simple reply when structured reply chunk was expected"
                )
            self._fill(reading[0])

    def _fill(self, buffer: memoryview) -> None:
        try:
            receive_into(self.connection, buffer, "data")
        except BlockError as error:
            raise Broken(error.message) from error

    def _receive_error(self, kind: int, length: int) -> int:
        extra = 8 if kind == _ChunkKind.ERROR_OFFSET else 0
        if not 6 + extra <= length <= 6 + extra + _MAX_MESSAGE:
            raise Broken("Protocol error: invalid payload for structured error")
        data = self._take(length, "error")
        return _known(int.from_bytes(data[:4], "big")) or errno.EINVAL

    def _receive_status(self, length: int) -> tuple[int, int]:
        if length < 12 or length > _MAX_MESSAGE:
            raise Broken("Protocol error: invalid payload for NBD_REPLY_TYPE_BLOCK_STATUS")
        data = self._take(length, "block status")
        context, run, flags = (int.from_bytes(data[at : at + 4], "big") for at in (0, 4, 8))
        if context != self.export.context:
            raise Broken(
                f"Protocol error: unexpected context id {context} for "
                f"NBD_REPLY_TYPE_BLOCK_STATUS, when negotiated context id is {self.export.context}"
            )
        if not run:
            raise Broken("Protocol error: server sent status chunk with zero length")
        return run, flags

    def _receive_part(self, kind: int, length: int, buffer: memoryview, start: int) -> None:
        """Receive a run of data, or learn of a hole, somewhere in what was asked for."""
        is_hole = kind == _ChunkKind.OFFSET_HOLE
        if length < 8 or (is_hole and length != 12):
            raise Broken("Protocol error: invalid payload for a part of the data")
        at = int.from_bytes(self._take(8, "data offset"), "big") - start
        run = int.from_bytes(self._take(4, "hole size"), "big") if is_hole else length - 8
        if not 0 <= at < len(buffer) or not 0 < run <= len(buffer) - at:
            raise Broken("Protocol error: server sent chunk exceeding requested region")
        self._missing -= run
        if is_hole:
            buffer[at : at + run] = bytes(run)
        else:
            self._fill(buffer[at : at + run])


def _known(number: int) -> int:
    return number if number in _ERRNOS or not number else errno.EINVAL
