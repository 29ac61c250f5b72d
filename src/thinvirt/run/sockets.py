"""Unix sockets below paths longer than a socket address holds.

A socket address has room for 107 bytes of path; a store may lie deeper. The folder is opened, and
the socket is named through ``/proc/self/fd/N/``, which is always short.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BACKLOG = 16


@contextmanager
def short_folder(folder: Path) -> Iterator[str]:
    """Give a short path for `folder`, good in this process (and for what inherits the descriptor).

    Raises:
        FileNotFoundError: there is no such folder.
    """
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at `path`, in place of a stale one from a dead process."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short_folder(path.parent) as folder:
            path.unlink(missing_ok=True)
            server.bind(f"{folder}/{path.name}")
        path.chmod(0o600)
        server.listen(BACKLOG)
    except BaseException:
        server.close()
        raise
    return server


def connect(path: Path, *, timeout_s: float | None = None) -> socket.socket:
    """Return a socket connected to who listens at `path`.

    Raises:
        FileNotFoundError: there is no such socket.
        ConnectionRefusedError: there is one, and nobody listens: its process is dead.
    """
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        client.settimeout(timeout_s)
        with short_folder(path.parent) as folder:
            client.connect(f"{folder}/{path.name}")
    except BaseException:
        client.close()
        raise
    return client
