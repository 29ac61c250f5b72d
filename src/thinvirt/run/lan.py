"""Private LANs between the VMs of a store, without root.

A LAN is a folder. In it lie Unix datagram sockets: one of a switch (`lan_switch`), and one for each
network card, which QEMU binds itself. QEMU names the switch by path for every frame, so a switch
that died and was started anew is found again by the VMs that run. The folder's mode, 0700, is what
keeps others out.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from thinvirt.errors import Busy
from thinvirt.run import liveness
from thinvirt.run.process import spawn
from thinvirt.run.sockets import short_folder
from thinvirt.vm.qemu import LanPort

SWITCH_SOCKET = "switch.sock"
SWITCH_LOG = "switch.log"
PORT_PREFIX, PORT_SUFFIX = "port-", ".sock"
KEEP_ALIVE = b"keep"  # too short for a frame: tells the switch that somebody is about to come
BUFFER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Attachment:
    """What QEMU needs to be on a LAN.

    Attributes:
        sockets: the paths of both ends, through the inherited descriptor.
        folder_fd: that descriptor, of the LAN's folder.
    """

    sockets: LanPort
    folder_fd: int


@contextmanager
def attached(folder: Path, port: str) -> Iterator[Attachment]:
    """Give what QEMU needs to be on the LAN of `folder`, its switch running.

    Args:
        folder: the LAN's; made if missing.
        port: a name for the network card, unique among the store's: ``12-0``.
    """
    ensure_switch(folder)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        here = f"/proc/self/fd/{fd}"
        local = f"{here}/{PORT_PREFIX}{port}{PORT_SUFFIX}"
        yield Attachment(LanPort(local, f"{here}/{SWITCH_SOCKET}"), fd)
    finally:
        os.close(fd)


def ensure_switch(folder: Path) -> None:
    """Start the LAN's switch unless it runs; tell it to stay if it does."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        alive_fd = liveness.hold(folder)
    except Busy:
        _keep_alive(folder)
        return
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        with short_folder(folder) as short:
            (folder / SWITCH_SOCKET).unlink(missing_ok=True)
            server.bind(f"{short}/{SWITCH_SOCKET}")
        spawn(
            [
                *(sys.executable, "-P", "-m", "thinvirt.run.lan_switch"),
                *(str(folder), str(server.fileno())),
            ],
            log=folder / SWITCH_LOG,
            pass_fds=(alive_fd, server.fileno()),
            package="python3",
        )
    finally:
        server.close()
        os.close(alive_fd)


def _keep_alive(folder: Path) -> None:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        client.setblocking(False)
        with short_folder(folder) as short:
            client.sendto(KEEP_ALIVE, f"{short}/{SWITCH_SOCKET}")
    except (BlockingIOError, FileNotFoundError, ConnectionRefusedError):
        pass  # it is busy with frames, or is just being started by another command
    finally:
        client.close()
