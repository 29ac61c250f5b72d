"""What a VM's screen needs beside QEMU: a port that is free, and a password out of sight."""

import errno
import os
import socket
from pathlib import Path

from thinvirt.errors import Conflict, UsageError
from thinvirt.run.qmp import QmpClient
from thinvirt.vm.spec.words import VNC_BASE_PORT

_PORTS_TRIED = 1000


def free_port(address: str) -> int:
    """Return a TCP port from 5900 on that nobody listens at.

    Somebody may take it before QEMU does; who starts QEMU tries again then.

    Args:
        address: where QEMU will listen; "" is everywhere.

    Raises:
        UsageError: this host has no such address.
        Conflict: a thousand ports are taken.
    """
    family, place = _family_of(address)
    for port in range(VNC_BASE_PORT, VNC_BASE_PORT + _PORTS_TRIED):
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((place, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise UsageError(
                        f"the screen cannot be shown at '{address}': {error.strerror}",
                        hint="an address of this host: ip address",
                    ) from None
                continue
        return port
    raise Conflict(f"the ports {VNC_BASE_PORT} to {port} are all taken")


def _family_of(address: str) -> tuple[socket.AddressFamily, str]:
    bare = address.strip("[]")
    try:
        found = socket.getaddrinfo(
            bare or None, VNC_BASE_PORT, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise UsageError(f"the screen cannot be shown at '{address}': {error.strerror}") from None
    family, *_, place = found[0]
    return family, str(place[0])


def write_password(path: Path, password: str) -> None:
    """Write a password for QEMU to read, for its owner's eyes only."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(password)


def vnc_address(qmp: QmpClient) -> str:
    """Return where VNC listens: ``ADDRESS:PORT``, "" for nowhere."""
    facts = qmp.execute("query-vnc")
    return _joined(facts["host"], facts["service"]) if facts.get("enabled") else ""


def spice_address(qmp: QmpClient) -> str:
    """Return where SPICE listens: ``ADDRESS:PORT``, "" for nowhere."""
    facts = qmp.execute("query-spice")
    return _joined(facts["host"], facts["port"]) if facts.get("enabled") else ""


def _joined(host: str, port: int | str) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
