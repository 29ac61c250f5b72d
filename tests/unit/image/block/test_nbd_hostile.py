"""Servers that make no sense: an error each time, bounded, and nothing else."""

import contextlib
import random
import socket
import threading
from collections.abc import Callable
from struct import pack

import pytest

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.nbd_handshake import Export, Handshake
from thinvirt.image.block.nbd_session import Command, Session

GREETING = pack(">QQH", 0x4E42444D41474943, 0x49484156454F5054, 3)
REPLY = 0x3E889045565A9


def served(data: bytes) -> socket.socket:
    """Return a connection over which the server says `data`, whatever it is told, and hangs up."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)

    def serve() -> None:
        with theirs:
            try:
                theirs.sendall(data)
                theirs.shutdown(socket.SHUT_WR)
                while theirs.recv(65536):
                    pass
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    return ours


def option(number: int, kind: int, data: bytes = b"", length: int | None = None) -> bytes:
    return pack(">QIII", REPLY, number, kind, len(data) if length is None else length) + data


ACCEPTED = option(8, 1)
EXPORT = option(7, 3, pack(">HQH", 0, 1 << 20, 1))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"", "Failed to read initial magic: Unexpected end-of-file"),
        (b"HTTP/1.1 400 Bad Request\r\n", "Bad initial magic received"),
        (GREETING[:8] + b"\0" * 10, "Bad server magic received"),
        (GREETING, "Failed to read option reply"),
        (GREETING + option(8, 1, length=1 << 30), "incorrect option length"),
        (GREETING + option(9, 1), "Unexpected option type 9 (list meta context), expected 8"),
        (GREETING + option(8, 1, b"x"), "response length is 1 (it should be zero)"),
        (GREETING + option(8, 4), "unexpected reply 4 (meta context)"),
        (GREETING + ACCEPTED + option(10, 4, b"1234"), "unexpected length 4"),
        (GREETING + ACCEPTED + option(10, 4, b"1234other"), "answered with different context"),
        (
            GREETING + ACCEPTED + option(10, 4, b"1234base:allocation") * 2,
            "more than one context",
        ),
        (GREETING + ACCEPTED + option(10, 1) + option(7, 1), "omitted NBD_INFO_EXPORT"),
        (GREETING + ACCEPTED + option(10, 1) + option(7, 3, b"\0"), "length 1 is too short"),
        (GREETING + ACCEPTED + option(10, 1) + option(7, 3, pack(">HQ", 0, 1)), "unexpected size"),
        (
            GREETING + ACCEPTED + option(10, 1) + option(7, 3, pack(">HIII", 3, 3, 4, 5)),
            "minimum block size 3 is not a power of two",
        ),
        (
            GREETING + ACCEPTED + option(10, 1) + option(7, (1 << 31) + 5, b"no TLS"),
            "TLS negotiation required before option 7 (go)",
        ),
    ],
)  # fmt: skip
def test_handshakes(said: bytes, message: str) -> None:
    with served(said) as connection, pytest.raises(BlockError) as caught:
        Handshake(connection).run("", "base:allocation")
    assert message in caught.value.message


def chunk(
    kind: int, data: bytes, flags: int = 1, handle: int = 1, length: int | None = None
) -> bytes:
    size = len(data) if length is None else length
    return pack(">IHHQI", 0x668E33EF, flags, kind, handle, size) + data


def read(session: Session) -> object:
    return session.read(0, 4096)


def status(session: Session) -> object:
    return session.block_status(0, 4096)


def write(session: Session) -> None:
    session.command(Command.WRITE, 0, 0, 4, b"data")


@pytest.mark.parametrize(
    ("question", "said", "message"),
    [
        (read, b"", "end-of-file"),
        (read, b"junk", "invalid magic"),
        (read, pack(">IIQ", 0x67446698, 0, 1), "simple reply when structured"),
        (read, chunk(1, pack(">Q", 0) + b"x" * 10, handle=9), "reply to request 9 instead of 1"),
        (read, chunk(1, pack(">Q", 0) + b"x" * 10), "less data than was asked for"),
        (read, chunk(1, pack(">Q", 4090) + b"x" * 10), "exceeding requested region"),
        (read, chunk(1, b"", length=0xFFFFFFFF), "end-of-file"),
        (read, chunk(2, pack(">QI", 0, 0xFFFFFFFF)), "exceeding requested region"),
        (read, chunk(2, pack(">QI", 1 << 63, 1)), "exceeding requested region"),
        (read, chunk(5, bytes(12)), "unexpected context id"),
        (read, chunk(0x8001, b"\0"), "invalid payload for structured error"),
        (read, chunk(0x8001, pack(">IH", 28, 0)), "No space left on device"),
        (read, chunk(7, b""), "unexpected chunk type 7"),
        (status, chunk(0, b""), "did not reply with any status extents"),
        (status, chunk(5, pack(">III", 7, 0, 0)), "zero length"),
        (status, chunk(5, pack(">III", 8, 512, 0)), "unexpected context id 8"),
        (write, chunk(1, pack(">Q", 0) + b"x"), "unexpected chunk type 1"),
        (write, pack(">IIQ", 0x67446698, 77, 1), "Invalid argument"),
    ],
)
def test_replies(question: Callable[[Session], object], said: bytes, message: str) -> None:
    export = Export("")
    export.size, export.structured, export.context = 1 << 20, True, 7
    with served(said) as connection, pytest.raises(BlockError) as caught:
        question(Session(connection, export))
    assert message in caught.value.message


def test_random_bytes() -> None:
    chance = random.Random(1)
    good = GREETING + ACCEPTED + option(10, 4, b"\0\0\0\7base:allocation") + option(10, 1) + EXPORT
    for _ in range(100):
        said = bytearray(good + option(7, 1))
        for _ in range(chance.randrange(1, 4)):
            said[chance.randrange(len(said))] = chance.randrange(256)
        with served(bytes(said)) as connection, contextlib.suppress(BlockError):
            Handshake(connection).run("", "base:allocation")
