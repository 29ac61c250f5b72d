"""Template files come and go: published by rename, removed after their row, noted in between.

A template's file is there before its row, and its row is gone before its file. The short time
between is covered by a note in the catalogue (``unlinks``) that names the file and its maker: the
next command removes a noted file that no row knows.
"""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from thinvirt.errors import Conflict
from thinvirt.image.block.hostfile import sync_directory
from thinvirt.store.batches import name_some
from thinvirt.store.records import Fingerprint, Template
from thinvirt.store.store import Store
from thinvirt.store.trouble import explained

_MODE = 0o444


def publish(
    store: Store,
    image: Path,
    *,
    name: str,
    digest: str,
    image_format: str,
    virtual_size: int,
    source: str,
    facts: Mapping[str, Any],
) -> Template:
    """Make `image` a template's file, and `name`'s newest version.

    Args:
        store: where.
        image: a durable file in one of the store's workspaces; it is renamed away, or left where
            it is if an equal one is there already and was not touched since.
        name: the template's name; checked already.
        digest: the file's SHA-256, hexadecimal.
        image_format: "qcow2" or "raw".
        virtual_size: bytes.
        source: where it came from.
        facts: what is known of the guest (JSON-ready).
    """
    target = store.layout.template_image(digest, image_format)
    with (
        store.maker("publishing a template") as maker,
        store.templates_lock(),
        ExitStack() as undo,
    ):
        if not store.catalog.has_digest(digest):
            undo.callback(_finish_unlinks, store, maker)
            _note(store, target.name, maker)
            _put_in_place(store, image, target)
        elif not _is_recorded(store, digest):
            _put_in_place(store, image, target)
            with explained(store.layout.home):
                store.catalog.set_fingerprint(digest, Fingerprint.of(target))
        there = store.catalog.template_by_digest(name, digest)
        if there is not None:
            return there
        with explained(store.layout.home):
            fingerprint = Fingerprint.of(target)
        template = Template(
            id=0,
            name=name,
            version=0,
            digest=digest,
            format=image_format,
            virtual_size=virtual_size,
            file_size=fingerprint.size,
            source=source,
            facts=dict(facts),
            created=int(time.time()),
            fingerprint=fingerprint,
        )
        published = _insert(store, template, maker)
        undo.pop_all()
    return published


def is_intact(store: Store, template: Template) -> bool:
    """Tell whether `stat` says of a template's file what was recorded; it is not read."""
    try:
        return Fingerprint.of(store.template_image(template)) == template.fingerprint
    except FileNotFoundError:
        return False


def remove_template(store: Store, template: Template) -> None:
    """Remove a template, and its file if no other template has the same.

    Raises:
        Conflict: it has clones; the message names them.
    """
    database = store.database
    with store.maker(f"thinvirt template rm {template.ref}") as maker, store.templates_lock():
        with database.transaction():
            _refuse_with_clones(store, template)
            database.run("DELETE FROM templates WHERE id = ?", (template.id,))
            if not store.catalog.has_digest(template.digest):
                database.run(
                    "INSERT OR REPLACE INTO unlinks VALUES (?, ?)", (template.file_name, maker)
                )
        _finish_unlinks(store, maker)


def finish_unlinks(store: Store, maker: str) -> int:
    """Remove the files that `maker` noted and no template has; return how many there were."""
    if not store.database.row("SELECT 1 FROM unlinks WHERE maker = ?", (maker,)):
        return 0
    with store.templates_lock():
        return _finish_unlinks(store, maker)


def _finish_unlinks(store: Store, maker: str) -> int:
    removed = 0
    rows = store.database.rows("SELECT file_name FROM unlinks WHERE maker = ?", (maker,))
    for (file_name,) in rows:
        digest = str(file_name).partition(".")[0]
        path = store.layout.templates / str(file_name)
        if not store.catalog.has_digest(digest):
            with explained(store.layout.home):
                removed += path.exists()
                path.unlink(missing_ok=True)
    if rows:
        with store.database.transaction():
            store.database.run("DELETE FROM unlinks WHERE maker = ?", (maker,))
    return removed


def _is_recorded(store: Store, digest: str) -> bool:
    same = (t for t in store.catalog.templates() if t.digest == digest)
    with explained(store.layout.home):
        return any(is_intact(store, template) for template in same)


def _put_in_place(store: Store, image: Path, target: Path) -> None:
    with explained(store.layout.home):
        image.chmod(_MODE)
        image.rename(target)
        sync_directory(target.parent)


def _note(store: Store, file_name: str, maker: str) -> None:
    with store.database.transaction():
        store.database.run("INSERT OR REPLACE INTO unlinks VALUES (?, ?)", (file_name, maker))


def _insert(store: Store, template: Template, maker: str) -> Template:
    """Insert the row with the name's next version; return the template as it is then."""
    database = store.database
    with database.transaction():
        row = database.row(
            "INSERT INTO template_names VALUES (?, 1) ON CONFLICT (name) "
            "DO UPDATE SET last_version = last_version + 1 RETURNING last_version",
            (template.name,),
        )
        version = int(row[0]) if row else 1
        seen = template.fingerprint
        row_id = database.run(
            "INSERT INTO templates (name, version, digest, format, virtual_size, file_size, "
            "source, facts, created, mtime_ns, ctime_ns, inode, device) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                template.name,
                version,
                template.digest,
                template.format,
                template.virtual_size,
                template.file_size,
                template.source,
                json.dumps(template.facts, ensure_ascii=False, separators=(",", ":")),
                template.created,
                seen.mtime_ns,
                seen.ctime_ns,
                seen.inode,
                seen.device,
            ),
        )
        database.run("DELETE FROM unlinks WHERE maker = ?", (maker,))
    return replace(template, id=row_id, version=version)


def _refuse_with_clones(store: Store, template: Template) -> None:
    count = store.catalog.clone_counts().get(template.id, 0)
    if count:
        names = name_some(store.catalog.clones(template, limit=3), count)
        raise Conflict(
            f"template {template.ref} has {count} clone{'s' * (count > 1)}: {names}",
            hint="remove them first (thinvirt rm), or keep the template: "
            "their disks are nothing without it",
        )
    if store.database.row("SELECT 1 FROM batches WHERE template_id = ?", (template.id,)):
        raise Conflict(
            f"template {template.ref} is being cloned this moment", hint="try again in a moment"
        )
