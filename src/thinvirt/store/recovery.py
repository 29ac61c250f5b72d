"""What killed commands have left: finished or undone by the next command that opens the store.

Work in progress bears the name of its maker, who holds a lock of that name as long as it lives.
Whoever can take that lock knows the maker to be gone, and cleans up while holding it, so that
no two do. With nothing to do this costs one short query and the listing of two folders.
"""

import os

from thinvirt.errors import ThinvirtError
from thinvirt.store.batches import abandon
from thinvirt.store.locks import try_lock
from thinvirt.store.publication import finish_unlinks
from thinvirt.store.removal import dispose, finish_removal
from thinvirt.store.store import Store
from thinvirt.store.trouble import explained


def recover(store: Store) -> list[str]:
    """Finish or undo what commands that are gone have left; return what was done, in words.

    What cannot be cleaned now (no permission, input/output error) stays for the next command and
    is told, but keeps nobody from listing their VMs.
    """
    told: list[str] = []
    for maker in sorted(_makers(store)):
        with explained(store.layout.home):
            lock = try_lock(store.layout.maker_lock(maker), "cleaning up after a killed command")
        if lock is None:
            continue  # it lives, or another command is cleaning up already
        with lock:
            try:
                told += _clean_up(store, maker)
            except ThinvirtError as error:
                told.append(f"could not clean up after a killed command: {error}")
    return told


def _makers(store: Store) -> set[str]:
    """Return the names of all makers whose work is in progress, or was when they were killed."""
    rows = store.database.rows(
        "SELECT maker FROM batches WHERE maker IS NOT NULL "
        "UNION SELECT maker FROM removals UNION SELECT maker FROM unlinks"
    )
    makers = {str(row[0]) for row in rows}
    with explained(store.layout.home), os.scandir(store.layout.incoming) as entries:
        makers.update(entry.name for entry in entries if entry.name != store.layout.downloads.name)
    with explained(store.layout.home), os.scandir(store.layout.locks) as entries:
        # A maker killed before it noted anything, or after it had finished, leaves its lock's file.
        names = (store.layout.maker_of(entry.name) for entry in entries)
        makers.update(name for name in names if name)
    return makers


def _clean_up(store: Store, maker: str) -> list[str]:
    told = []
    rows = store.database.rows(
        "SELECT id FROM batches WHERE state = 'pending' AND maker = ?", (maker,)
    )
    undone = sum(abandon(store, row[0]) for row in rows)
    if undone:
        told.append("undid a batch of clones that a killed command had begun")
    disposed = dispose(store, maker)
    removed = finish_removal(store, maker) - disposed
    if disposed:
        told.append(f"removed {disposed} disposable VM{'s' * (disposed > 1)} of a run that ended")
    if removed:
        told.append(f"finished the removal of {removed} VMs that a killed command had begun")
    if finish_unlinks(store, maker):
        told.append("removed a template's file that a killed command had left")
    leftovers = store.layout.incoming / maker
    with explained(store.layout.home):
        if leftovers.is_dir():
            from shutil import rmtree

            rmtree(leftovers)
            told.append("removed what a killed command had not published yet")
        else:
            leftovers.unlink(missing_ok=True)
    return told
