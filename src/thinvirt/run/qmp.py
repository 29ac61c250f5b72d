"""A client of QEMU's control protocol (QMP), synchronous and small.

QEMU serves one client per socket at a time; a second one gets its greeting when the first leaves.
"""

import json
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from thinvirt.errors import Busy, QemuFailed, Timeout

GREETING_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 30.0
_CHUNK = 65536
_MAX_MESSAGE = 64 << 20  # no answer of QEMU comes near; a stream without end is not QEMU

Message = dict[str, Any]


class QmpError(QemuFailed):
    """QEMU refused a command.

    Attributes:
        error_class: QEMU's class, "GenericError" for most.
        description: QEMU's own words.
    """

    kind = "qemu-refused"

    def __init__(self, command: str, error: Mapping[str, Any]) -> None:
        self.error_class = str(error.get("class", "GenericError"))
        self.description = str(error.get("desc", ""))
        super().__init__(f"QEMU refused {command}: {self.description} ({self.error_class})")


class QmpClosed(QemuFailed):
    """QEMU closed the connection: it ended, or is ending."""

    kind = "qemu-gone"


class QmpClient:
    """A connection to one QEMU; a context manager.

    Attributes:
        version: QEMU's version, from the greeting: "7.2.22".
        events: events received and not yet taken, oldest first.
    """

    def __init__(self, path: Path, *, timeout_s: float = GREETING_TIMEOUT_S) -> None:
        """Connect and shake hands.

        Args:
            path: the socket; may be longer than a socket address holds.
            timeout_s: how long to wait for the greeting.

        Raises:
            QmpClosed: nobody listens there, or QEMU ended meanwhile.
            Busy: it listens and does not greet: another client is connected.
        """
        from thinvirt.run import sockets

        self.events: deque[Message] = deque()
        self._received = bytearray()
        self._next_id = 0
        self._answers: dict[int, Message] = {}
        try:
            self._socket = sockets.connect(path, timeout_s=timeout_s)
        except (FileNotFoundError, ConnectionRefusedError):
            raise QmpClosed("QEMU does not answer: it is not running", path=path) from None
        try:
            greeting = self._shake_hands(path, timeout_s)
        except BaseException:
            self._socket.close()
            raise
        version = greeting["version"]["qemu"]
        self.version = f"{version['major']}.{version['minor']}.{version['micro']}"

    def _shake_hands(self, path: Path, timeout_s: float) -> Message:
        try:
            greeting: Message = self._receive(time.monotonic() + timeout_s)["QMP"]
        except Timeout:
            raise Busy(
                "another process is connected to this VM's control socket",
                path=path,
                hint="try again when it is done",
            ) from None
        self.execute("qmp_capabilities", timeout_s=timeout_s)
        return greeting

    def close(self) -> None:
        """Leave, so that the next client gets its turn."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
        fds: Sequence[int] = (),
    ) -> Any:
        """Run one command and return what it returned.

        Args:
            command: its name.
            arguments: its arguments.
            timeout_s: how long to wait for the answer.
            fds: descriptors sent along, for ``getfd`` and ``add-fd``.

        Raises:
            QmpError: QEMU refused.
            QmpClosed: QEMU ended before it answered.
            Timeout: no answer in time.
        """
        (number,) = self._send([(command, arguments)], fds)
        return self._answer(number, command, timeout_s)

    def pipeline(
        self,
        commands: Iterable[tuple[str, Mapping[str, Any] | None]],
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> list[Any]:
        """Send several commands in one write and return their answers in order.

        Raises:
            QmpError: QEMU refused one; later ones ran all the same.
            QmpClosed: QEMU ended before it answered them all.
            Timeout: not all answers came in time.
        """
        batch = list(commands)
        numbers = self._send(batch)
        deadline = time.monotonic() + timeout_s
        return [
            self._answer(number, command, max(0.0, deadline - time.monotonic()))
            for number, (command, _) in zip(numbers, batch, strict=True)
        ]

    def wait_event(self, *names: str, timeout_s: float) -> Message:
        """Return the first event of one of these names; those before it are dropped.

        Raises:
            QmpClosed: QEMU ended first.
            Timeout: it did not come in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            while self.events:
                event = self.events.popleft()
                if event["event"] in names:
                    return event
            self._sort_in(self._receive(deadline))

    def monitor(self, line: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a command of the human monitor and return its text: for what QMP has no word for."""
        text = self.execute("human-monitor-command", {"command-line": line}, timeout_s=timeout_s)
        return str(text)

    def _send(
        self,
        commands: Sequence[tuple[str, Mapping[str, Any] | None]],
        fds: Sequence[int] = (),
    ) -> list[int]:
        numbers, data = [], bytearray()
        for command, arguments in commands:
            self._next_id += 1
            message: Message = {"execute": command, "id": self._next_id}
            if arguments:
                message["arguments"] = dict(arguments)
            # Compact: QEMU reads its monitor byte by byte.
            data += json.dumps(message, separators=(",", ":")).encode() + b"\n"
            numbers.append(self._next_id)
        try:
            if fds:
                import socket

                socket.send_fds(self._socket, [bytes(data)], list(fds))
            else:
                self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise QmpClosed("QEMU closed its control socket: it has ended") from None
        return numbers

    def _answer(self, number: int, command: str, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        while number not in self._answers:
            try:
                self._sort_in(self._receive(deadline))
            except Timeout:
                raise Timeout(f"QEMU did not answer {command} within {timeout_s:g} s") from None
        answer = self._answers.pop(number)
        if "error" in answer:
            raise QmpError(command, answer["error"])
        return answer["return"]

    def _sort_in(self, message: Message) -> None:
        if "event" in message:
            self.events.append(message)
        elif "id" in message:
            self._answers[message["id"]] = message

    def _receive(self, deadline: float) -> Message:
        """Return the next message, whole."""
        while True:
            line, found, rest = self._received.partition(b"\n")
            if found:
                self._received = rest
                message: Message = json.loads(line)
                return message
            if len(self._received) > _MAX_MESSAGE:
                raise QemuFailed("what answers at the control socket is not QEMU")
            left = deadline - time.monotonic()
            if left <= 0:
                raise Timeout("QEMU said nothing in time")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(_CHUNK)
            except TimeoutError:
                raise Timeout("QEMU said nothing in time") from None
            except ConnectionResetError:
                data = b""
            if not data:
                raise QmpClosed("QEMU closed its control socket: it has ended")
            self._received += data
