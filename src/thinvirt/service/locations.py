"""What ``--location`` names: a tree of files or an installation disc, and what is booted from it.

A disc is read without mounting it, hence without root; kernel and initial RAM disk are copied out
of it into the store, where they stay until the installer is done.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from thinvirt.errors import NotFound, UsageError
from thinvirt.vm.install_trees import TREEINFO_NAMES, boot_files, is_inside

if TYPE_CHECKING:
    from pycdlib import PyCdlib

    from thinvirt.service.os_knowledge import OsKnowledge
    from thinvirt.vm.osinfo.records import OsInfo

_MAX_TREEINFO: Final = 1 << 20
_MAX_BOOT_FILE: Final = 1 << 30  # bytes; the largest initial RAM disks have a few hundred MiB
_SCHEMES: Final = ("http:", "https:", "ftp:", "nfs:")


class NotAnInstaller(UsageError):
    """A place that was named as an installer's and has no kernel where installers keep theirs."""

    kind = "not-an-installer"


@dataclass(frozen=True, slots=True)
class Location:
    """What was asked for.

    Attributes:
        place: a folder or an ISO.
        kernel, initrd: paths in it, "" to look for them.
    """

    place: str
    kernel: str = ""
    initrd: str = ""


@dataclass(frozen=True, slots=True)
class BootFiles:
    """The installer's kernel and initial RAM disk.

    Attributes:
        place: the folder or disc, with its whole path.
        is_disc: whether it is a disc: then the two are copied.
        kernel, initrd: their paths below it.
        treeinfo: what the tree says of itself, "" if it says nothing.
    """

    place: Path
    is_disc: bool
    kernel: str
    initrd: str
    treeinfo: str = ""

    def copy(self, kernel: Path, initrd: Path) -> None:
        """Copy the two out of the disc, durably, readable by their owner only.

        Raises:
            NotAnInstaller: the disc is damaged.
            NoSpace: the file system is full.
        """
        with _opened(self.place) as tree:
            for name, path in ((self.kernel, kernel), (self.initrd, initrd)):
                tree.copy(name, path)


class _Tree(Protocol):
    def has(self, path: str) -> bool: ...

    def text(self, path: str) -> str: ...

    def copy(self, path: str, to: Path) -> None: ...


def find_boot_files(location: Location) -> BootFiles:
    """Return what is booted from a location.

    Raises:
        NotFound: it is not there, or has not got the files that were named.
        NotAnInstaller: it is neither a folder nor a disc, or has no kernel in a known place.
        UsageError: it is a URL, or one of two files was named alone.
    """
    if location.place.startswith(_SCHEMES):
        raise UsageError(
            f"--location {location.place}: the installer is read from this host",
            hint="fetch its ISO, or its kernel and initrd: --install kernel=FILE,initrd=FILE",
        )
    if bool(location.kernel) != bool(location.initrd):
        raise UsageError("--location: kernel= and initrd= go together")
    place = Path(location.place).absolute()
    if not place.exists():
        raise NotFound(f"--location: there is no '{place}'")
    with _opened(place) as tree:
        treeinfo = next((tree.text(name) for name in TREEINFO_NAMES if tree.has(name)), "")
        if location.kernel:
            for name in (location.kernel, location.initrd):
                if not is_inside(name.lstrip("/")) or not tree.has(name.lstrip("/")):
                    raise NotFound(f"--location: there is no '{name}' in '{place}'")
            found = location.kernel.lstrip("/"), location.initrd.lstrip("/")
        else:
            known = boot_files(tree.has, treeinfo)
            if known is None:
                raise NotAnInstaller(
                    f"--location: '{place}' has no installer's kernel in any known place",
                    hint=f"--location {place},kernel=PATH,initrd=PATH if it has one; "
                    "--cdrom boots a disc by itself",
                )
            found = known
        return BootFiles(place, place.is_file(), *found, treeinfo)


def os_of(knowledge: "OsKnowledge", files: BootFiles) -> "OsInfo | None":
    """Return the system that an installer is of; None if it is not known."""
    from thinvirt.vm.osinfo.media import NotIso

    if files.is_disc:
        try:
            return knowledge.detect(files.place).os
        except (NotFound, NotIso):
            return None
    found = knowledge.detect_tree(files.treeinfo) if files.treeinfo else None
    return found.os if found is not None else None


@contextmanager
def _opened(place: Path) -> Iterator[_Tree]:
    if place.is_dir():
        yield _Folder(place)
        return
    from pycdlib import PyCdlib
    from pycdlib.pycdlibexception import PyCdlibException

    disc = PyCdlib()
    try:
        disc.open(str(place))
    except (PyCdlibException, OSError, ValueError, IndexError, RecursionError) as error:
        raise NotAnInstaller(
            f"--location: '{place}' is neither a folder nor a disc that can be read ({error})",
            hint="an ISO file, or a folder with the tree of files",
        ) from error
    try:
        yield _Disc(place, disc)
    finally:
        disc.close()


class _Folder:
    """A tree of files."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, path: str) -> bool:
        return (self._root / path).is_file()

    def text(self, path: str) -> str:
        with (self._root / path).open("rb") as file:
            return file.read(_MAX_TREEINFO).decode("utf-8", "replace")

    def copy(self, path: str, to: Path) -> None:
        raise ValueError("files of a folder are used where they are")


class _Disc:
    """An ISO 9660 image, by the best of its directories: Rock Ridge, Joliet, UDF, or plain."""

    def __init__(self, place: Path, disc: "PyCdlib") -> None:
        self._place = place
        self._disc = disc
        if disc.has_rock_ridge():
            self._kind = "rr_path"
        elif disc.has_joliet():
            self._kind = "joliet_path"
        elif disc.has_udf():
            self._kind = "udf_path"
        else:
            self._kind = "iso_path"

    def has(self, path: str) -> bool:
        from pycdlib.pycdlibexception import PyCdlibException

        try:
            record = self._disc.get_record(**self._named(path))
        except (PyCdlibException, ValueError, IndexError):
            return False
        return bool(record is not None and record.is_file())

    def text(self, path: str) -> str:
        return self._read(path, _MAX_TREEINFO).decode("utf-8", "replace")

    def copy(self, path: str, to: Path) -> None:
        data = self._read(path, _MAX_BOOT_FILE)
        fd = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)

    def _named(self, path: str) -> dict[str, str]:
        if self._kind != "iso_path":
            return {self._kind: f"/{path}"}
        *folders, name = path.upper().split("/")
        dotted = name if "." in name else f"{name}."
        return {self._kind: "/" + "/".join([*folders, f"{dotted};1"])}

    def _read(self, path: str, limit: int) -> bytes:
        from pycdlib.pycdlibexception import PyCdlibException

        try:
            with self._disc.open_file_from_iso(**self._named(path)) as file:
                length: int = file.length()
                if length > limit:
                    raise NotAnInstaller(
                        f"'{path}' in '{self._place}' has {length} bytes: that is too much"
                    )
                data: Any = file.read(limit)
        except (PyCdlibException, ValueError, IndexError) as error:
            raise NotAnInstaller(f"'{path}' in '{self._place}' cannot be read: {error}") from error
        if len(data) != length:
            raise NotAnInstaller(
                f"'{path}' in '{self._place}' is cut off: {len(data)} of {length} bytes are there",
                hint="fetch the disc again, and compare its checksum",
            )
        return bytes(data)
