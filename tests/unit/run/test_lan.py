"""The switch process itself, with sockets in the place of QEMU's network cards."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.sector_guest import kill_all

from thinvirt.run import lan, liveness
from thinvirt.run.process import holder_of
from thinvirt.run.sockets import short_folder

BROADCAST = b"\xff" * 6
A, B, C = (bytes((0x52, 0x54, 0, 0, 0, n)) for n in (1, 2, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A LAN below a path longer than a socket address holds."""
    folder = tmp_path / ("d" * 120) / "lab"
    yield folder
    kill_all(tmp_path)


class Card:
    """A network card: bound like QEMU's, naming the switch for every frame."""

    def __init__(self, folder: Path, name: str, held: ExitStack) -> None:
        self.folder = folder
        self.socket = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.socket.settimeout(10)
        attachment = held.enter_context(lan.attached(folder, name))
        self.switch = attachment.sockets.remote
        self.socket.bind(attachment.sockets.local)

    def send(self, target: bytes, source: bytes, payload: bytes = b"") -> bytes:
        frame = target + source + b"\x08\x00" + payload
        self.socket.sendto(frame, self.switch)
        return frame

    def receive(self) -> bytes:
        return self.socket.recv(65536)

    def hears_nothing(self) -> bool:
        self.socket.settimeout(0.2)
        try:
            self.socket.recv(65536)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(10)
        return False


@pytest.fixture
def cards(folder: Path) -> Iterator[list[Card]]:
    """Three cards; each has said something, so that the switch knows it is there."""
    with ExitStack() as held:
        cards = [Card(folder, f"{number}-0", held) for number in (1, 2, 3)]
        deadline = time.monotonic() + 10
        # The switch looks for new cards every two seconds; one that speaks is known at once.
        for card, mac in zip(cards, (A, B, C), strict=True):
            card.send(mac, mac)
        while time.monotonic() < deadline:
            cards[0].send(BROADCAST, A, b"hello")
            try:
                for card in cards[1:]:
                    card.socket.settimeout(0.5)
                    card.receive()
                break
            except TimeoutError:
                continue
        for card in cards:
            while not card.hears_nothing():
                pass
        yield cards


def test_frames_go_where_they_belong(cards: list[Card]) -> None:
    a, b, c = cards
    everywhere = a.send(BROADCAST, A)
    assert b.receive() == c.receive() == everywhere
    assert a.hears_nothing(), "not back to its sender"
    answer = b.send(A, B, b"answer")
    assert a.receive() == answer
    assert c.hears_nothing(), "an address that is known is not flooded"
    large = a.send(B, A, bytes(60000))
    assert b.receive() == large


def test_an_unknown_address_is_flooded(cards: list[Card]) -> None:
    a, b, c = cards
    frame = a.send(b"\x52\x54\x00\x99\x99\x99", A)
    assert b.receive() == c.receive() == frame


def test_a_moved_address_is_learnt_anew(cards: list[Card]) -> None:
    a, b, c = cards
    c.send(A, B)  # the address of b now speaks from c
    a.receive()
    frame = a.send(B, A)
    assert c.receive() == frame
    assert b.hears_nothing()


def test_a_card_that_is_gone_stops_nobody(cards: list[Card]) -> None:
    a, b, c = cards
    b.socket.close()
    frame = a.send(BROADCAST, A)
    assert c.receive() == frame


def test_a_slow_card_stops_nobody(cards: list[Card]) -> None:
    a, b, c = cards
    for number in range(2000):  # b does not read: its queue is full after a few hundred
        a.send(B, A, number.to_bytes(4))
    frame = a.send(C, A, b"through")
    assert c.receive() == frame
    assert b.receive().endswith((0).to_bytes(4)), "the first ones are kept, in order"
    assert b.receive().endswith((1).to_bytes(4))


def test_a_burst_is_not_lost(cards: list[Card]) -> None:
    """Ten datagrams fill the kernel's queue; a TCP window is more than that."""
    a, b, _ = cards
    frames = [a.send(B, A, number.to_bytes(4)) for number in range(200)]
    assert [b.receive() for _ in frames] == frames


def test_strangers_are_not_heard(cards: list[Card]) -> None:
    a, b, _ = cards
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(BROADCAST + A + b"\x08\x00", a.switch)  # it has no name to answer to
    assert b.hears_nothing()


def test_short_datagrams_are_harmless(cards: list[Card]) -> None:
    a, b, _ = cards
    for length in range(14):
        a.socket.sendto(bytes(length), a.switch)
    frame = a.send(B, A)
    assert b.receive() == frame


def test_a_dead_switch_is_started_anew(cards: list[Card], folder: Path) -> None:
    a, b, _ = cards
    before = holder_of(folder / "alive")
    kill_all(folder)
    assert not liveness.is_alive(folder)
    lan.ensure_switch(folder)
    assert holder_of(folder / "alive") not in (None, before)
    b.send(BROADCAST, B)
    a.receive()
    frame = a.send(B, A)
    assert b.receive() == frame, "the cards find the new switch under the old name"


def test_one_switch_however_many_ask(folder: Path) -> None:
    lan.ensure_switch(folder)
    first = holder_of(folder / "alive")
    for _ in range(5):
        lan.ensure_switch(folder)
    assert holder_of(folder / "alive") == first
    assert folder.stat().st_mode & 0o777 == 0o700
    with short_folder(folder) as short, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(f"{short}/{lan.SWITCH_SOCKET}")
