"""Removal of VMs: rows first, in one transaction that notes the files to unlink; then those.

Whoever is killed in between leaves notes, and the next command finishes (`store.recovery`).
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from thinvirt.progress import Progress, Silent
from thinvirt.store.batches import remove_folder
from thinvirt.store.own_files import own_files
from thinvirt.store.records import Vm
from thinvirt.store.store import Store
from thinvirt.store.trouble import explained

_REPORT_EVERY = 256


def remove_vms(
    store: Store,
    vms: Sequence[Vm],
    *,
    refuse_running: Callable[[Sequence[Vm]], None],
    progress: Progress | None = None,
) -> None:
    """Remove VMs, their overlays, and what was recorded of them.

    Args:
        store: theirs.
        vms: which; those that are gone meanwhile are passed over.
        refuse_running: called at the moment nobody can start one of them; raises if one runs.
        progress: told the number of VMs.

    Raises:
        Busy: another command is at one of them. Nothing was removed.
    """
    progress = progress or Silent()
    progress.step("removing VMs", len(vms), "VMs")
    ids = json.dumps([vm.id for vm in vms])
    with store.maker("thinvirt rm") as maker:
        with store.removal_window(list(vms)):
            refuse_running(vms)
            _remove_rows(store, ids, maker)
        finish_removal(store, maker, progress)


def finish_removal(store: Store, maker: str, progress: Progress | None = None) -> int:
    """Unlink what `maker` has noted, and drop the notes; return how many VMs that were."""
    progress = progress or Silent()
    rows = store.database.rows(
        "SELECT vm_id, name, batch_id FROM removals WHERE maker = ? ORDER BY batch_id", (maker,)
    )
    if not rows:
        return 0
    left = {
        int(row[0])
        for row in store.database.rows(
            "SELECT id FROM batches WHERE id IN (SELECT batch_id FROM removals WHERE maker = ?)",
            (maker,),
        )
    }
    with explained(store.layout.home):
        _unlink_overlays(store, rows, left, progress)
        ids = {str(row[0]) for row in rows}
        _remove_trees(store.layout.run, ids)
        _remove_trees(store.layout.log, ids)
    with store.database.transaction():
        store.database.run("DELETE FROM removals WHERE maker = ?", (maker,))
    return len(rows)


def dispose(store: Store, maker: str) -> int:
    """Remove the rows of the disposable VMs of `maker`, who is gone; return how many there were.

    `finish_removal` does the rest.
    """
    rows = store.database.rows(
        "SELECT vms.id FROM batches JOIN vms ON vms.id BETWEEN first_vm AND last_vm "
        "WHERE batches.maker = ? AND batches.state = 'committed'",
        (maker,),
    )
    if rows:
        _remove_rows(store, json.dumps([row[0] for row in rows]), maker)
    return len(rows)


def _remove_rows(store: Store, ids: str, maker: str) -> None:
    database = store.database
    with database.transaction():
        database.run(
            "INSERT INTO removals (vm_id, name, batch_id, maker) "
            "SELECT id, name, batch_id, ? FROM vms WHERE id IN (SELECT value FROM json_each(?))",
            (maker, ids),
        )
        database.run("DELETE FROM vms WHERE id IN (SELECT value FROM json_each(?))", (ids,))
        database.run(
            "DELETE FROM batches WHERE id IN (SELECT batch_id FROM removals WHERE maker = ?) "
            "AND NOT EXISTS (SELECT 1 FROM vms WHERE vms.id BETWEEN first_vm AND last_vm)",
            (maker,),
        )


def _unlink_overlays(
    store: Store, rows: Iterable[Sequence[object]], left: set[int], progress: Progress
) -> None:
    """Unlink overlays one by one where the batch lives on, by the whole folder where not."""
    whole: set[int] = set()
    for count, (_, name, batch_id) in enumerate(rows, 1):
        assert isinstance(batch_id, int)
        if batch_id in left:
            store.layout.overlay(batch_id, str(name)).unlink(missing_ok=True)
            for path in own_files(store, store.catalog.batch(batch_id), str(name)):
                path.unlink(missing_ok=True)
        elif batch_id not in whole:
            whole.add(batch_id)
            remove_folder(store.layout.batch(batch_id))
        if count % _REPORT_EVERY == 0:
            progress.advance(_REPORT_EVERY)


def _remove_trees(parent: Path, names: set[str]) -> None:
    """Remove those of `names` that are folders below `parent`; most VMs never ran."""
    with os.scandir(parent) as entries:
        found = [entry.path for entry in entries if entry.name in names]
    if found:
        from shutil import rmtree

        for path in found:
            rmtree(path, ignore_errors=True)
