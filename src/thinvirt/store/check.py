"""Whether catalogue and directories agree: findings, not errors. Nothing is changed."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thinvirt.errors import ThinvirtError
from thinvirt.image.ops.screen import screen
from thinvirt.store.own_files import own_files
from thinvirt.store.records import Batch, Fingerprint, Template
from thinvirt.store.store import Store


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement.

    Attributes:
        kind: stable, for programs: "overlay-missing", "overlay-unknown", "overlay-damaged",
            "overlay-backing", "template-missing", "template-changed", "template-unknown",
            "batch-unknown", "in-progress".
        path: the file or folder concerned.
        message: what is the matter, in words.
    """

    kind: str
    path: Path
    message: str


def findings(store: Store, *, headers: bool = True) -> Iterator[Finding]:
    """Yield everything in which catalogue and directories disagree.

    Work of commands that run meanwhile shows as "in-progress".

    Args:
        store: which.
        headers: look into every overlay, too, not only whether it is there.
    """
    yield from _template_findings(store)
    known: set[str] = set()
    for row in store.database.rows("SELECT id FROM batches WHERE state = 'committed'"):
        known.add(str(row[0]))
        yield from _batch_findings(store, store.catalog.batch(row[0]), headers=headers)
    pending = {
        str(row[0]) for row in store.database.rows("SELECT id FROM batches WHERE state = 'pending'")
    }
    removing = {str(row[0]) for row in store.database.rows("SELECT batch_id FROM removals")}
    for name in sorted(os.listdir(store.layout.disks)):  # noqa: PTH208 (names are wanted)
        path = store.layout.disks / name
        if name in pending | removing:
            yield Finding("in-progress", path, "a command is at work on this batch, or was killed")
        elif name not in known:
            yield Finding("batch-unknown", path, "the catalogue does not know this batch")
    yield from _leftovers(store)


def _template_findings(store: Store) -> Iterator[Finding]:
    names = set()
    for template in store.catalog.templates():
        path = store.template_image(template)
        names.add(path.name)
        try:
            seen = Fingerprint.of(path)
        except FileNotFoundError:
            yield Finding("template-missing", path, f"the image of {template.ref} is gone")
            continue
        if seen != template.fingerprint:
            yield Finding("template-changed", path, f"the image of {template.ref} was touched")
    for name in sorted(os.listdir(store.layout.templates)):  # noqa: PTH208
        if name not in names:
            path = store.layout.templates / name
            yield Finding("template-unknown", path, "no template has this image")


def _batch_findings(store: Store, batch: Batch, *, headers: bool) -> Iterator[Finding]:
    folder = store.layout.batch(batch.id)
    there = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
    for vm in store.catalog.vms_of_batch(batch):
        path = store.overlay(vm)
        there.difference_update(own.name for own in own_files(store, batch, vm.name))
        if batch.template is None:
            there.discard(path.name)
            continue
        if path.name not in there:
            yield Finding("overlay-missing", path, f"the disk of VM {vm.name} is gone")
            continue
        there.discard(path.name)
        if headers:
            yield from _overlay_findings(store, batch.template, path)
    for name in sorted(there):
        yield Finding("overlay-unknown", folder / name, "no VM has this disk")


def _overlay_findings(store: Store, template: Template, path: Path) -> Iterator[Finding]:
    try:
        details = screen(path, allow_backing=True).details
    except ThinvirtError as error:
        yield Finding("overlay-damaged", path, error.message)
        return
    wanted = (store.layout.backing_name(template.digest, template.format), template.format)
    if (details.get("backing_file"), details.get("backing_format")) != wanted:
        yield Finding("overlay-backing", path, "it stands on another file than its template")


def _leftovers(store: Store) -> Iterator[Finding]:
    for table, what in (("removals", "a VM's removal"), ("unlinks", "a template file's")):
        count = store.database.row(f"SELECT count(*) FROM {table}")  # noqa: S608 (two constants)
        if count and count[0]:
            yield Finding(
                "in-progress", store.layout.catalog, f"{what} is not finished: {count[0]}"
            )
    for name in sorted(os.listdir(store.layout.incoming)):  # noqa: PTH208
        if name != store.layout.downloads.name:
            path = store.layout.incoming / name
            yield Finding("in-progress", path, "not published yet, or left by a killed command")
