"""Between the engine and the kernel: notes every change of files in a folder, or lets one fail.

The calls themselves are the real ones. What was noted can be replayed up to any point, or with
writes missing that no flush had made durable: the states that a crash leaves.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import unpack_from
from typing import Any, Literal

import pytest

from thinvirt.image.block.fallocate import _PUNCH, _RESERVE, _SPACE, _ZERO

PAGE = 4096
Mode = Literal["once", "forever", "full"]


@dataclass(frozen=True, slots=True)
class Event:
    """A call that changed a file, or made it durable.

    Attributes:
        kind: write, zero, size, sync, make or drop.
        name: of the file within the folder.
        offset: in the file; the new length for size.
        data: for write.
        length: for zero.
    """

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""
    length: int = 0


class Journal:
    """Patches the calls by which files are changed.

    Attributes:
        events: what was done.
        calls: how many calls there were, those that failed included.
        fail_at: the number of the call that fails, counted from 0; None for none.
        mode: whether that call alone fails, all from it on, or all from it on that need more space.
        number: the errno it fails with.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder) + "/"
        self.events: list[Event] = []
        self.calls = 0
        self.fail_at: int | None = None
        self.mode: Mode = "once"
        self.number = errno.EIO
        self.failed = 0

    def fail(self, at: int, mode: Mode, number: int) -> None:
        """Let a call fail."""
        self.fail_at, self.mode, self.number = at, mode, number

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Patch the calls while the block runs."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("pwrite", "ftruncate", "posix_fallocate", "copy_file_range", "open"):
                patch.setattr(os, name, self._wrapped(getattr(self, "_" + name), getattr(os, name)))
            for name in ("fsync", "fdatasync"):
                patch.setattr(os, name, self._wrapped(self._sync, getattr(os, name)))
            patch.setattr(os, "unlink", self._wrapped(self._unlink, os.unlink))
            patch.setattr(fcntl, "ioctl", self._wrapped(self._ioctl, fcntl.ioctl))
            yield

    @staticmethod
    def _wrapped(ours: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            return ours(real, *arguments, **options)

        return call

    def _name(self, fd: int) -> str | None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        return path.removeprefix(self.folder) if path.startswith(self.folder) else None

    def _count(self, *, grows: bool = False) -> bool:
        """Count a call; return whether it has to fail."""
        number, self.calls = self.calls, self.calls + 1
        if self.fail_at is None or number < self.fail_at:
            return False
        doomed = {"once": number == self.fail_at, "forever": True, "full": grows}[self.mode]
        self.failed += doomed
        return doomed

    def _raise(self) -> None:
        raise OSError(self.number, os.strerror(self.number))

    def _pwrite(self, real: Callable[..., int], fd: int, data: Any, offset: int) -> int:
        name = self._name(fd)
        if name is None:
            return real(fd, data, offset)
        raw = bytes(data)
        grows = offset + len(raw) > os.fstat(fd).st_size
        if self._count(grows=grows):
            half = len(raw) // 2 // 512 * 512
            if self.mode != "full" or self.failed > 1 or not half:
                self._raise()
            raw = raw[:half]  # as much as there was room for
        done = real(fd, raw, offset)
        self.events.append(Event("write", name, offset, raw[:done]))
        return done

    def _ftruncate(self, real: Callable[..., None], fd: int, size: int) -> None:
        name = self._name(fd)
        if name is not None and self._count():
            self._raise()
        real(fd, size)
        if name is not None:
            self.events.append(Event("size", name, size))

    def _posix_fallocate(
        self, real: Callable[..., None], fd: int, offset: int, length: int
    ) -> None:
        name = self._name(fd)
        if name is not None and self._count(grows=True):
            self._raise()
        before = os.fstat(fd).st_size
        real(fd, offset, length)
        if name is not None and offset + length > before:
            self.events.append(Event("size", name, offset + length))

    def _copy_file_range(
        self, real: Callable[..., int], source: int, target: int, count: int, **places: int
    ) -> int:
        name = self._name(target)
        at = places["offset_dst"]
        if name is not None and self._count(grows=at + count > os.fstat(target).st_size):
            self._raise()
        done = real(source, target, count, **places)
        if name is not None:
            self.events.append(Event("write", name, at, os.pread(target, done, at)))
        return done

    def _ioctl(
        self, real: Callable[..., Any], fd: int, request: int, argument: Any = 0, *more: Any
    ) -> Any:
        name = self._name(fd)
        if name is None or request not in (_PUNCH, _RESERVE, _ZERO):
            return real(fd, request, argument, *more)
        if self._count(grows=request == _RESERVE):
            self._raise()
        real(fd, request, argument, *more)
        _, _, offset, length, *_ = unpack_from(_SPACE.format, argument)
        end = min(offset + length, os.fstat(fd).st_size)
        if request != _RESERVE and end > offset:
            self.events.append(Event("zero", name, offset, length=end - offset))
        return None

    def _sync(self, real: Callable[..., None], fd: int) -> None:
        name = self._name(fd)
        if name is None:
            real(fd)
            return
        if self._count():
            self._raise()
        self.events.append(Event("sync", name))  # and that is all: no power fails here

    def _open(
        self, real: Callable[..., int], path: Any, flags: int, *more: Any, **options: Any
    ) -> int:
        is_new = flags & os.O_CREAT and isinstance(path, str) and not os.path.exists(path)
        fd = real(path, flags, *more, **options)
        if is_new and (name := self._name(fd)) is not None:
            self.events.append(Event("make", name))
        return fd

    def _unlink(self, real: Callable[..., None], path: Any, **options: Any) -> None:
        full = os.path.realpath(path)
        if full.startswith(self.folder) and self._count():
            self._raise()
        real(path, **options)
        if full.startswith(self.folder):
            self.events.append(Event("drop", full.removeprefix(self.folder)))


# ---------------------------------------------------------------- replay

Files = dict[str, bytearray]


def snapshot(folder: Path) -> Files:
    """Return the files of a folder."""
    return {path.name: bytearray(path.read_bytes()) for path in folder.iterdir() if path.is_file()}


def restore(files: Files, folder: Path) -> None:
    """Make a folder hold these files and no others."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        path = folder / name
        if not path.exists() or path.stat().st_size != len(content) or path.read_bytes() != content:
            path.write_bytes(content)


def apply(files: Files, event: Event) -> None:
    """Do what an event did."""
    if event.kind == "drop":
        files.pop(event.name, None)
        return
    content = files.setdefault(event.name, bytearray())
    match event.kind:
        case "write":
            end = event.offset + len(event.data)
            if end > len(content):
                content.extend(bytes(end - len(content)))
            content[event.offset : end] = event.data
        case "zero":
            end = min(event.offset + event.length, len(content))
            if end > event.offset:
                content[event.offset : end] = bytes(end - event.offset)
        case "size":
            del content[event.offset :]
            content.extend(bytes(event.offset - len(content)))


def copied(files: Files) -> Files:
    """Return a copy."""
    return {name: bytearray(content) for name, content in files.items()}


def killed(start: Files, events: list[Event], count: int) -> Files:
    """Return what a process leaves that is killed after so many calls: nothing is lost."""
    files = copied(start)
    for event in events[:count]:
        apply(files, event)
    return files


def power_failed(
    start: Files, events: list[Event], count: int, keeps: Callable[[], float]
) -> Files:
    """Return what is left when power fails after so many calls.

    Of the calls since a file's last flush each page of the file has seen the first few only; the
    file's size is one of those that it had.

    Args:
        start: the files before.
        events: what was done.
        count: how many of the events took place.
        keeps: asked for every page: which part of what was done to it, 0 to 1, was durable.
    """
    files = copied(start)
    done = events[:count]
    synced = {event.name: number for number, event in enumerate(done) if event.kind == "sync"}
    pending: dict[tuple[str, int], list[Event]] = {}
    for number, event in enumerate(done):
        if number <= synced.get(event.name, -1) or event.kind in {"make", "drop"}:
            apply(files, event)
        elif event.kind == "size":
            pending.setdefault((event.name, -1), []).append(event)
        elif event.kind != "sync":
            for piece in _pages(event):
                pending.setdefault((event.name, piece.offset // PAGE), []).append(piece)
    for pieces in pending.values():
        for piece in pieces[: round(keeps() * len(pieces))]:
            apply(files, piece)
    return files


def _pages(event: Event) -> Iterator[Event]:
    length = event.length or len(event.data)
    at = event.offset
    while at < event.offset + length:
        end = min(at // PAGE * PAGE + PAGE, event.offset + length)
        data = event.data[at - event.offset : end - event.offset]
        yield Event(event.kind, event.name, at, data, 0 if data else end - at)
        at = end
