"""What the drop-in writes: output in one piece, messages in order with it, errors as qemu-img's.

Text goes to the descriptors directly: `sys.stdout` would have to be told of file names that are not
UTF-8, and costs more than the output.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from thinvirt.image.block.errors import BlockError

_ENOUGH = 1 << 16  # characters kept back at most
_TOGETHER = 100  # findings written at once
_BLOCK = 4096  # bytes that C's standard output keeps back where it is no terminal


class Exit(Exception):
    """The command is over, with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class OutputFailed(Exception):
    """Standard output or error cannot be written; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Console:
    """Standard output and error of one run.

    Attributes:
        program: the name messages begin with.
        has_failed: an error was told.
    """

    def __init__(self) -> None:
        self.program = "thin-img"
        self.has_failed = False
        self._parts: list[str] = []
        self._length = 0
        self._findings: list[str] = []

    def finding(self, text: str) -> None:
        """Tell what a check found: written to standard error, past the output that waits.

        A damaged image may have millions of them, so that some are written together.
        """
        self._findings.append(text)
        if len(self._findings) >= _TOGETHER:
            self._flush_findings()

    def _flush_findings(self) -> None:
        if self._findings:
            self._findings.append("")
            text = "\n".join(self._findings)
            self._findings.clear()
            _write_all(2, text.encode(errors="surrogateescape"))

    def write(self, text: str) -> None:
        """Add to the output; it is seen at the next flush."""
        self._parts.append(text)
        self._length += len(text)
        if self._length >= _ENOUGH:
            self._spill()

    def line(self, text: str) -> None:
        """Add a line to the output."""
        self.write(text + "\n")

    def flush(self) -> None:
        """Hand on what was written.

        Raises:
            OutputFailed: it cannot be; a reader that went away is no error, as with qemu-img.
        """
        self._flush_findings()
        text = "".join(self._parts)
        self._parts.clear()
        self._length = 0
        if text:
            _write_all(1, text.encode(errors="surrogateescape"))

    def drop(self) -> None:
        """Forget what was not flushed yet: another program will do the work and say it."""
        self._parts.clear()
        self._length = 0

    def _spill(self) -> None:
        """Hand on the output as far as a C program would have done it by now.

        Who sends both standard output and error into one file sees them in qemu-img's order: it
        keeps back a last block that is not full. Under our own name the order is that of time.
        """
        self._flush_findings()
        if self.program != "qemu-img" or os.isatty(1):
            self.flush()
            return
        data = "".join(self._parts).encode(errors="surrogateescape")
        end = max(len(data) - 1, 0) // _BLOCK * _BLOCK
        if not end:
            return
        _write_all(1, data[:end])
        self._parts = [data[end:].decode(errors="surrogateescape")]
        self._length = len(self._parts[0])

    def message(self, text: str) -> None:
        """Write to standard error, after the output so far; `text` has its newlines."""
        self._spill()
        try:
            _write_all(2, text.encode(errors="surrogateescape"))
        except OutputFailed:
            return  # there is nowhere left to say so

    def error(self, text: str) -> None:
        """Print an error message."""
        self.has_failed = True
        self.message(f"{self.program}: {text}\n")

    def warning(self, text: str) -> None:
        """Print a warning."""
        self.message(f"{self.program}: warning: {text}\n")

    def notice(self, text: str) -> None:
        """Print what the block graph tells: "warning: …", "error: …", or lines as they are."""
        if text.startswith("error: "):
            self.error(text.removeprefix("error: "))
        elif text.startswith("warning: "):
            self.warning(text.removeprefix("warning: "))
        else:
            self.message(text + "\n")

    def block_error(self, error: BlockError, prefix: str = "") -> None:
        """Print an error of the block graph with its hint.

        QEMU's own hint is printed as it is. What else there is to say (who holds a lock) is said
        under our own name only: as qemu-img every byte is as from QEMU.
        """
        self.error(prefix + error.message)
        if error.qemu_hint:
            self.message(error.qemu_hint)
        if error.hint != error.qemu_hint.strip():
            self._advise(error.hint)

    def request_error(self, text: str, cause: BlockError) -> None:
        """Print an error of which QEMU says only the errno, and under our own name what it was."""
        self.error(text)
        if cause.message != cause.reason:
            self._advise(cause.message)
        self._advise(cause.hint)

    def _advise(self, text: str) -> None:
        if text and self.program != "qemu-img":
            self.message(f"{text}\n")

    def usage(self, text: str) -> NoReturn:
        """Print what is wrong with the command line and end.

        Raises:
            Exit: always.
        """
        self.error(text)
        self.message(f"Try '{self.program} --help' for more information\n")
        raise Exit(1)

    def fail(self, text: str, status: int = 1) -> NoReturn:
        """Print an error message and end.

        Raises:
            Exit: always.
        """
        self.error(text)
        raise Exit(status)


def _write_all(fd: int, raw: bytes) -> None:
    data = memoryview(raw)
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BrokenPipeError:
        return
    except OSError as error:
        raise OutputFailed(error.strerror or str(error)) from error


console = Console()


def program_name(word: str) -> str:
    """Return the name a program was called by, for messages."""
    return word.rpartition("/")[2] or os.path.basename(sys.executable)  # noqa: PTH119
