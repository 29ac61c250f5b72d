"""VMs as files describe them: what is missing is made, what differs is refused with the difference.

All of the clones that are missing are made in one transaction; VMs with disks of their own follow,
each whole or not at all.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from thinvirt.errors import Conflict, NotFound, ThinvirtError
from thinvirt.service import clones, installing
from thinvirt.service.clone_spec import planned_spec
from thinvirt.service.new_disks import found_disk
from thinvirt.store import Store, Vm
from thinvirt.store.batches import Part, clone_part, create_together
from thinvirt.vm.file.document import BadText, Finding, InvalidFile, Mark
from thinvirt.vm.file.entries import Entry, Heading, read_entries
from thinvirt.vm.spec import InvalidSpec, VmSpec

State = Literal["missing", "unchanged", "differs"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not as written; None: there is none."""

    key: str
    now: Any
    written: Any

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.key}: now {_shown(self.now)}, written {_shown(self.written)}"


@dataclass(frozen=True, slots=True)
class Found:
    """One VM of a file beside what the store has of that name."""

    name: str
    entry: Entry
    state: State
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """What `apply` would do, found possible as far as can be told without doing it."""

    found: tuple[Found, ...]
    clones: tuple[clones.ClonePlan, ...]
    own: tuple[installing.InstallPlan, ...]


def read_files(paths: Sequence[Path]) -> list[tuple[str, Entry, Mark | None]]:
    """Return the VMs of files, each with its file and place.

    Raises:
        InvalidFile: something is wrong; everything is named.
        NotFound: a file is not there.
    """
    findings: list[Finding] = []
    entries: list[tuple[str, Entry, Mark | None]] = []
    seen: set[str] = set()
    for path in paths:
        name = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise NotFound(f"there is no file '{name}'") from None
        except UnicodeDecodeError:
            findings.append(Finding(name, None, "", "it is not text in UTF-8"))
            continue
        try:
            document = _reader(path)(text)
        except BadText as error:
            findings.append(Finding(name, error.mark, "", error.message, error.hint))
            continue
        for entry in read_entries(document, name, findings):
            mark = document.mark(entry.place)
            for double in seen.intersection(entry.names):
                message = f"VM '{double}' is in another file already"
                findings.append(Finding(name, mark, entry.place, message))
            seen.update(entry.names)
            entries.append((name, entry, mark))
    if findings:
        raise InvalidFile(findings)
    return entries


def _reader(path: Path) -> Any:
    if path.suffix == ".json":
        from thinvirt.vm.file.json_text import read_json

        return read_json
    from thinvirt.vm.file.yaml_text import read_yaml

    return read_yaml


def plan(store: Store, entries: Sequence[tuple[str, Entry, Mark | None]]) -> ApplyPlan:
    """Return what `apply` would make, and how what is there compares.

    Raises:
        InvalidFile: VMs cannot be made; all of them are named, each with its reason.
    """
    found: list[Found] = []
    linked: list[clones.ClonePlan] = []
    own: list[installing.InstallPlan] = []
    findings: list[Finding] = _shared_disks(entries)
    for file, entry, mark in entries:
        names = set(store.catalog.taken(entry.names))
        missing = [name for name in entry.names if name not in names]
        try:
            for name in entry.names:
                if name in names:
                    found.append(_compare(store, entry, store.catalog.find_vm(name)))
                else:
                    found.append(Found(name, entry, "missing"))
            if missing and entry.heading.template:
                planned = clones.plan(store, _clone_request(entry))
                linked.append(replace(planned, names=missing))
            elif missing:
                own.append(installing.plan(store, _install_request(entry)))
        except InvalidSpec as error:
            findings += [
                Finding(file, mark, f"{entry.place}.{p.place}".strip("."), p.message, p.fix)
                for p in error.problems
            ]
        except ThinvirtError as error:
            findings.append(Finding(file, mark, entry.place, str(error), error.hint))
    if findings:
        raise InvalidFile(findings)
    return ApplyPlan(tuple(found), tuple(linked), tuple(own))


def _shared_disks(entries: Sequence[tuple[str, Entry, Mark | None]]) -> list[Finding]:
    """Return the disks that two VMs of the files would write to: their data would be lost."""
    users: dict[str, str] = {}
    findings = []
    for file, entry, mark in entries:
        name = entry.names[0]
        for number, disk in enumerate(entry.spec.disks):
            if not disk.source or disk.device != "disk" or disk.shareable or disk.read_only:
                continue
            other = users.setdefault(os.path.realpath(disk.source), name)
            if other != name:
                place = f"{entry.place}.disks[{number}].source".strip(".")
                message = f"disk '{disk.source}' is that of VM '{other}' too"
                findings.append(Finding(file, mark, place, message, "a disk of its own"))
    return findings


def apply(store: Store, planned: ApplyPlan) -> list[Vm]:
    """Make the VMs that are missing, and return them.

    Raises:
        Conflict: a VM that is there differs; nothing was made.
        NoSpace: the file system is full; no clone was made.
    """
    differing = [each for each in planned.found if each.state == "differs"]
    if differing:
        what = "; ".join(
            f"VM '{each.name}': {', '.join(map(str, each.differences))}" for each in differing
        )
        raise Conflict(
            f"what is there differs from what is written: {what}",
            hint="write what is there (thinvirt show NAME --as yaml), or remove the VM first",
        )
    parts = [_part(store, each) for each in planned.clones]
    if parts:
        create_together(store, parts, command="thinvirt apply")
    made = [store.catalog.find_vm(name) for each in planned.clones for name in each.names]
    return made + [installing.install(store, each) for each in planned.own]


def _part(store: Store, planned: clones.ClonePlan) -> Part:
    return clone_part(
        store,
        planned.template,
        planned.names,
        spec_json=planned.spec.to_json(),
        virtual_size=planned.virtual_size,
        further=clones.make_further(store, planned),
        extended_l2=planned.extended_l2,
    )


def _overlay_spec(spec: VmSpec) -> VmSpec:
    """Return a clone's specification with its overlay's size left to its batch."""
    return replace(spec, disks=(replace(spec.disks[0], size=None), *spec.disks[1:]))


def _clone_request(entry: Entry) -> clones.CloneRequest:
    return clones.CloneRequest(
        template=entry.heading.template,
        name=entry.heading.name,
        count=entry.heading.count,
        size=entry.spec.disks[0].size,
        extended_l2=entry.heading.extended_l2,
        spec=_overlay_spec(entry.spec),
        os=entry.spec.os,
        firmware_asked="firmware" in entry.written,
    )


def _install_request(entry: Entry) -> installing.InstallRequest:
    info = None
    if entry.spec.os:
        from thinvirt.service.os_knowledge import OsKnowledge

        info = OsKnowledge().find(entry.spec.os)
    return installing.InstallRequest(
        name=entry.heading.name,
        spec=entry.spec,
        os=info,
        firmware_asked="firmware" in entry.written,
    )


def _compare(store: Store, entry: Entry, vm: Vm) -> Found:
    """Return how a VM that is there compares with what is written."""
    now = heading_and_spec(vm)
    template = vm.template
    if entry.heading.template and template is not None:
        written = entry.heading.template
        if written in (template.name, template.ref) or template.digest.startswith(written):
            written = template.ref
        spec = planned_spec(
            template,
            _overlay_spec(entry.spec),
            os=entry.spec.os,
            firmware_asked="firmware" in entry.written,
        ).spec
        further = tuple(found_disk(disk) for disk in spec.disks[1:])
        size = entry.spec.disks[0].size
        size = None if size == template.virtual_size else size
        spec = replace(spec, disks=(replace(spec.disks[0], size=size), *further))
        heading = replace(entry.heading, name=vm.name, count=None, template=written)
    elif entry.heading.template:
        heading, spec = replace(entry.heading, name=vm.name, count=None), now[1]
    else:
        spec = installing.plan(None, _install_request(entry)).spec
        heading = replace(entry.heading, name=vm.name, extended_l2=now[0].extended_l2)
        if spec.install is not None and now[1].install is None:  # it has been installed since
            spec = replace(spec, install=None, disks=now[1].disks)
    left = {**_flat(_facts(now[0])), **_flat(_facts(now[1]))}
    right = {**_flat(_facts(heading)), **_flat(_facts(spec))}
    differences = tuple(
        Difference(key, left.get(key), right.get(key))
        for key in dict.fromkeys([*left, *right])
        if left.get(key) != right.get(key)
    )
    return Found(vm.name, entry, "differs" if differences else "unchanged", differences)


def heading_and_spec(vm: Vm) -> tuple[Heading, VmSpec]:
    """Return a VM as an entry of a file says it."""
    spec, template = vm.spec, vm.template
    if template is None:
        return Heading(name=vm.name), spec
    size = vm.batch.virtual_size
    first = replace(spec.disks[0], size=None if size == template.virtual_size else size)
    spec = replace(spec, disks=(first, *spec.disks[1:]))
    heading = Heading(name=vm.name, template=template.ref, extended_l2=vm.batch.extended_l2)
    return heading, spec


def _facts(value: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Return every single value by its place."""
    if isinstance(value, dict):
        items = [(f"{place}.{key}" if place else key, each) for key, each in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{place}[{number}]", each) for number, each in enumerate(value)]
    else:
        return {place: value}
    return {key: leaf for at, each in items for key, leaf in _flat(each, at).items()}


def _shown(value: Any) -> str:
    return "nothing" if value in (None, "") else f"'{value}'"
