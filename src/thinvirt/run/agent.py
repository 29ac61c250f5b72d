"""One request to a guest's agent (qemu-ga), for commands that need an answer now.

The channel is a byte stream that outlives both ends: what an earlier client left unread is skipped
by synchronising on a number of our own first (QEMU Guest Agent protocol, ``guest-sync-delimited``).
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinvirt.errors import QemuFailed, Timeout
from thinvirt.run import sockets

_SENTINEL = b"\xff"
_CHUNK = 65536
_COMPLAINT_S = 1.0


class AgentRefused(QemuFailed):
    """The guest's agent does not know the command, or could not do it."""

    kind = "agent-refused"


def ask(
    path: Path,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    timeout_s: float = 2.0,
    answers: bool = True,
) -> Any:
    """Have the guest's agent do something and return its answer.

    Args:
        path: the agent's socket of the VM.
        command: such as ``guest-shutdown``.
        arguments: its arguments.
        timeout_s: for everything together; no agent and a busy one look the same.
        answers: False for commands that say nothing if they succeed (``guest-shutdown``); a
            complaint is waited for a second.

    Raises:
        Timeout: nobody answers in the guest.
        AgentRefused: the agent says no.
        QemuFailed: the VM does not run.
    """
    deadline = time.monotonic() + timeout_s
    try:
        client = sockets.connect(path, timeout_s=timeout_s)
    except (FileNotFoundError, ConnectionRefusedError):
        raise QemuFailed("the VM is not running", path=path) from None
    with client:
        number = int.from_bytes(os.urandom(4))
        sync = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        client.sendall(_SENTINEL + json.dumps(sync).encode() + b"\n")
        received = b""
        while True:
            line, received = _line(client, received, deadline)
            if line.rpartition(_SENTINEL)[2].strip() == b'{"return": %d}' % number:
                break
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = dict(arguments)
        client.sendall(json.dumps(request).encode() + b"\n")
        try:
            line, _ = _line(
                client, received, deadline if answers else time.monotonic() + _COMPLAINT_S
            )
        except (Timeout, QemuFailed):
            if answers:
                raise
            return None
    answer = json.loads(line)
    if "error" in answer:
        raise AgentRefused(f"the guest's agent refused {command}: {answer['error'].get('desc')}")
    return answer.get("return")


def _line(client: Any, received: bytes, deadline: float) -> tuple[bytes, bytes]:
    """Return the next line and what came after it."""
    while b"\n" not in received:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Timeout("the guest's agent does not answer")
        client.settimeout(left)
        try:
            data = client.recv(_CHUNK)
        except TimeoutError:
            raise Timeout("the guest's agent does not answer") from None
        if not data:
            raise QemuFailed("QEMU closed the agent's channel: the VM has ended")
        received += data
    line, _, rest = received.partition(b"\n")
    return line, rest
