"""A batch of VMs: their rows and overlays appear together or not at all.

1. A ``pending`` row is committed: it reserves the batch's number, hence its folder.
2. The overlays are written into that folder and made durable by one flush.
3. One transaction inserts all VM rows and marks the batch committed. Until then no VM exists.

An error undoes the steps done. A killed command's batch stays pending without its maker's lock,
and is undone by the next command (`store.recovery`).
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from thinvirt.errors import Conflict, NotFound, StoreUnusable, UsageError
from thinvirt.image.block.hostfile import sync_directory
from thinvirt.progress import Progress, Silent
from thinvirt.store.records import Batch, Template
from thinvirt.store.store import Store
from thinvirt.store.trouble import explained
from thinvirt.units import format_size

MakeFiles = Callable[[Path, str], None]
"""Makes the files of the VM with this name in this folder, durably."""

_NAMED = 3  # how many of many are named in a message
_SECTOR = 512


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Part:
    """VMs that share a specification and a folder: one batch before it is made.

    Attributes:
        names: theirs; checked already.
        spec_json: the specification they share.
        virtual_size: bytes of their first disks.
        make: makes their files in the folder it is given, durably.
        template: the base of their overlays, None for VMs that are no clones.
        extended_l2: whether the overlays have subclusters.
        undo: takes back what `make` did outside that folder; may be called if it did nothing.
    """

    names: Sequence[str]
    spec_json: str
    virtual_size: int
    make: Callable[[Path], None]
    template: Template | None = None
    extended_l2: bool = False
    undo: Callable[[], None] = _nothing


def create_batch(
    store: Store,
    template: Template,
    names: Sequence[str],
    *,
    spec_json: str = "{}",
    virtual_size: int | None = None,
    further: "MakeFiles | None" = None,
    extended_l2: bool = True,
    owner: str | None = None,
    progress: Progress | None = None,
) -> Batch:
    """Make VMs as linked clones of `template`: all of them, durably, or none.

    Args:
        store: where.
        template: the base of their overlays.
        names: theirs; checked already.
        spec_json: the specification they share.
        virtual_size: bytes of their disks; None: the template's size.
        further: makes what each VM has beside its overlay, in the folder it is given.
        extended_l2: give the overlays subclusters.
        owner: a maker (`Store.become_maker`) with whom these VMs go: disposable ones.
        progress: told the number of overlays.

    Raises:
        Conflict: a name is taken.
        UsageError: the size is smaller than the template's.
        NoSpace: the file system is full; nothing is left behind.
    """
    part = clone_part(
        store,
        template,
        names,
        spec_json=spec_json,
        virtual_size=virtual_size,
        further=further,
        extended_l2=extended_l2,
        progress=progress,
    )
    return create_together(store, [part], command=f"thinvirt clone {template.ref}", owner=owner)[0]


def clone_part(
    store: Store,
    template: Template,
    names: Sequence[str],
    *,
    spec_json: str = "{}",
    virtual_size: int | None = None,
    further: "MakeFiles | None" = None,
    extended_l2: bool = True,
    progress: Progress | None = None,
) -> Part:
    """Return what `create_batch` makes, to be made together with others (`create_together`).

    Raises:
        UsageError: the size is smaller than the template's.
    """
    # Every command loads this module, to undo what was left; few make overlays.
    from thinvirt.image.ops.overlay import OverlayOptions, create_overlays

    options = OverlayOptions(
        virtual_size=disk_size(template, virtual_size),
        backing_name=store.layout.backing_name(template.digest, template.format),
        backing_format=template.format,
        extended_l2=extended_l2,
    )

    def make(folder: Path) -> None:
        if further is not None:
            for name in names:
                further(folder, name)
        files = [store.layout.overlay_name(name) for name in names]
        create_overlays(folder, files, options, durable=True, progress=progress or Silent())

    return Part(
        names, spec_json, options.virtual_size, make, template, extended_l2=options.extended_l2
    )


def create_own(
    store: Store, name: str, *, spec_json: str, virtual_size: int, make: "MakeFiles"
) -> Batch:
    """Make one VM that is no clone: its disks are its own, or somebody else's.

    Args:
        store: where.
        name: the VM's; checked already.
        spec_json: its specification.
        virtual_size: bytes of its first disk, 0 if it has none.
        make: makes its files in the folder it is given, durably; ours are undone if it raises.

    Raises:
        Conflict: the name is taken.
        NoSpace: the file system is full; nothing is left behind.
    """
    part = Part([name], spec_json, virtual_size, lambda folder: make(folder, name))
    return create_together(store, [part], command=f"thinvirt install {name}")[0]


def create_together(
    store: Store, parts: Sequence[Part], *, command: str, owner: str | None = None
) -> list[Batch]:
    """Make several batches in one transaction: all of their VMs, durably, or none.

    Args:
        store: where.
        parts: what each batch is made of.
        command: what does it, for the message that others get meanwhile.
        owner: as in `create_batch`.

    Raises:
        Conflict: a name is taken.
        NoSpace: the file system is full; nothing is left behind.
    """
    with store.maker(command) as maker, ExitStack() as undo:
        batch_ids = _reserve(store, parts, maker=maker)
        for batch_id in batch_ids:
            undo.callback(abandon, store, batch_id)
        with explained(store.layout.home):
            for batch_id, part in zip(batch_ids, parts, strict=True):
                folder = store.layout.batch(batch_id)
                _make_folder(folder)
                undo.callback(part.undo)
                part.make(folder)
                sync_directory(folder)
            sync_directory(store.layout.disks)
        _commit(store, batch_ids, parts, owner)
        undo.pop_all()
    return [store.catalog.batch(batch_id) for batch_id in batch_ids]


def disk_size(template: Template, virtual_size: int | None) -> int:
    """Return the size of a clone's disk in bytes: whole sectors, never below the template's.

    Raises:
        UsageError: `virtual_size` is smaller than the template.
    """
    wanted = template.virtual_size if virtual_size is None else virtual_size
    wanted = -(-wanted // _SECTOR) * _SECTOR
    if wanted < template.virtual_size:
        sizes = [format_size(size) for size in (wanted, template.virtual_size)]
        if sizes[0] == sizes[1]:  # they differ by less than is shown
            sizes = [f"{size} bytes" for size in (wanted, template.virtual_size)]
        raise UsageError(
            f"a disk of {sizes[0]} is smaller than template {template.ref}, which has {sizes[1]}",
            hint=f"--size {template.virtual_size} or more; "
            "file systems of a template cannot be made smaller",
        )
    return wanted


def abandon(store: Store, batch_id: int) -> bool:
    """Undo a pending batch; a committed one is left alone. Return whether there was one."""
    pending = store.database.row(
        "SELECT 1 FROM batches WHERE id = ? AND state = 'pending'", (batch_id,)
    )
    if pending is None:
        return False
    with explained(store.layout.home):
        remove_folder(store.layout.batch(batch_id))  # first: this is what frees a full disk
    with store.database.transaction():
        store.database.run("DELETE FROM batches WHERE id = ? AND state = 'pending'", (batch_id,))
    return True


def remove_folder(folder: Path) -> None:
    """Remove a folder of plain files; nothing happens if it is gone already."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        with os.scandir(fd) as entries:
            # In the order of their inodes: neighbours lie in the same blocks of the inode tables.
            names = [entry.name for entry in sorted(entries, key=os.DirEntry.inode)]
        for name in names:
            try:
                os.unlink(name, dir_fd=fd)
            except FileNotFoundError:
                continue
    finally:
        os.close(fd)
    try:
        folder.rmdir()
    except FileNotFoundError:
        return


def refuse_taken(store: Store, names: Sequence[str]) -> None:
    """Return if no VM has one of these names.

    Raises:
        Conflict: one has; the message names it, or the first few.
    """
    taken = store.catalog.taken(names)
    if not taken:
        return
    if len(taken) == 1:
        raise Conflict(
            f"there is a VM '{taken[0]}' already", hint=f"another name, or: thinvirt rm {taken[0]}"
        )
    raise Conflict(
        f"there are VMs of these names already: {name_some(taken)}",
        hint="another name; nothing was made",
    )


def name_some(names: Sequence[str], count: int | None = None) -> str:
    """Return the first few of many names, and how many more there are."""
    total = len(names) if count is None else count
    shown = ", ".join(names[:_NAMED])
    return shown if total <= _NAMED else f"{shown} and {total - _NAMED} more"


def _reserve(store: Store, parts: Sequence[Part], *, maker: str) -> list[int]:
    """Return a pending batch's number for each part."""
    database = store.database
    reserved = []
    with database.transaction():
        for part in parts:
            refuse_taken(store, part.names)
            template = part.template
            if template is not None and not database.row(
                "SELECT 1 FROM templates WHERE id = ?", (template.id,)
            ):
                raise NotFound(f"template {template.ref} has just been removed")
            reserved.append(
                database.run(
                    "INSERT INTO batches (template_id, state, maker, virtual_size, extended_l2, "
                    "spec, created) VALUES (?, 'pending', ?, ?, ?, ?, ?)",
                    (
                        template.id if template is not None else None,
                        maker,
                        part.virtual_size,
                        int(part.extended_l2),
                        part.spec_json,
                        int(time.time()),
                    ),
                )
            )
    return reserved


def _commit(
    store: Store, batch_ids: Sequence[int], parts: Sequence[Part], owner: str | None
) -> None:
    database = store.database
    with database.transaction():
        row = database.row("SELECT seq FROM sqlite_sequence WHERE name = 'vms'")
        first = (row[0] if row else 0) + 1
        for batch_id, part in zip(batch_ids, parts, strict=True):
            refuse_taken(store, part.names)  # another command may have been quicker
            database.run_many(
                "INSERT INTO vms (id, name, batch_id) VALUES (?, ?, ?)",
                [(first + index, name, batch_id) for index, name in enumerate(part.names)],
            )
            following = first + len(part.names)
            database.run(
                "UPDATE batches SET state = 'committed', maker = ?, first_vm = ?, last_vm = ? "
                "WHERE id = ?",
                (owner, first, following - 1, batch_id),
            )
            first = following


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError as error:
        raise StoreUnusable(
            f"{folder} is there, but the catalogue does not know it",
            hint="an older copy of the catalogue was put back? Move that folder away",
        ) from error
