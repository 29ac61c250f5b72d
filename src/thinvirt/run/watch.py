"""Following one running VM by what it prints, and asking whether its SSH server or agent answers.

Nothing here blocks and no descriptor stays open between two looks, so that one thread watches a
thousand VMs.
"""

import itertools
import json
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from thinvirt.run import sockets
from thinvirt.run.folder import VmFolder
from thinvirt.run.liveness import RunState, is_alive, read_state
from thinvirt.vm.stages import BootWatch, Source

READ_AT_ONCE = 256 << 10  # bytes of one log per look: a flood on one VM does not hold up the others
PROMPT_SETTLES_S = 0.1  # a prompt is believed when nothing has taken it back for so long
SSH_PATIENCE_S = 5.0  # a guest that is just booting may swallow a connection
AGENT_PATIENCE_S = 2.0
RETRY_S = 0.5
_LAST_WORDS = 4096


class LogTail:
    """Reads a file as it grows, holding only a position."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._inode = 0

    def read(self, limit: int = READ_AT_ONCE) -> tuple[bytes, float, bool]:
        """Return what is new, when it was written at the latest, and whether the file is a new one.

        At most `limit` bytes; the time in seconds since the epoch. A file that is not there yet is
        empty; one that was emptied or replaced since the last look is read from its beginning.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return b"", 0.0, False
        anew = self._inode not in (0, status.st_ino) or status.st_size < self._position
        self._inode = status.st_ino
        if anew:
            self._position = 0
        if status.st_size == self._position:
            return b"", status.st_mtime, anew
        with self._path.open("rb") as file:
            data = os.pread(file.fileno(), limit, self._position)
        self._position += len(data)
        return data, status.st_mtime, anew


@dataclass(slots=True)
class GuestWatch:
    """One VM as it boots.

    Attributes:
        folder: its files.
        name: the host name its guest should have.
        boot: the stages of its boot.
        state: the facts of its QEMU; the last known ones once that has ended.
        alive: whether its QEMU lived at the last look.
        seen_alive: whether it did at any.
    """

    folder: VmFolder
    name: str
    boot: BootWatch = field(init=False)
    state: RunState | None = None
    alive: bool = False
    seen_alive: bool = False
    started_at: float = 0.0
    _tails: dict[Source, LogTail] = field(init=False)
    _caught_up: bool = False
    _state_written: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """Begin at the beginning of what is recorded."""
        self._begin()

    def _begin(self) -> None:
        self.boot = BootWatch(expected_hostname=self.name)
        self._tails = {
            Source.SERIAL: LogTail(self.folder.console_log),
            Source.FIRMWARE: LogTail(self.folder.firmware_log),
        }
        self._caught_up = False

    def look(self) -> bool:
        """Take in what is new and return whether the stage, or whether it lives, changed."""
        before = self.alive, self.boot.stage, self.boot.boots
        self._look_at_process()
        if self.seen_alive:
            self._read_logs()
        return (self.alive, self.boot.stage, self.boot.boots) != before

    def _look_at_process(self) -> None:
        self.alive = is_alive(self.folder.run)
        if not self.alive:
            return
        self.seen_alive = True
        try:
            written = self.folder.state.stat()
        except FileNotFoundError:  # being started: its facts are not written yet
            self.started_at = self.started_at or time.time()
            return
        if (written.st_ino, written.st_mtime_ns) == self._state_written:
            return
        state = read_state(self.folder.run)
        if state is not None:
            if self.state is not None:  # another QEMU than at the last look
                self._begin()
            self.state = state
            self.started_at = state.started_at
            self._state_written = written.st_ino, written.st_mtime_ns

    def _read_logs(self) -> None:
        # Read in this order, fed in the other: whatever the guest said was said after what the
        # firmware said before it, and that has then been read too.
        serial = self._tails[Source.SERIAL].read()
        firmware = self._tails[Source.FIRMWARE].read()
        if serial[2]:
            self._begin()
            serial = self._tails[Source.SERIAL].read()
            firmware = self._tails[Source.FIRMWARE].read()
        pieces = [(firmware, Source.FIRMWARE), (serial, Source.SERIAL)]
        if not self._caught_up:  # printed before the first look: only the files tell the order
            pieces.sort(key=lambda piece: piece[0][1])
        now = time.time()
        for (data, written_at, _), source in pieces:
            # The file knows better than we when it was written, even of what we see at once.
            at = min(now, written_at or now)
            self.boot.feed(data, max(0.0, at - self.started_at), source)
        self._caught_up = all(len(data) < READ_AT_ONCE for (data, _, _), _ in pieces)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the VM was started."""
        return max(0.0, time.time() - self.started_at) if self.started_at else 0.0

    @property
    def login_at_s(self) -> float | None:
        """When the login prompt was shown, in seconds since the start; None if it is not there."""
        seen = self.boot.reached.get("login")
        if seen is None or not self.boot.at_login:
            return None
        return seen.at_s if self.elapsed_s - seen.at_s >= PROMPT_SETTLES_S else None

    def last_words(self) -> str:
        """Return the last line QEMU itself wrote, "" if it wrote nothing."""
        try:
            with self.folder.qemu_log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_WORDS))
                lines = file.read().decode(errors="replace").split("\n")
        except FileNotFoundError:
            return ""
        words = [line.strip() for line in lines if line.strip()]
        return words[-1] if words else ""


class SshProbe:
    """Asks again and again, without blocking, whether an SSH server answers with its banner.

    That a port can be connected to proves nothing: QEMU's user network accepts first and tries to
    reach the guest afterwards.
    """

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self._target = (address, port)
        self._socket: socket.socket | None = None
        self._received = b""
        self._next = 0.0

    def ask(self, now: float) -> bool:
        """Return whether the banner has come; `now` is a monotonic time."""
        if self._socket is None:
            if now < self._next:
                return False
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            self._received = b""
            self._next = now + SSH_PATIENCE_S
            self._socket.connect_ex(self._target)
        try:
            data = self._socket.recv(256)
        except (BlockingIOError, InterruptedError):
            if now >= self._next:
                self._give_up(now)
            return False
        except OSError:
            self._give_up(now)
            return False
        self._received += data
        if b"SSH-" in self._received:
            self.close()
            return True
        if not data or len(self._received) > 4096:
            self._give_up(now)
        return False

    def _give_up(self, now: float) -> None:
        self.close()
        self._next = now + RETRY_S

    def close(self) -> None:
        """Let go of the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


_sync_ids = itertools.count(int(time.monotonic() * 1000) & 0x3FFFFFFF)


class AgentProbe:
    """Asks again and again, without blocking, whether the guest agent answers guest-sync.

    The channel has room for one client: it is left between two questions.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._id = 0
        self._received = b""
        self._next = 0.0

    def ask(self, now: float) -> bool:
        """Return whether the agent has answered; `now` is a monotonic time."""
        if self._socket is None:
            if now >= self._next:
                self._send(now)
            return False
        try:
            data = self._socket.recv(4096)
        except BlockingIOError:
            if now >= self._next:
                self._give_up(now)
            return False
        except OSError:
            data = b""
        self._received = (self._received + data)[-8192:]
        if any(self._is_answer(line) for line in self._received.split(b"\n")):
            self.close()
            return True
        if not data:
            self._give_up(now)
        return False

    def _send(self, now: float) -> None:
        self._id = next(_sync_ids) & 0x7FFFFFFF
        question = {"execute": "guest-sync-delimited", "arguments": {"id": self._id}}
        self._received = b""
        self._next = now + AGENT_PATIENCE_S
        try:
            self._socket = sockets.connect(self._path, timeout_s=0)
            # 0xFF empties the agent's parser of what an earlier client may have left half said.
            self._socket.send(b"\xff" + json.dumps(question).encode() + b"\n")
        except OSError:  # nobody listens yet, or the channel is full: asked again later
            self._give_up(now)

    def _is_answer(self, line: bytes) -> bool:
        try:
            answer = json.loads(line.rpartition(b"\xff")[2] or b"null")
        except ValueError:
            return False
        return isinstance(answer, dict) and answer.get("return") == self._id

    def _give_up(self, now: float) -> None:
        self.close()
        self._next = now + RETRY_S

    def close(self) -> None:
        """Leave the channel to the next client."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
