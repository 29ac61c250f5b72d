"""What the catalogue knows of templates, batches and VMs: queries, and single-row changes.

Changes of several steps (a batch, a removal, a publication) are in modules of their own.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from thinvirt.errors import NotFound, UsageError
from thinvirt.store.database import Database, Row
from thinvirt.store.near import suggest
from thinvirt.store.records import Batch, Fingerprint, Template, Vm, damaged

PAGE = 1000  # rows a streamed listing reads at once
_TEMPLATE = (
    "id, name, version, digest, format, virtual_size, file_size, source, facts, created, "
    "mtime_ns, ctime_ns, inode, device"
)
_VM = "id, name, batch_id, overrides"
_MIN_DIGEST_PREFIX = 6
_MAX_VERSION_DIGITS = 18  # SQLite counts to 2^63


class Catalog:
    """Queries of one store's catalogue. A batch's shared facts are read once and kept."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._templates: dict[int, Template] = {}
        self._batches: dict[int, Batch] = {}

    # --- templates ---

    def templates(self) -> list[Template]:
        """Return all templates, by name, then newest version first."""
        rows = self.database.rows(
            f"SELECT {_TEMPLATE} FROM templates ORDER BY name, version DESC"  # noqa: S608
        )
        return [_template(row) for row in rows]

    def find_template(self, ref: str) -> Template:
        """Return the template that `ref` means: NAME (newest version), NAME@N, or part of a digest.

        Raises:
            NotFound: there is none; near names are suggested.
            UsageError: the beginning of a digest is ambiguous, or the version is no number.
        """
        name, at, version = ref.partition("@")
        if at and not (version.isascii() and version.isdecimal()):
            raise UsageError(f"'{ref}' names no version", hint=f"a number, such as {name}@1")
        if len(version) > _MAX_VERSION_DIGITS:
            raise self._no_template(ref, name)
        rows = self.database.rows(
            f"SELECT {_TEMPLATE} FROM templates WHERE name = ?1 AND (?2 IS NULL OR version = ?2) "  # noqa: S608
            "ORDER BY version DESC LIMIT 1",
            (name, int(version) if at else None),
        )
        if not rows and not at:
            rows = self._by_digest(ref)
        if not rows:
            raise self._no_template(ref, name)
        return _template(rows[0])

    def template_by_digest(self, name: str, digest: str) -> Template | None:
        """Return the newest version of `name` that has this digest, or None."""
        row = self.database.row(
            f"SELECT {_TEMPLATE} FROM templates WHERE name = ? AND digest = ? "  # noqa: S608
            "ORDER BY version DESC LIMIT 1",
            (name, digest),
        )
        return None if row is None else _template(row)

    def has_digest(self, digest: str) -> bool:
        """Tell whether any template has this digest."""
        return bool(self.database.row("SELECT 1 FROM templates WHERE digest = ?", (digest,)))

    def clone_counts(self) -> dict[int, int]:
        """Return how many VMs each template has, by template id; those without are left out."""
        rows = self.database.rows(
            "SELECT batches.template_id, count(*) FROM vms JOIN batches "
            "ON batches.id = vms.batch_id GROUP BY 1"
        )
        return {int(row[0]): int(row[1]) for row in rows}

    def clones(self, template: Template, *, limit: int = -1) -> list[str]:
        """Return the names of a template's VMs, in the order they were made."""
        rows = self.database.rows(
            "SELECT vms.name FROM batches JOIN vms "
            "ON vms.id BETWEEN batches.first_vm AND batches.last_vm "
            "WHERE batches.template_id = ? ORDER BY vms.id LIMIT ?",
            (template.id, limit),
        )
        return [str(row[0]) for row in rows]

    def batches_of(self, template: Template) -> list[tuple[int, int]]:
        """Return ``(batch, number of VMs)`` of every batch of a template."""
        rows = self.database.rows(
            "SELECT batches.id, count(vms.id) FROM batches LEFT JOIN vms "
            "ON vms.id BETWEEN batches.first_vm AND batches.last_vm "
            "WHERE batches.template_id = ? AND batches.state = 'committed' GROUP BY batches.id",
            (template.id,),
        )
        return [(int(row[0]), int(row[1])) for row in rows]

    def set_fingerprint(self, digest: str, fingerprint: Fingerprint) -> None:
        """Record what `stat` says of a file whose digest has just been found right."""
        with self.database.transaction():
            self.database.run(
                "UPDATE templates SET file_size = ?, mtime_ns = ?, ctime_ns = ?, inode = ?, "
                "device = ? WHERE digest = ?",
                (
                    fingerprint.size,
                    fingerprint.mtime_ns,
                    fingerprint.ctime_ns,
                    fingerprint.inode,
                    fingerprint.device,
                    digest,
                ),
            )
        self._templates.clear()
        self._batches.clear()

    def _by_digest(self, ref: str) -> list[Row]:
        prefix = ref.removeprefix("sha256:").lower()
        if len(prefix) < _MIN_DIGEST_PREFIX or not all(c in "0123456789abcdef" for c in prefix):
            return []
        rows = self.database.rows(
            f"SELECT {_TEMPLATE} FROM templates WHERE digest GLOB ? ORDER BY id DESC",  # noqa: S608
            (prefix + "*",),
        )
        if len({row[3] for row in rows}) > 1:
            raise UsageError(f"several templates have a digest that begins with '{prefix}'")
        return rows

    def _no_template(self, ref: str, name: str) -> NotFound:
        known = [
            (str(row[0]), int(row[1]))
            for row in self.database.rows("SELECT name, max(version) FROM templates GROUP BY name")
        ]
        newest = dict(known).get(name)
        if newest is not None:
            return NotFound(f"there is no template '{ref}'", hint=f"the newest is {name}@{newest}")
        if not known:
            return NotFound(
                f"there is no template '{ref}': the store has none yet",
                hint="thinvirt template build tiny, template pull NAME, or template import FILE",
            )
        near = suggest(name, [known_name for known_name, _ in known])
        return NotFound(f"there is no template '{ref}'", hint=near or "thinvirt template ls")

    # --- VMs ---

    def vm_count(self) -> int:
        """Return how many VMs there are."""
        row = self.database.row("SELECT count(*) FROM vms")
        return int(row[0]) if row else 0

    def find_vm(self, name: str) -> Vm:
        """Return the VM of this name.

        Raises:
            NotFound: there is none; near names are suggested.
        """
        row = self.database.row(f"SELECT {_VM} FROM vms WHERE name = ?", (name,))  # noqa: S608
        if row is None:
            raise self._no_vm(name)
        return self._vm(row)

    def vm_by_id(self, vm_id: int) -> Vm | None:
        """Return the VM with this number, or None if it is gone."""
        row = self.database.row(f"SELECT {_VM} FROM vms WHERE id = ?", (vm_id,))  # noqa: S608
        return None if row is None else self._vm(row)

    def find_vms(self, patterns: Sequence[str]) -> list[Vm]:
        """Return the VMs that names and shell-style patterns mean, by name, each once.

        Raises:
            NotFound: one of them means none.
        """
        found: dict[str, Vm] = {}
        for pattern in patterns:
            if not is_pattern(pattern):
                vm = self.find_vm(pattern)
                found[vm.name] = vm
                continue
            matches = list(self.iter_vms([pattern]))
            if not matches:
                raise NotFound(f"no VM's name matches '{pattern}'", hint="thinvirt ls")
            found.update((vm.name, vm) for vm in matches)
        return [found[name] for name in sorted(found)]

    def iter_vms(
        self,
        patterns: Sequence[str] = (),
        *,
        template: Template | None = None,
        ids: Sequence[int] | None = None,
        limit: int | None = None,
    ) -> Iterator[Vm]:
        """Yield VMs by name, reading a page at a time: the first come at once, however many follow.

        Args:
            patterns: names or shell-style patterns of which one must match; none: all VMs.
            template: only its clones.
            ids: only the VMs with these numbers.
            limit: at most so many.
        """
        where, values = _conditions(patterns, template, ids)
        last, left = "", limit
        while left is None or left > 0:
            page = PAGE if left is None else min(PAGE, left)
            rows = self.database.rows(
                f"SELECT {_VM} FROM vms WHERE name > ?{where} ORDER BY name LIMIT ?",  # noqa: S608
                (last, *values, page),
            )
            yield from (self._vm(row) for row in rows)
            if len(rows) < page:
                return
            last = rows[-1][1]
            left = None if left is None else left - page

    def count_vms(self, patterns: Sequence[str] = (), *, template: Template | None = None) -> int:
        """Return how many VMs `iter_vms` would yield."""
        where, values = _conditions(patterns, template, None)
        row = self.database.row(
            f"SELECT count(*) FROM vms WHERE name > ''{where}",  # noqa: S608
            values,
        )
        return int(row[0]) if row else 0

    def vms_of_batch(self, batch: Batch) -> list[Vm]:
        """Return a batch's VMs, in the order they were made."""
        rows = self.database.rows(
            f"SELECT {_VM} FROM vms WHERE id BETWEEN (SELECT first_vm FROM batches WHERE id = ?1) "  # noqa: S608
            "AND (SELECT last_vm FROM batches WHERE id = ?1) ORDER BY id",
            (batch.id,),
        )
        return [self._vm(row) for row in rows]

    def taken(self, names: Sequence[str]) -> list[str]:
        """Return those of `names` that VMs have."""
        rows = self.database.rows(
            "SELECT name FROM vms WHERE name IN (SELECT value FROM json_each(?)) ORDER BY name",
            (json.dumps(names),),
        )
        return [str(row[0]) for row in rows]

    def set_overrides(self, vm: Vm, overrides_json: str | None) -> None:
        """Record what a VM has other than its batch's specification."""
        with self.database.transaction():
            self.database.run("UPDATE vms SET overrides = ? WHERE id = ?", (overrides_json, vm.id))

    def _no_vm(self, name: str) -> NotFound:
        near = suggest(name, self._names_near(name))
        return NotFound(f"there is no VM '{name}'", hint=near or "thinvirt ls")

    def _names_near(self, name: str) -> list[str]:
        """Return some names that begin like `name`: looking at all would take long for 100,000."""
        names: dict[str, None] = {}
        for length in range(len(name), -1, -1):
            rows = self.database.rows(
                "SELECT name FROM vms WHERE name >= ?1 AND name < ?1 || '\x7f' LIMIT 100",
                (name[:length],),
            )
            names.update((str(row[0]), None) for row in rows)
            if len(names) >= 100:
                break
        return list(names)

    # --- rows to values ---

    def batch(self, batch_id: int) -> Batch:
        """Return a batch.

        Raises:
            NotFound: there is none with this number.
        """
        if batch_id not in self._batches:
            row = self.database.row(
                "SELECT template_id, spec, virtual_size, extended_l2, created "
                "FROM batches WHERE id = ?",
                (batch_id,),
            )
            if row is None:
                raise NotFound(f"there is no batch {batch_id}")
            self._batches[batch_id] = Batch(
                batch_id,
                None if row[0] is None else self._template(row[0]),
                row[1],
                row[2],
                bool(row[3]),
                row[4],
            )
        return self._batches[batch_id]

    def _template(self, template_id: int) -> Template:
        if template_id not in self._templates:
            row = self.database.row(
                f"SELECT {_TEMPLATE} FROM templates WHERE id = ?",  # noqa: S608
                (template_id,),
            )
            if row is None:
                raise NotFound(f"there is no template number {template_id}")
            self._templates[template_id] = _template(row)
        return self._templates[template_id]

    def _vm(self, row: Row) -> Vm:
        return Vm(row[0], row[1], self.batch(row[2]), row[3])


def is_pattern(text: str) -> bool:
    """Tell whether `text` is a shell-style pattern rather than a name."""
    return any(character in text for character in "*?[")


def _conditions(
    patterns: Sequence[str], template: Template | None, ids: Sequence[int] | None
) -> tuple[str, list[Any]]:
    """Return the further conditions of a query for VMs, and their values."""
    where, values = "", list[Any]()
    if patterns:
        where += f" AND ({' OR '.join(['name GLOB ?'] * len(patterns))})"
        values += [_glob(pattern) for pattern in patterns]
    if template is not None:
        where += " AND batch_id IN (SELECT id FROM batches WHERE template_id = ?)"
        values.append(template.id)
    if ids is not None:
        where += " AND id IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(list(ids)))
    return where, values


def _glob(pattern: str) -> str:
    """Return a shell's pattern as SQLite's GLOB has it: a class is negated by ``^``, not ``!``."""
    return pattern.replace("[!", "[^")


def _facts(row: Row) -> dict[str, Any]:
    try:
        return dict(json.loads(row[8]).items())
    except (ValueError, AttributeError) as error:
        raise damaged(f"what is known of template {row[1]}@{row[2]}") from error


def _template(row: Row) -> Template:
    return Template(
        id=row[0],
        name=row[1],
        version=row[2],
        digest=row[3],
        format=row[4],
        virtual_size=row[5],
        file_size=row[6],
        source=row[7],
        facts=_facts(row),
        created=row[9],
        fingerprint=Fingerprint(row[6], row[10], row[11], row[12], row[13]),
    )
