"""The switch of one private LAN: a process of its own, started by `lan.ensure_switch`.

It learns which network card has which address, sends a frame there, and floods what is for all or
for an address not seen yet. It never waits for a slow receiver: as on a wire, frames may be lost.
It ends by itself once no VM has been there for a while.
"""

import os
import socket
import sys
import time
from pathlib import Path

from thinvirt.run.lan import PORT_PREFIX, PORT_SUFFIX, SWITCH_SOCKET

IDLE_S = 30.0  # without any VM; a start in between resets it
SCAN_S = 2.0
MAX_ADDRESSES = 65536  # a guest that invents addresses pushes out the oldest, and gets no memory
FRAME_HEADER = 14  # Ethernet: destination, source, type
MAX_FRAME = 128 << 10
_GROUP_BIT = 1  # of the first byte: broadcast and multicast


class Switch:
    """Ports are the names of sockets in the folder."""

    def __init__(self, folder: Path, server: socket.socket) -> None:
        """Serve the LAN of `folder`; `server` is the switch's own socket, bound already."""
        self._folder = folder
        self._server = server
        self._here = f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY)}"
        self._ports: set[str] = set()
        self._where: dict[bytes, str] = {}  # address: port, the oldest first

    def serve(self) -> None:
        """Switch frames until no VM has been there for `IDLE_S`."""
        scan_at, idle_since = 0.0, time.monotonic()
        self._server.settimeout(SCAN_S)
        while True:
            now = time.monotonic()
            if now >= scan_at:
                self._scan()
                scan_at = now + SCAN_S
            if self._ports:
                idle_since = now
            elif now - idle_since > IDLE_S:
                return
            try:
                frame, sender = self._server.recvfrom(MAX_FRAME)
            except TimeoutError:
                continue
            if len(frame) < FRAME_HEADER:
                idle_since = now  # lan.KEEP_ALIVE
                continue
            port = os.path.basename(sender or "")  # noqa: PTH119 - a plain string, for speed
            if _is_port(port):
                self._forward(frame, port)

    def _forward(self, frame: bytes, sender: str) -> None:
        self._ports.add(sender)
        target, source = frame[:6], frame[6:12]
        if not source[0] & _GROUP_BIT:
            self._learn(source, sender)
        there = None if target[0] & _GROUP_BIT else self._where.get(target)
        if there is None:
            for port in self._ports - {sender}:
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

    def _send(self, frame: bytes, port: str) -> None:
        try:
            self._server.sendto(frame, socket.MSG_DONTWAIT, f"{self._here}/{port}")
        except BlockingIOError:
            pass  # its queue is full: the frame is lost, as on a wire
        except OSError:
            self._forget(port)

    def _forget(self, port: str) -> None:
        self._ports.discard(port)
        self._where = {address: p for address, p in self._where.items() if p != port}

    def _scan(self) -> None:
        """Find out which cards are there; remove the sockets of dead ones."""
        found = {name for name in os.listdir(self._here) if _is_port(name)}  # noqa: PTH208
        for port in found:
            if _answers(f"{self._here}/{port}"):
                self._ports.add(port)
            else:
                self._forget(port)
                if _has_aged(f"{self._here}/{port}"):
                    (self._folder / port).unlink(missing_ok=True)
        for port in self._ports - found:
            self._forget(port)


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
