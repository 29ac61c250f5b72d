"""A store: its directories, its catalogue and its locks."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from thinvirt.errors import NotFound, StoreUnusable
from thinvirt.store.catalog import Catalog
from thinvirt.store.database import Database
from thinvirt.store.layout import Layout
from thinvirt.store.locks import Lock, busy, is_held, take_lock, try_lock
from thinvirt.store.records import Template, Vm
from thinvirt.store.trouble import explained

if TYPE_CHECKING:
    from thinvirt.vm.identity import Identity

_SHORT_WAIT_S = 30.0  # for locks that are only ever held for a moment
_POLL_S = 0.05


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
            NoSpace, StoreUnusable: it may not; the message says why.
        """
        self.database.require_writable()

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
            with os.scandir(self.layout.locks) as entries:
                locked = {self.layout.locked_vm(entry.name) for entry in entries}
            for vm in vms:
                if vm.id not in locked:
                    continue
                path = self.layout.vm_lock(vm.id)
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
        name, lock = self.become_maker(purpose)
        with lock:
            yield name

    def become_maker(self, purpose: str) -> tuple[str, Lock]:
        """Return such a name and its lock, for who outlives a block."""
        self.require_writable()
        name = f"{os.getpid()}-{os.urandom(4).hex()}"
        with explained(self.layout.home):
            # Another command may be at our file for a moment: `store.recovery` looks at all.
            path = self.layout.maker_lock(name)
            return name, take_lock(path, purpose, what=purpose, wait_s=_SHORT_WAIT_S)

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
