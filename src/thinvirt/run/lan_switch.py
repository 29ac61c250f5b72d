"""The switch of one private LAN: a process of its own, started by `lan.ensure_switch`.

It learns which network card has which address, sends a frame there, and floods what is for all or
for an address not seen yet. It never waits for a slow receiver: each card has a queue, and frames
that find it full are lost, as on a wire. It ends by itself once no VM has been there for a while.
"""

import os
import selectors
import socket
import sys
import time
from collections import deque
from pathlib import Path

from thinvirt.run.lan import PORT_PREFIX, PORT_SUFFIX, SWITCH_SOCKET

IDLE_S = 30.0  # without any VM; a start in between resets it
SCAN_S = 2.0
QUEUE_FRAMES = 512  # per card; the kernel's own queue of a datagram socket holds ten
TURN_FRAMES = 64  # taken in before the queues get their turn
MAX_ADDRESSES = 65536  # a guest that invents addresses pushes out the oldest, and gets no memory
FRAME_HEADER = 14  # Ethernet: destination, source, type
MAX_FRAME = 128 << 10
_GROUP_BIT = 1  # of the first byte: broadcast and multicast


class Port:
    """One network card: a socket connected to its own, and the frames it has not taken yet.

    Only a connected socket tells by poll(2) when the other end's queue has room again.
    """

    def __init__(self, path: str) -> None:
        """Connect to the card at `path`.

        Raises:
            OSError: no process has it bound.
        """
        self.queue: deque[bytes] = deque()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self.socket.setblocking(False)
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise

    def send(self, frame: bytes) -> None:
        """Send a frame, or queue it, or lose it; raises `OSError` if the card is gone."""
        if self.queue:
            if len(self.queue) < QUEUE_FRAMES:
                self.queue.append(frame)
            return
        try:
            self.socket.send(frame)
        except BlockingIOError:
            self.queue.append(frame)

    def flush(self) -> None:
        """Send what is queued as far as there is room; raises `OSError` if the card is gone."""
        try:
            while self.queue:
                self.socket.send(self.queue[0])
                self.queue.popleft()
        except BlockingIOError:
            pass


class Switch:
    """Ports go by the names of their sockets in the folder."""

    def __init__(self, folder: Path, server: socket.socket) -> None:
        """Serve the LAN of `folder`; `server` is the switch's own socket, bound already."""
        self._folder = folder
        self._server = server
        self._here = f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY)}"
        self._ports: dict[str, Port] = {}
        self._where: dict[bytes, str] = {}  # address: port, the oldest first
        self._selector = selectors.DefaultSelector()
        self._waiting: set[str] = set()  # ports with frames queued, registered for writing
        self._idle_since = time.monotonic()

    def serve(self) -> None:
        """Switch frames until no VM has been there for `IDLE_S`."""
        scan_at = 0.0
        self._server.setblocking(False)
        self._selector.register(self._server, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            if now >= scan_at:
                self._scan()
                scan_at = now + SCAN_S
            if self._ports:
                self._idle_since = now
            elif now - self._idle_since > IDLE_S:
                return
            for key, _ in self._selector.select(scan_at - now):
                if key.data is None:
                    self._take_frames()
                else:
                    self._flush(key.data)

    def _take_frames(self) -> None:
        for _ in range(TURN_FRAMES):
            try:
                frame, sender = self._server.recvfrom(MAX_FRAME)
            except BlockingIOError:
                return
            if len(frame) < FRAME_HEADER:
                self._idle_since = time.monotonic()  # lan.KEEP_ALIVE
                continue
            port = (sender or "").rpartition("/")[2]
            if _is_port(port) and (port in self._ports or self._connect(port)):
                self._forward(frame, port)

    def _forward(self, frame: bytes, sender: str) -> None:
        target, source = frame[:6], frame[6:12]
        if not source[0] & _GROUP_BIT:
            self._learn(source, sender)
        there = None if target[0] & _GROUP_BIT else self._where.get(target)
        if there is None:
            for port in [name for name in self._ports if name != sender]:
                self._send(frame, port)
        elif there != sender:
            self._send(frame, there)

    def _learn(self, address: bytes, port: str) -> None:
        if self._where.get(address) == port:
            return
        self._where.pop(address, None)
        if len(self._where) >= MAX_ADDRESSES:
            del self._where[next(iter(self._where))]
        self._where[address] = port

    def _send(self, frame: bytes, name: str) -> None:
        port = self._ports[name]
        try:
            port.send(frame)
        except OSError:  # gone, or started anew under its old name
            self._forget(name)
            if not self._connect(name):
                return
            port = self._ports[name]
            port.queue.append(frame)
        if port.queue and name not in self._waiting:
            self._selector.register(port.socket, selectors.EVENT_WRITE, name)
            self._waiting.add(name)

    def _flush(self, name: str) -> None:
        port = self._ports.get(name)
        if port is None:  # it went while the events before this one were dealt with
            return
        try:
            port.flush()
        except OSError:
            self._forget(name)
            return
        if not port.queue:
            self._selector.unregister(port.socket)
            self._waiting.discard(name)

    def _connect(self, name: str) -> bool:
        try:
            self._ports[name] = Port(f"{self._here}/{name}")
        except OSError:
            return False
        return True

    def _forget(self, name: str) -> None:
        port = self._ports.pop(name, None)
        if port is None:
            return
        if name in self._waiting:
            self._selector.unregister(port.socket)
            self._waiting.discard(name)
        port.socket.close()
        self._where = {address: there for address, there in self._where.items() if there != name}

    def _scan(self) -> None:
        """Find out which cards are there; remove the sockets of dead ones."""
        found = {name for name in os.listdir(self._here) if _is_port(name)}  # noqa: PTH208
        for name in self._ports.keys() - found:
            self._forget(name)
        for name in found:
            path = f"{self._here}/{name}"
            if _answers(path):
                if name not in self._ports:
                    self._connect(name)
            else:
                self._forget(name)
                if _has_aged(path):
                    (self._folder / name).unlink(missing_ok=True)


def _is_port(name: str) -> bool:
    return name.startswith(PORT_PREFIX) and name.endswith(PORT_SUFFIX)


def _answers(path: str) -> bool:
    """Tell whether a process has the socket bound: connecting costs it nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        try:
            client.connect(path)
        except OSError:
            return False
        return True


def _has_aged(path: str) -> bool:
    """Tell whether the socket is old enough that no QEMU is just about to bind it."""
    try:
        return time.time() - os.lstat(path).st_mtime > 2 * SCAN_S
    except OSError:
        return False


def main() -> None:
    """Run as a process: the LAN's folder, and the descriptor of the switch's bound socket."""
    folder, fd = Path(sys.argv[1]), int(sys.argv[2])
    server = socket.socket(fileno=fd)
    Switch(folder, server).serve()
    (folder / SWITCH_SOCKET).unlink(missing_ok=True)
    os._exit(0)  # at once: whoever looks now must find either a switch or none


if __name__ == "__main__":
    main()
