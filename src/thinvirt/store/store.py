"""A store: its directories, its catalogue, its locks, and the opening of all that."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from thinvirt.errors import NotFound, StoreUnusable
from thinvirt.image.block.hostfile import sync_directory
from thinvirt.store.catalog import Catalog
from thinvirt.store.database import Database, create_database, open_database
from thinvirt.store.layout import Layout, default_home
from thinvirt.store.locks import Lock, busy, is_held, take_lock, try_lock
from thinvirt.store.records import Template, Vm
from thinvirt.store.trouble import ELSEWHERE, explained, not_ours, read_only

if TYPE_CHECKING:
    from thinvirt.vm.identity import Identity

_HOME_MODE = 0o700  # disks and seeds hold what their owners keep there
_SHORT_WAIT_S = 30.0  # for locks that are only ever held for a moment
_POLL_S = 0.05


class NoStore(NotFound):
    """There is no store yet where one was looked for."""

    kind = "no-store"


class Store:
    """One open store. Not to be carried over a fork; threads may share it."""

    def __init__(self, layout: Layout, database: Database) -> None:
        self.layout = layout
        self.database = database
        self.catalog = Catalog(database)
        self.recovered: list[str] = []  # what was finished or undone of killed commands, in words
        self._identity: tuple[str, int] | None = None

    @property
    def writable(self) -> bool:
        """Whether this process may change the store."""
        return self.database.writable

    def require_writable(self) -> None:
        """Return if this process may change the store.

        Raises:
            StoreUnusable: it may not; the message says why.
        """
        if not self.writable:
            raise read_only(self.layout.home)

    @property
    def uuid(self) -> str:
        """The store's own random UUID, from which its VMs' are derived."""
        return self._own()[0]

    @property
    def mac_base(self) -> int:
        """The store's own random offset of MAC addresses, below 2^24."""
        return self._own()[1]

    def identity(self, vm: Vm) -> "Identity":
        """Return the UUID, MAC address and LAN address of a VM."""
        from thinvirt.vm.identity import derive_identity  # hashlib: listings do without

        return derive_identity(self.uuid, self.mac_base, vm.id)

    def overlay(self, vm: Vm) -> Path:
        """Return the path of a VM's overlay."""
        return self.layout.overlay(vm.batch.id, vm.name)

    def template_image(self, template: Template) -> Path:
        """Return the path of a template's image."""
        return self.layout.template_image(template.digest, template.format)

    @contextmanager
    def lock_vm(self, vm: Vm, purpose: str, *, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the right to change a VM: to start, stop, promote it. Removal waits for nobody.

        Args:
            vm: which.
            purpose: the verb, for the message that others get: "start".
            wait_s: how long to wait for another command at the same VM.

        Raises:
            Busy: another process holds it; the message names that process.
            NotFound: the VM has been removed meanwhile.
        """
        self.require_writable()
        path = self.layout.vm_lock(vm.id)
        deadline = time.monotonic() + wait_s
        while (lock := self._try_lock_vm(path, f"thinvirt {purpose} {vm.name}")) is None:
            if time.monotonic() >= deadline:
                raise busy(f"VM '{vm.name}'", path)
            time.sleep(_POLL_S)
        with lock:
            if self.catalog.vm_by_id(vm.id) is None:
                raise NotFound(f"VM '{vm.name}' has been removed", hint="thinvirt ls")
            yield

    @contextmanager
    def removal_window(self, vms: list[Vm]) -> Iterator[None]:
        """Keep everybody from locking any VM, for a moment, knowing that nobody holds one of these.

        Ten thousand VMs are removed by one transaction inside; a lock file for each would cost
        more than the removal.

        Raises:
            Busy: a process holds one of them; the message names it.
        """
        with explained(self.layout.home), self._removal_lock(shared=False):
            held = {entry.name for entry in os.scandir(self.layout.locks)}
            for vm in vms:
                path = self.layout.vm_lock(vm.id)
                if path.name in held:
                    if is_held(path):
                        raise busy(f"VM '{vm.name}'", path)
                    path.unlink(missing_ok=True)  # left by a killed command
            yield

    def templates_lock(self) -> Lock:
        """Take the lock under which template files are published and removed, for a moment."""
        return take_lock(
            self.layout.locks / "templates.lock",
            "changing the templates",
            what=f"the templates of {self.layout.home}",
            wait_s=_SHORT_WAIT_S,
            keep_file=True,
        )

    @contextmanager
    def maker(self, purpose: str) -> Iterator[str]:
        """Give a name for work in progress, which counts as ours as long as this process lives.

        Rows and folders that bear the name of a maker that is gone are cleaned away by the next
        command (`store.recovery`).
        """
        self.require_writable()
        name = f"{os.getpid()}-{os.urandom(4).hex()}"
        with explained(self.layout.home):
            lock = take_lock(self.layout.maker_lock(name), purpose, what=purpose)
        with lock:
            yield name

    @contextmanager
    def workspace(self, purpose: str) -> Iterator[Path]:
        """Give an empty folder for what is not published yet; it is gone when the block ends.

        It is on the file system of the templates, so that publishing from it is a rename.
        """
        with self.maker(purpose) as name:
            folder = self.layout.incoming / name
            try:
                with explained(self.layout.home):
                    folder.mkdir(mode=0o700)
                yield folder
            finally:
                from shutil import rmtree

                rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Close the catalogue."""
        self.database.close()

    def _try_lock_vm(self, path: Path, command: str) -> Lock | None:
        # While a removal looks for locked VMs, nobody may lock one: see `removal_window`.
        with explained(self.layout.home), self._removal_lock(shared=True):
            return try_lock(path, command)

    def _removal_lock(self, *, shared: bool) -> Lock:
        return take_lock(
            self.layout.locks / "removal.lock",
            "removing VMs",
            what=f"the store {self.layout.home}",
            wait_s=_SHORT_WAIT_S,
            shared=shared,
            keep_file=True,
        )

    def _own(self) -> tuple[str, int]:
        if self._identity is None:
            row = self.database.row("SELECT uuid, mac_base FROM store")
            if row is None:
                raise StoreUnusable(f"the catalogue of {self.layout.home} is empty")
            self._identity = (row[0], row[1])
        return self._identity


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
    from thinvirt.store.recovery import recover

    layout = Layout((default_home() if home is None else home).absolute())
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
        database = open_database(layout.home, layout.catalog, writable=writable)
    store = Store(layout, database)
    if writable:
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
    home.mkdir(mode=_HOME_MODE, parents=True, exist_ok=True)
    if not os.access(home, os.W_OK | os.X_OK):
        raise not_ours(home, home)
    for folder in layout.folders:
        folder.mkdir(mode=_HOME_MODE, exist_ok=True)
    command = "making the store"
    with take_lock(
        layout.locks / "creation.lock", command, what=f"the store {home}", wait_s=_SHORT_WAIT_S
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


def _random_uuid() -> str:
    """Return a random UUID (RFC 4122, version 4) without loading the uuid module."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
