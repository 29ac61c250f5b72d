"""Create empty copy-on-write overlays, one or a whole batch."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from thinvirt.errors import Conflict, UsageError
from thinvirt.image.block.flush import BackgroundSync
from thinvirt.image.block.hostfile import (
    explain,
    os_errors,
    sync_directory,
    write_fully,
)
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.empty import EmptyImage, empty_image
from thinvirt.image.formats.qcow2.geometry import Geometry
from thinvirt.progress import Progress, Silent

_SILENT = Silent()
_MODE = 0o644  # before the umask, as qemu-img has it
# So few are flushed one by one: a flush of the whole file system would also wait for whatever else
# is being written to it, which may be gigabytes.
_FEW = 16
_FLUSH_EVERY = 256  # overlays: the disk works on these while the next are written
_REPORT_EVERY = 64  # overlays: a call of the progress for each would cost as much as the overlay


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayOptions:
    """What all overlays of a batch have in common.

    Attributes:
        virtual_size: bytes of the guest's disk; may be larger than the backing file's.
        backing_name: the backing file as stored, seen from the overlay's own folder.
        backing_format: "qcow2" or "raw"; always recorded, so that nobody has to guess it.
        cluster_size: bytes.
        extended_l2: allocate by subclusters of a 32nd cluster: a small guest write then copies
            4 KiB instead of 64. QEMU reads it since 5.2; False is for tools that cannot.
    """

    virtual_size: int
    backing_name: str
    backing_format: str
    cluster_size: int = limits.DEFAULT_CLUSTER_SIZE
    extended_l2: bool = True

    def lay_out(self) -> EmptyImage:
        """Return the bytes of such an overlay.

        Raises:
            UsageError: a size, name or format that cannot be.
        """
        if not 0 < self.virtual_size <= limits.MAX_VIRTUAL_SIZE:
            raise UsageError(f"a disk of {self.virtual_size} bytes cannot be")
        return empty_image(
            virtual_size=self.virtual_size,
            geometry=Geometry.of(self.cluster_size, extended_l2=self.extended_l2),
            backing_name=_checked_backing_name(self.backing_name),
            backing_format=_checked_format(self.backing_format),
        )


def create_overlay(path: Path, options: OverlayOptions, *, durable: bool = True) -> None:
    """Create the overlay `path`, which must not exist; nothing is left behind if that fails.

    Args:
        path: the new file, in an existing folder.
        options: size, backing file and format.
        durable: return only when the overlay would survive a power cut.

    Raises:
        Conflict: `path` exists already.
        NoSpace: the file system is full.
        UsageError: the options cannot be.
    """
    image = options.lay_out()
    with os_errors(path, "create the overlay"):
        _write_new(path, image, None, durable=durable)
        if durable:
            with ExitStack() as undo:
                undo.callback(path.unlink, missing_ok=True)
                sync_directory(path.parent)
                undo.pop_all()


def create_overlays(
    directory: Path,
    names: Sequence[str],
    options: OverlayOptions,
    *,
    durable: bool = True,
    progress: Progress = _SILENT,
) -> None:
    """Create one overlay per name in `directory`: all of them, or none.

    Args:
        directory: made if it is not there (its parent must be).
        names: plain file names, none of which exists.
        options: the same for all.
        durable: return only when all of them, and their names, would survive a power cut.
        progress: told the number of overlays.

    Raises:
        Conflict: one of the names exists already.
        NoSpace: the file system is full.
        UsageError: names or options cannot be.
    """
    image = options.lay_out()
    _check_names(names)
    progress.step("writing overlays", len(names), "overlays")
    with ExitStack() as undo, ExitStack() as close:
        with os_errors(directory, "make the folder"):
            is_new = _make_directory(directory)
            if is_new:
                undo.callback(directory.rmdir)
            directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            close.callback(os.close, directory_fd)
        made: list[str] = []
        undo.callback(_remove, directory, made)
        flush = BackgroundSync(directory_fd) if durable and len(names) > _FEW else None
        if flush is not None:
            close.callback(flush.wait)  # before the descriptor is closed
        writer = _Writer(directory, directory_fd, image, durable and flush is None)
        _write_batch(writer, names, made=made, flush=flush, progress=progress)
        with os_errors(directory, "make the overlays durable"):
            if flush is not None:
                flush.finish()
            elif durable:
                sync_directory(directory)
                if is_new:
                    sync_directory(directory.parent)
        undo.pop_all()


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the overlays of one batch, each by the name it has in the batch's folder."""

    directory: Path
    directory_fd: int
    image: EmptyImage
    durable: bool  # flush each file by itself

    def write(self, name: str) -> None:
        try:
            _write_new(name, self.image, self.directory_fd, durable=self.durable)
        except OSError as error:
            raise explain(error, self.directory / name, "create the overlay") from error


def _write_batch(
    writer: _Writer,
    names: Sequence[str],
    *,
    made: list[str],
    flush: BackgroundSync | None,
    progress: Progress,
) -> None:
    """Write all overlays, noting in `made` which are there."""
    reported = 0
    for count, name in enumerate(names, 1):
        writer.write(name)
        made.append(name)
        if count % _REPORT_EVERY == 0:
            progress.advance(count - reported)
            reported = count
        if flush is not None and count % _FLUSH_EVERY == 0:
            flush.start()
    progress.advance(len(names) - reported)


def _write_new(
    name: str | Path, image: EmptyImage, directory_fd: int | None, *, durable: bool
) -> None:
    """Write one new file; remove it again if that fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(name, flags, _MODE, dir_fd=directory_fd)
    try:
        for offset, data in image.writes:
            write_fully(fd, data, offset)
        os.ftruncate(fd, image.length)
        if durable:
            os.fsync(fd)
    except BaseException:  # Ctrl-C as well: a half-written overlay must not stay
        os.unlink(name, dir_fd=directory_fd)
        raise
    finally:
        os.close(fd)


def _make_directory(directory: Path) -> bool:
    """Make the folder; return whether it was not there before."""
    try:
        directory.mkdir()
    except FileExistsError:
        return False
    return True


def _remove(directory: Path, names: Sequence[str]) -> None:
    """Unlink what a failed batch has made."""
    for name in names:
        (directory / name).unlink(missing_ok=True)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not name or "/" in name or "\0" in name or name in {".", ".."}:
            raise UsageError(f"'{name}' is no plain file name")
    if len(set(names)) != len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise Conflict(f"the name '{twice}' is given twice")


def _checked_backing_name(name: str) -> bytes:
    """Return the name's bytes as they go into the header."""
    raw = os.fsencode(name)
    if not raw or b"\0" in raw:
        raise UsageError("an overlay needs the name of its backing file")
    if len(raw) > limits.MAX_BACKING_NAME:
        raise UsageError(
            f"the backing file's name is {len(raw)} bytes long, {limits.MAX_BACKING_NAME} "
            "are possible",
            hint="shorten the path between the overlay and its template",
        )
    if ":" in name.split("/", 1)[0]:  # QEMU would read what stands before it as a protocol
        raise UsageError(
            f"QEMU would not take '{name}' for a file: a colon stands before the first slash",
            hint=f"write ./{name}",
        )
    return raw


def _checked_format(name: str) -> str:
    if name not in {"qcow2", "raw"}:
        raise UsageError(f"an overlay stands on a qcow2 or raw image, not on '{name}'")
    return name
