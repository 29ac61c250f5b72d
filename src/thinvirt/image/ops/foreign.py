"""Make a self-contained qcow2 of an image in another format, or of a chain of overlays."""

import os
from contextlib import ExitStack
from pathlib import Path

from thinvirt.errors import CorruptImage, HostileImage, UnsupportedFeature
from thinvirt.image.block.hostfile import (
    naming,
    opened_for_reading,
    os_errors,
    read_exactly,
    sync_directory,
)
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.first_cluster import FirstCluster
from thinvirt.image.formats.text import printable
from thinvirt.image.ops import qemu_img
from thinvirt.image.ops.screen import FOREIGN
from thinvirt.progress import Progress, Silent

_SILENT = Silent()


def convert_foreign(
    source: Path, target: Path, *, source_format: str, progress: Progress = _SILENT
) -> None:
    """Convert an image that `screen` has accepted to the new qcow2 `target`.

    Args:
        source: the image.
        target: must not exist; nothing is left behind if the conversion fails.
        source_format: what `screen` said; never guessed by QEMU.
        progress: told percents.

    Raises:
        ProgramMissing: there is no qemu-img.
        Conflict: `target` exists.
        NoSpace: the file system is full.
        ImageError: qemu-img failed; the message quotes it.
    """
    if source_format not in FOREIGN | {"raw", "qcow2"}:
        raise UnsupportedFeature(f"images of format {source_format} are not converted", path=source)
    _convert(source, target, source_format, progress, f"converting {source.name}")


def flatten(source: Path, target: Path, *, progress: Progress = _SILENT) -> None:
    """Write what a guest sees through an overlay and all it stands on into the new qcow2 `target`.

    The chain must be one of ours: every layer a qcow2 that records its backing file's format, so
    that QEMU guesses nothing.

    Args:
        source: the topmost overlay; nobody may be writing to it.
        target: must not exist; nothing is left behind on failure.
        progress: told percents.

    Raises:
        ProgramMissing: there is no qemu-img.
        Conflict: `target` exists.
        NoSpace: the file system is full.
        HostileImage: a layer's format is not recorded.
        ImageError: the chain is broken, or qemu-img failed.
    """
    check_chain(source)
    _convert(source, target, "qcow2", progress, f"flattening {source.name}")


def check_chain(top: Path) -> list[Path]:
    """Return the files of a chain, from the overlay `top` to its base, all formats recorded.

    Raises:
        CorruptImage: a loop, or deeper than anything sensible.
        HostileImage: a layer does not record the format of what it stands on.
        NotFound: a layer is not there.
    """
    chain: list[Path] = []
    identities: set[tuple[int, int]] = set()
    path, image_format = top, "qcow2"
    while True:
        with opened_for_reading(path) as fd, os_errors(path, "read"), naming(path):
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) in identities:
                raise CorruptImage("the backing chain comes back to this file")
            if len(chain) == limits.MAX_CHAIN_DEPTH:
                raise CorruptImage(f"the backing chain is deeper than {limits.MAX_CHAIN_DEPTH}")
            identities.add((status.st_dev, status.st_ino))
            chain.append(path)
            if image_format == "raw":
                return chain
            head = read_exactly(fd, min(status.st_size, limits.MAX_HEADER_READ), 0)
            first = FirstCluster.unpack(head)
        if not first.backing_name:
            return chain
        image_format = first.backing_format
        if image_format not in {"qcow2", "raw"}:
            raise _format_unknown(path, first)
        path = path.parent / first.backing_name


def _format_unknown(path: Path, first: FirstCluster) -> HostileImage:
    name, recorded = printable(first.backing_name), printable(first.backing_format)
    if recorded:
        return HostileImage(f"the backing file is said to be of format '{recorded}'", path=path)
    return HostileImage(
        "the format of the backing file is not recorded, so QEMU would guess it",
        path=path,
        hint=f"if you know that it is a qcow2: qemu-img rebase -u -b {name} -F qcow2 {path}",
    )


def _convert(
    source: Path, target: Path, source_format: str, progress: Progress, title: str
) -> None:
    """Let qemu-img write into a file that we have made, so that an existing one is never lost."""
    with ExitStack() as undo:
        with os_errors(target, "create the image"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(target, flags, 0o644)
            undo.callback(target.unlink, missing_ok=True)
            undo.callback(os.close, fd)
        names = [str(source.absolute()), str(target.absolute())]
        arguments = ["-f", source_format, "-O", "qcow2", "--", *names]
        qemu_img.convert(arguments, progress=progress, title=title, target=target)
        with os_errors(target, "make the image durable"):
            os.fsync(fd)
            sync_directory(target.parent)
        undo.pop_all()
        os.close(fd)
