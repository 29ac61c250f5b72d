"""What the operating system and SQLite complain about, as errors that say what to do next."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thinvirt.errors import Busy, NoSpace, StoreUnusable, ThinvirtError

FULL = (errno.ENOSPC, errno.EDQUOT)
ELSEWHERE = "set THINVIRT_HOME to a directory that suits"


@contextmanager
def explained(home: Path) -> Iterator[None]:
    """Turn `OSError` and SQLite's errors from inside into ours; `home` is the store they hit.

    A full disk that the image layer met is told of as the store's: that layer names a file which
    is gone again when the message is read.
    """
    try:
        yield
    except NoSpace as error:
        if error.path is None or home not in error.path.parents:
            raise
        raise full(home) from error
    except OSError as error:
        raise explain_os_error(error, home) from error
    except sqlite3.Error as error:
        raise explain_sqlite_error(error, home) from error


def explain_os_error(error: OSError, home: Path) -> ThinvirtError:
    """Return our error for what the kernel refused."""
    place = Path(os.fsdecode(error.filename)) if error.filename else home
    if error.errno in FULL:
        return full(home)
    if error.errno == errno.EROFS:
        return read_only(home)
    if error.errno in (errno.EACCES, errno.EPERM):
        return not_ours(home, place)
    return StoreUnusable(f"the store cannot be used: {error.strerror or error}", path=place)


def explain_sqlite_error(error: sqlite3.Error, home: Path) -> ThinvirtError:
    """Return our error for what SQLite refused."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and is_full(home)):
        return full(home)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(
            f"other commands keep the catalogue of {home} locked", hint="try again in a moment"
        )
    refused = name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM"))
    if refused and (not os.access(home, os.W_OK) or _on_read_only_mount(home)):
        return read_only(home)
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return StoreUnusable(
            f"the catalogue of {home} is damaged: {error}",
            hint="the images are untouched: put back a copy of catalog.sqlite3, and keep this one",
        )
    return StoreUnusable(f"the catalogue of {home} cannot be used: {error}")


def full(home: Path) -> NoSpace:
    """Return the error for a file system with no room for what the store needs."""
    return NoSpace(
        f"no space left for the store {home}",
        hint="thinvirt df shows who uses it; nothing half made was left behind",
    )


def read_only(home: Path) -> StoreUnusable:
    """Return the error for a change asked of a store that cannot be written."""
    if not os.access(home, os.W_OK) and not _on_read_only_mount(home):
        return not_ours(home, home)
    return StoreUnusable(
        f"the store {home} is on a read-only file system",
        hint=f"remount it writable, or {ELSEWHERE}",
    )


def not_ours(home: Path, place: Path) -> StoreUnusable:
    """Return the error for a store that belongs to somebody else."""
    return StoreUnusable(
        f"no permission for {place}: {_owner(place)}",
        hint=f"run as that user, or set THINVIRT_HOME to a store of your own (now {home})",
    )


def is_full(home: Path) -> bool:
    """Tell whether nothing more fits: SQLite then tells of an I/O error of its shared memory."""
    try:
        status = os.statvfs(home)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < 1 << 16 or (status.f_files > 0 == status.f_favail)


def _on_read_only_mount(home: Path) -> bool:
    try:
        return bool(os.statvfs(home).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _owner(place: Path) -> str:
    """Say whose the nearest existing directory or file is, and who asks."""
    import pwd

    def name(uid: int) -> str:
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return f"user {uid}"

    for path in (place, *place.parents):
        try:
            uid = path.stat().st_uid
        except OSError:
            continue
        return f"{path} belongs to {name(uid)}, and this is {name(os.geteuid())}"
    return f"this is {name(os.geteuid())}"
