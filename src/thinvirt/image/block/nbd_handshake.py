"""The beginning of an NBD connection: which export, how large, what the server can do.

By the protocol's own description (doc/proto.md of the NBD project). Everything the server sends is
checked before memory is taken for it.
"""

from __future__ import annotations

import errno
from struct import Struct, pack

from thinvirt.image.block.errors import BlockError, prefixed, with_reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket
    from typing import Final

MAX_BUFFER = 32 << 20

_INIT_MAGIC = 0x4E42444D41474943  # "NBDMAGIC"
_OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
_OLD_MAGIC = 0x00420281861253
_REPLY_MAGIC = 0x3E889045565A9
_REPLY = Struct(">QIII")
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_RESERVED = 124  # zeroes that old servers send
_ERROR = 1 << 31


class ExportFlags:
    """What an export allows."""

    READ_ONLY: Final = 1 << 1
    SEND_FLUSH: Final = 1 << 2
    SEND_FUA: Final = 1 << 3
    SEND_TRIM: Final = 1 << 5
    SEND_WRITE_ZEROES: Final = 1 << 6
    SEND_FAST_ZERO: Final = 1 << 11


class _Option:
    EXPORT_NAME: Final = 1
    ABORT: Final = 2
    LIST: Final = 3
    GO: Final = 7
    STRUCTURED_REPLY: Final = 8
    SET_META_CONTEXT: Final = 10


_OPTION_NAMES = {
    1: "export name", 2: "abort", 3: "list", 5: "starttls", 6: "info", 7: "go",
    8: "structured reply", 9: "list meta context", 10: "set meta context",
}  # fmt: skip


class _Reply:
    ACK: Final = 1
    SERVER: Final = 2
    INFO: Final = 3
    META_CONTEXT: Final = 4
    UNSUPPORTED: Final = _ERROR + 1


_REPLY_NAMES = {
    1: "ack", 2: "server", 3: "info", 4: "meta context",
    _ERROR + 1: "unsupported", _ERROR + 2: "denied by policy", _ERROR + 3: "invalid",
    _ERROR + 4: "platform lacks support", _ERROR + 5: "TLS required",
    _ERROR + 6: "export unknown", _ERROR + 7: "server shutting down",
    _ERROR + 8: "block size required",
}  # fmt: skip
_REFUSALS = {
    _ERROR + 2: "Denied by server for option {}",
    _ERROR + 3: "Invalid parameters for option {}",
    _ERROR + 4: "Server lacks support for option {}",
    _ERROR + 5: "TLS negotiation required before option {}",
    _ERROR + 6: "Requested export not available",
    _ERROR + 7: "Server shutting down before option {}",
    _ERROR + 8: "Server requires INFO_BLOCK_SIZE for option {}",
}
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3


class Export:
    """What was agreed on.

    Attributes:
        size: bytes, not always whole sectors.
        flags: of `ExportFlags`.
        min_block, opt_block, max_block: sizes of requests in bytes, 0 if not told.
        structured: replies come in chunks.
        context: the id of the metadata context that block status speaks of; None if there is none.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.size = 0
        self.flags = 0
        self.min_block = self.opt_block = self.max_block = 0
        self.structured = False
        self.context: int | None = None


def receive(connection: socket, length: int, what: str) -> bytearray:
    """Return exactly `length` bytes from the server.

    Raises:
        BlockError: it sent fewer, or the connection broke.
    """
    data = bytearray(length)
    receive_into(connection, memoryview(data), what)
    return data


def receive_into(connection: socket, buffer: memoryview, what: str) -> None:
    """Fill `buffer` from the server."""
    done = 0
    while done < len(buffer):
        try:
            step = connection.recv_into(buffer[done:])
        except OSError as error:
            number = error.errno or errno.EIO
            raise with_reason(
                f"Failed to read {what}: Unable to read from socket", number
            ) from error
        if not step:
            raise BlockError(
                f"Failed to read {what}: Unexpected end-of-file before all data were read",
                number=errno.EIO,
            )
        done += step


class Handshake:
    """One handshake over a fresh connection."""

    def __init__(self, connection: socket) -> None:
        self.connection = connection

    def run(self, name: str, context: str) -> Export:
        """Return the export.

        Args:
            name: of the export; empty for the server's default.
            context: the metadata context that block status shall speak of.

        Raises:
            BlockError: no NBD server, no such export, or the server is broken.
        """
        export = Export(name)
        zeroes = True
        style = self._greeting()
        if style == _OLD_MAGIC:
            if name:
                raise BlockError("Server does not support non-empty export names")
            export.size = self._number(8, "export length")
            flags = self._number(4, "export flags")
            if flags > 0xFFFF:
                raise BlockError(f"Unexpected export flags {flags:x}")
            export.flags = flags
        else:
            server_flags = self._number(2, "server flags")
            zeroes = not server_flags & _NO_ZEROES
            self._send(pack(">I", server_flags & (_FIXED_NEWSTYLE | _NO_ZEROES)))
            if server_flags & _FIXED_NEWSTYLE and self._negotiate(export, context):
                return export
            self._ask(_Option.EXPORT_NAME, _text(name))
            export.size = self._number(8, "export length")
            export.flags = self._number(2, "export flags")
        if zeroes:
            receive(self.connection, _RESERVED, "reserved block")
        return export

    def _greeting(self) -> int:
        magic = self._number(8, "initial magic")
        if magic != _INIT_MAGIC:
            raise BlockError(f"Bad initial magic received: 0x{magic:x}")
        magic = self._number(8, "server magic")
        if magic not in (_OPTION_MAGIC, _OLD_MAGIC):
            raise BlockError(f"Bad server magic received: 0x{magic:x}")
        return magic

    def _negotiate(self, export: Export, context: str) -> bool:
        """Ask for the export; return False if only the oldest way is left."""
        export.structured = self._simple(_Option.STRUCTURED_REPLY)
        if export.structured:
            export.context = self._set_context(export.name, context)
        if self._go(export):
            return True
        self._refuse_missing(export.name)
        return False

    # ---------------------------------------------------------------- options

    def _simple(self, option: int) -> bool:
        """Return whether the server agrees to an option without data."""
        self._ask(option)
        answer = self._answer(option, strict=False)
        if answer is None:
            return False
        kind, data = answer
        if kind != _Reply.ACK:
            raise self._give_up(
                f"Server answered option {option} ({_OPTION_NAMES[option]}) with unexpected reply "
                f"{kind} ({_REPLY_NAMES.get(kind, '<unknown>')})"
            )
        if data:
            raise self._give_up(
                f"Option {option} ('{_OPTION_NAMES[option]}') response length is {len(data)} "
                "(it should be zero)"
            )
        return True

    def _set_context(self, name: str, context: str) -> int | None:
        option = _Option.SET_META_CONTEXT
        raw, query = _text(name), _text(context)
        self._ask(
            option,
            pack(">I", len(raw)) + raw + pack(">II", 1, len(query)) + query,
        )
        found: int | None = None
        while True:
            answer = self._answer(option, strict=False)
            if answer is None:
                return found
            kind, data = answer
            if kind == _Reply.ACK:
                if data:
                    raise self._give_up("Unexpected length to ACK response")
                return found
            self._expect(kind, _Reply.META_CONTEXT)
            if len(data) <= 4:
                raise BlockError(
                    "Failed to negotiate meta context, server answered with unexpected length "
                    f"{len(data)}"
                )
            if found is not None:
                raise self._give_up("Server answered with more than one context")
            if data[4:] != query:
                told = data[4:].decode("utf-8", "replace")
                raise self._give_up(
                    f"Failed to negotiate meta context '{context}', server answered with different "
                    f"context '{told}'"
                )
            found = int.from_bytes(data[:4], "big")

    def _go(self, export: Export) -> bool:
        """Begin with the export; return False if the server does not know how."""
        raw = _text(export.name)
        self._ask(_Option.GO, pack(">I", len(raw)) + raw + pack(">HH", 1, _INFO_BLOCK_SIZE))
        while True:
            answer = self._answer(_Option.GO, strict=True)
            if answer is None:
                return False
            kind, data = answer
            if kind == _Reply.ACK:
                if data:
                    raise BlockError("server sent invalid NBD_REP_ACK")
                if not export.flags:
                    raise BlockError("broken server omitted NBD_INFO_EXPORT")
                return True
            self._expect(kind, _Reply.INFO, capital=False)
            if len(data) < 2:
                raise self._give_up(f"NBD_REP_INFO length {len(data)} is too short")
            self._note_info(export, int.from_bytes(data[:2], "big"), data[2:])

    def _note_info(self, export: Export, kind: int, data: bytes) -> None:
        sizes = {_INFO_EXPORT: 10, _INFO_BLOCK_SIZE: 12}
        if kind in sizes and len(data) != sizes[kind]:
            raise self._give_up(f"remaining export info len {len(data)} is unexpected size")
        if kind == _INFO_EXPORT:
            export.size = int.from_bytes(data[:8], "big")
            export.flags = int.from_bytes(data[8:], "big")
            if export.min_block and export.size % export.min_block:
                raise self._give_up(
                    f"export size {export.size} is not multiple of minimum block size "
                    f"{export.min_block}"
                )
        elif kind == _INFO_BLOCK_SIZE:
            low, best, high = (int.from_bytes(data[at : at + 4], "big") for at in (0, 4, 8))
            if not _is_power_of_two(low):
                raise self._give_up(f"server minimum block size {low} is not a power of two")
            if not _is_power_of_two(best) or best < low:
                raise self._give_up(f"server preferred block size {best} is not valid")
            if high < low:
                raise self._give_up(f"server maximum block size {high} is not valid")
            export.min_block, export.opt_block, export.max_block = low, best, high

    def _refuse_missing(self, name: str) -> None:
        """Ask for the names there are: the oldest way to begin cannot tell why it fails."""
        self._ask(_Option.LIST)
        names = []
        while True:
            answer = self._answer(_Option.LIST, strict=True)
            if answer is None or answer[0] == _Reply.ACK:
                break
            kind, data = answer
            self._expect(kind, _Reply.SERVER)
            length = int.from_bytes(data[:4], "big")
            names.append(data[4 : 4 + length])
            if len(names) > 10_000:
                raise self._give_up("the server lists exports without end")
        if names and _text(name) not in names:
            raise self._give_up(f"No export with name '{name}' available")

    # ---------------------------------------------------------------- messages

    def _number(self, size: int, what: str) -> int:
        return int.from_bytes(receive(self.connection, size, what), "big")

    def _send(self, data: bytes) -> None:
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise with_reason("Unable to write to socket", error.errno or errno.EIO) from error

    def _ask(self, option: int, data: bytes = b"") -> None:
        with prefixed("Failed to send option request header: "):
            self._send(pack(">QII", _OPTION_MAGIC, option, len(data)) + data)

    def _answer(self, option: int, *, strict: bool) -> tuple[int, bytes] | None:
        """Return (kind, data) of the next reply; None if the server refuses what it may refuse."""
        magic, replied, kind, length = _REPLY.unpack(
            receive(self.connection, _REPLY.size, "option reply")
        )
        if magic != _REPLY_MAGIC:
            raise self._give_up("Unexpected option reply magic")
        if replied != option:
            known = _OPTION_NAMES.get(replied, "<unknown>")
            raise self._give_up(
                f"Unexpected option type {replied} ({known}), expected {option} "
                f"({_OPTION_NAMES[option]})"
            )
        if length > MAX_BUFFER:
            raise self._give_up(f"incorrect option length {length}")
        data = bytes(receive(self.connection, length, "option data"))
        if not kind & _ERROR:
            return kind, data
        if kind == _Reply.UNSUPPORTED or not strict:
            return None
        where = f"{option} ({_OPTION_NAMES[option]})"
        text = _REFUSALS.get(kind, "Unknown error code when asking for option {}").format(where)
        hint = "Did you forget a valid tls-creds?\n" if kind == _ERROR + 5 else ""
        if data:
            hint += f"server reported: {data.decode('utf-8', 'replace')}\n"
        raise self._give_up(text, hint)

    def _expect(self, kind: int, expected: int, *, capital: bool = True) -> None:
        if kind != expected:
            raise self._give_up(
                f"{'U' if capital else 'u'}nexpected reply type {kind} "
                f"({_REPLY_NAMES.get(kind, '<unknown>')}), expected {expected} "
                f"({_REPLY_NAMES[expected]})"
            )

    def _give_up(self, message: str, qemu_hint: str = "") -> BlockError:
        """Say goodbye, which the server need not hear; return the error to raise."""
        try:
            self.connection.sendall(pack(">QII", _OPTION_MAGIC, _Option.ABORT, 0))
        except OSError:
            return BlockError(message, qemu_hint=qemu_hint)
        return BlockError(message, qemu_hint=qemu_hint)


def _text(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _is_power_of_two(value: int) -> bool:
    return value > 0 and not value & (value - 1)
