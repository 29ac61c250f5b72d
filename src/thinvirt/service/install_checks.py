"""What is looked at before a VM is made, and can be left out: ``--check WHAT=off``."""

import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from thinvirt.errors import Conflict, NoSpace
from thinvirt.service.new_disks import IN_USE, NewDisk, refuse_used
from thinvirt.store import Store
from thinvirt.units import format_size
from thinvirt.vm.spec import DiskSpec, VmSpec

SIZES: Final = "disk_size"
EXISTS: Final = "path_exists"
MACS: Final = "mac_in_use"
CHECKS: Final = {  # as virt-install calls them
    IN_USE: "no other VM has the disk",
    SIZES: "the file system has room for disks that are made",
    EXISTS: "a disk that shall be made is not there already",
    MACS: "no other VM of the store has the hardware address",
}


def check(
    store: Store | None,
    spec: VmSpec,
    new: Sequence[NewDisk],
    *,
    asked: Sequence[DiskSpec],
    unchecked: Collection[str],
) -> tuple[str, ...]:
    """Return what people should know of a VM that is about to be made.

    Args:
        store: where; None: in one that is not there yet.
        spec: with everything decided.
        new: the disks that would be made.
        asked: the drives as they were asked for.
        unchecked: what is left out, of `CHECKS`.

    Raises:
        Conflict: a disk or an address is another VM's, or a disk is there that was to be made.
        NoSpace: a disk whose space is reserved does not fit.
    """
    if EXISTS not in unchecked:
        _refuse_there(asked)
    if store is not None and IN_USE not in unchecked:
        refuse_used(store, spec.disks)
    if store is not None and MACS not in unchecked:
        _refuse_macs(store, spec)
    if SIZES in unchecked:
        return ()
    home = store.layout.disks if store is not None else None
    return tuple(_size_remarks(new, home))


def _refuse_there(asked: Sequence[DiskSpec]) -> None:
    for disk in asked:
        if not (disk.source and Path(disk.source).exists()):
            continue
        if disk.backing:
            raise Conflict(
                f"disk '{disk.source}' is there already and cannot be made on '{disk.backing}'",
                hint=f"another path, or no backing_store=; --check {EXISTS}=off takes it as is",
            )


def _refuse_macs(store: Store, spec: VmSpec) -> None:
    wanted = {card.mac.lower() for card in spec.cards if card.mac}
    if not wanted:
        return
    for mac, name in _macs_asked(store):
        if mac in wanted:
            raise Conflict(
                f"hardware address {mac} is already in use by VM '{name}'",
                hint=f"another one, or none; --check {MACS}=off if they never meet",
            )


def _macs_asked(store: Store) -> Iterator[tuple[str, str]]:
    rows = store.database.rows(
        "SELECT batches.spec, vms.name, vms.overrides FROM batches JOIN vms "
        "ON vms.id BETWEEN batches.first_vm AND batches.last_vm "
        "WHERE batches.spec LIKE '%\"mac\"%' OR vms.overrides LIKE '%\"mac\"%'"
    )
    for spec, name, overrides in rows:
        facts = json.loads(spec) | (json.loads(overrides) if overrides else {})
        for card in facts.get("networks", ()):
            if card.get("mac"):
                yield str(card["mac"]).lower(), str(name)


def _size_remarks(new: Sequence[NewDisk], home: Path | None) -> Iterator[str]:
    """Yield what is doubtful about the sizes of new disks.

    Raises:
        NoSpace: one whose space is reserved does not fit.
    """
    for disk in new:
        folder = disk.path.parent if disk.path is not None else home
        if folder is None or disk.size is None:
            continue
        status = os.statvfs(folder)
        free = status.f_bavail * status.f_frsize
        if disk.size <= free:
            continue
        what = f"a disk of {format_size(disk.size)}"
        if not disk.sparse:
            raise NoSpace(
                f"{what} does not fit: {format_size(free)} are free",
                path=folder,
                hint=f"a smaller one, or sparse=yes; --check {SIZES}=off tries all the same",
            )
        yield f"{what} may grow beyond the {format_size(free)} that are free in {folder}"
