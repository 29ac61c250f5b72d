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
        if not folder.name.isdigit():
            continue
        try:
            links = [str(link.readlink()) for link in (folder / "fd").iterdir()]
            command = (folder / "comm").read_text().strip()
        except OSError:
            continue  # it ended, or is another user's
        if any(match[1] in inodes for link in links if (match := _SOCKET.fullmatch(link))):
            return f" by process {folder.name} ({command})"
    return ""


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
