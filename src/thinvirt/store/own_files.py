"""Which files VMs have in the store beside their overlays, going by what was asked for."""

import json
from collections.abc import Iterator
from pathlib import Path

from thinvirt.store.records import Batch
from thinvirt.store.store import Store


def own_files(store: Store, batch: Batch, vm_name: str) -> Iterator[Path]:
    """Yield the files that one VM of a batch may have beside its first disk."""
    spec = json.loads(batch.spec_json)
    own = store.layout.own_files(batch.id, vm_name)
    yield from (own.disk(number) for number in range(1, len(spec.get("disks", ()))))
    if "firmware" in spec:
        yield own.variables
    if "tpm" in spec:
        yield own.tpm_state
    if spec.get("install", {}).get("kernel"):
        yield own.installer_kernel
        yield own.installer_initrd


def paths_in_use(store: Store) -> Iterator[tuple[str, str]]:
    """Yield ``(path, VM)`` of every disk outside the store that a VM has."""
    rows = store.database.rows(
        "SELECT batches.spec, vms.name, vms.overrides FROM batches JOIN vms "
        "ON vms.id BETWEEN batches.first_vm AND batches.last_vm "
        "WHERE batches.spec LIKE '%\"source\"%' OR vms.overrides LIKE '%\"source\"%'"
    )
    for spec, name, overrides in rows:
        facts = json.loads(spec) | (json.loads(overrides) if overrides else {})
        for disk in facts.get("disks", ()):
            if disk.get("source") and disk.get("device") != "cdrom":
                yield disk["source"], name
