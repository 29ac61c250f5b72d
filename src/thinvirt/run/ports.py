"""Who has a port of this host."""

import re
from collections.abc import Iterator
from pathlib import Path

_TCP_LISTEN = "0A"
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def holder_of_port(port: int, protocol: str = "tcp") -> str:
    """Return who listens at the port, for the end of a message: `` by process 4711 (nginx)``.

    Empty if nobody can be found: processes of other users do not show their sockets.
    """
    inodes = set(_listening_inodes(port, protocol))
    if not inodes:
        return ""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and inodes & set(_open_sockets(folder)):
            return f" by process {folder.name} ({_command(folder)})"
    return ""


def _open_sockets(process: Path) -> Iterator[str]:
    """Yield the inodes of a process's sockets; nothing for one that ended, or another user's."""
    try:
        links = list((process / "fd").iterdir())
    except OSError:
        return
    for link in links:
        try:
            match = _SOCKET.fullmatch(str(link.readlink()))
        except OSError:
            continue  # closed meanwhile
        if match is not None:
            yield match[1]


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "ended"


def _listening_inodes(port: int, protocol: str) -> Iterator[str]:
    """Yield the inodes of the sockets bound to the port: proc_net(5), /proc/net/tcp."""
    for table in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            local_port = int(fields[1].rpartition(":")[2], 16)
            if local_port == port and (protocol == "udp" or fields[3] == _TCP_LISTEN):
                yield fields[9]
