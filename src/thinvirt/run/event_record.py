"""What QEMU itself records of its events, for whoever looks after it has ended.

A control monitor (QMP) whose two directions are a FIFO and a file: QEMU's "pipe" character device.
QEMU says nothing on it before it has been told ``qmp_capabilities``; from then on every event is in
the file, also when nobody watches and though QEMU ends right after it.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELLO = b'{"execute": "qmp_capabilities"}\n'
_IN, _OUT = ".in", ".out"  # what QEMU appends to the path it is given
_MAX_BYTES = 16 << 20  # a record is a few hundred bytes; a guest that floods it is not read


def prepare(path: Path) -> None:
    """Make an empty record; an older one is gone."""
    forget(path)
    os.mkfifo(_with(path, _IN), 0o600)
    os.close(os.open(_with(path, _OUT), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def begin(path: Path) -> None:
    """Let a QEMU that has opened the record write into it.

    Raises:
        OSError: no QEMU has it open.
    """
    fifo = _with(path, _IN)
    fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, HELLO)
    finally:
        os.close(fd)
    fifo.unlink()  # QEMU keeps it open in both directions: it never sees an end of it


def forget(path: Path) -> None:
    """Remove a record, if there is one."""
    for suffix in (_IN, _OUT):
        _with(path, suffix).unlink(missing_ok=True)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the messages of a record, oldest first; none if there is no record."""
    try:
        fd = os.open(_with(path, _OUT), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return
        lines = file.read(_MAX_BYTES).splitlines()
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:  # cut off: QEMU was killed while it wrote
            continue
        if isinstance(message, dict):
            yield message


def _with(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
