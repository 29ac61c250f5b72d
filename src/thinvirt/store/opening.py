"""Opening a store, and making it where there is none."""

import os
import time
from pathlib import Path

from thinvirt.errors import NotFound, StoreUnusable
from thinvirt.image.block.hostfile import sync_directory
from thinvirt.store.database import create_database, open_database
from thinvirt.store.layout import Layout, default_home
from thinvirt.store.locks import take_lock
from thinvirt.store.recovery import recover
from thinvirt.store.store import Store
from thinvirt.store.trouble import ELSEWHERE, explained, not_ours

_HOME_MODE = 0o700  # disks and seeds hold what their owners keep there
_MAX_CATALOG_PATH = 500  # bytes; SQLite takes 512 with the names of its files beside it
_CREATION_S = 30.0  # how long another command may take to make the store


class NoStore(NotFound):
    """There is no store yet where one was looked for."""

    kind = "no-store"


def open_store(home: Path | None = None, *, create: bool = True, readonly: bool = False) -> Store:
    """Open the store, and finish or undo what killed commands have left in it.

    Args:
        home: its directory; None: $THINVIRT_HOME or the default.
        create: make it if there is none.
        readonly: change nothing, not even what killed commands left.

    Raises:
        NoStore: there is none, and none was to be made.
        StoreUnusable: it cannot be used; the message says why.
    """
    layout = Layout((default_home() if home is None else home).absolute())
    if len(os.fsencode(layout.catalog)) > _MAX_CATALOG_PATH:
        raise StoreUnusable(
            f"the path of the store is too long for SQLite: {layout.home}", hint=ELSEWHERE
        )
    with explained(layout.home):
        there = _exists(layout.catalog)
        if not there:
            if readonly or not create:
                raise NoStore(
                    f"there is no store at {layout.home}",
                    hint="thinvirt template build tiny makes it, with a first template",
                )
            _create(layout)
        writable = not readonly and os.access(layout.home, os.W_OK)
        if writable:
            _replace_folders(layout)
        database = open_database(layout.home, layout.catalog, writable=writable)
    store = Store(layout, database)
    if store.writable:
        store.recovered = recover(store)
    return store


def _exists(catalog: Path) -> bool:
    try:
        catalog.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _create(layout: Layout) -> None:
    """Make directories and catalogue; several commands may try at once, one does it."""
    from thinvirt.store.probe import probe

    home = layout.home
    if home.exists() and not home.is_dir():
        raise StoreUnusable(f"the store {home} is no directory", hint=ELSEWHERE)
    if home.is_symlink() and not home.exists():
        raise StoreUnusable(
            f"the store {home} is a symbolic link to {home.readlink()}, which is not there",
            hint=f"make that directory, or {ELSEWHERE}",
        )
    home.mkdir(mode=_HOME_MODE, parents=True, exist_ok=True)
    if not os.access(home, os.W_OK | os.X_OK):
        raise not_ours(home, home)
    _replace_folders(layout)
    command = "making the store"
    with take_lock(
        layout.locks / "creation.lock", command, what=f"the store {home}", wait_s=_CREATION_S
    ):
        if layout.catalog.exists():
            return
        probe(home)
        draft = layout.catalog.with_name(layout.catalog.name + ".new")
        for name in (draft.name, f"{draft.name}-wal", f"{draft.name}-shm"):
            draft.with_name(name).unlink(missing_ok=True)
        identity = (_random_uuid(), int.from_bytes(os.urandom(3)), int(time.time()))
        create_database(draft, identity)
        draft.rename(layout.catalog)
        sync_directory(home)


def _replace_folders(layout: Layout) -> None:
    """Make those that are missing: backups and copies often leave empty ones away."""
    for folder in layout.folders:
        if not folder.is_dir():
            folder.mkdir(mode=_HOME_MODE, exist_ok=True)


def _random_uuid() -> str:
    """Return a random UUID (RFC 4122, version 4) without loading the uuid module."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
