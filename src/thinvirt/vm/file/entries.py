"""The VMs of a file: names, templates and specifications, with all that is wrong with them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from thinvirt.errors import UsageError
from thinvirt.units import MIB, parse_size
from thinvirt.vm.file.document import Document, Finding, inner
from thinvirt.vm.names import batch_names
from thinvirt.vm.spec import Problem, VmSpec
from thinvirt.vm.spec.facts import field_types, read_facts
from thinvirt.vm.spec.validate import problems_of

SMALLEST_BARE_SIZE = MIB  # a smaller number without a suffix was not meant as bytes
_NUMBER_AT = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What a file says of a VM beside its specification.

    Attributes:
        name: the VM's; with `count` the beginning of the names of several.
        template: what it is a linked clone of (``NAME``, ``NAME@N``); "": its disks are its own.
        count: how many: NAME-001 and so on; None: one, named exactly so.
        extended_l2: whether a clone's overlay has subclusters; false for tools that cannot read
            them.
    """

    name: str
    template: str = ""
    count: int | None = None
    extended_l2: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a file.

    Attributes:
        heading: name, template, count.
        names: of the VMs it means.
        spec: what is asked of each; its first disk's size is that of a clone's overlay.
        written: the keys that stand in the file.
        place: where it stands: ``vms[0]``, "" if the file is one VM.
    """

    heading: Heading
    names: tuple[str, ...]
    spec: VmSpec
    written: frozenset[str]
    place: str


def read_entries(document: Document, file: str, findings: list[Finding]) -> list[Entry]:
    """Return the VMs of a document.

    Args:
        document: the file's.
        file: its name, for the findings.
        findings: whatever is wrong is added; if anything was, the result is incomplete.
    """
    problems: list[Problem] = []
    entries: list[Entry] = []
    for place, facts in _items(document.value, problems):
        entry = _entry(facts, place, problems)
        if entry is not None:
            entries.append(entry)
    taken: dict[str, str] = {}
    for entry in entries:
        for name in entry.names:
            if name in taken:
                problems.append(
                    Problem(inner(entry.place, "name"), f"two VMs are called '{name}' here")
                )
                break
            taken[name] = entry.place
    findings += [
        Finding(file, document.mark(each.place), each.place, each.message, each.fix)
        for each in problems
    ]
    return entries


def _items(value: Any, problems: list[Problem]) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and "vms" not in value:
        return [("", value)]
    if not isinstance(value, Mapping):
        problems.append(
            Problem("", "there are no VMs in it", "vms: and a list, or the keys of one VM")
        )
        return []
    problems += [
        Problem(str(key), f"there is no key '{key}' beside vms", "it belongs to a VM of the list")
        for key in value
        if key != "vms"
    ]
    if not isinstance(value["vms"], list):
        problems.append(Problem("vms", "vms is not a list", "- name: …"))
        return []
    return [(f"vms[{number}]", item) for number, item in enumerate(value["vms"])]


def _entry(facts: Any, place: str, problems: list[Problem]) -> Entry | None:
    if not isinstance(facts, Mapping):
        problems.append(Problem(place, f"{place} is not a group of keys", "name: …"))
        return None
    found: list[Problem] = []
    facts = _with_sizes(dict(facts), place, found)
    _refuse_unknown(facts, place, found)
    own = field_types(Heading)
    heading = read_facts(Heading, {k: v for k, v in facts.items() if k in own}, found, place)
    known = field_types(VmSpec)
    spec = read_facts(VmSpec, {k: v for k, v in facts.items() if k in known}, found, place)
    if not found:
        found += [replace(p, place=inner(place, p.place)) for p in problems_of(spec)]
        found += [replace(p, place=inner(place, p.place)) for p in _method(heading, spec)]
    names: tuple[str, ...] = ()
    if not any(p.place in (inner(place, "name"), inner(place, "count")) for p in found):
        try:
            names = tuple(batch_names(heading.name, heading.count))
        except UsageError as error:
            key = "count" if "count" in str(error) else "name"
            found.append(Problem(inner(place, key), str(error), error.hint))
    problems += found
    if found:
        return None
    return Entry(heading=heading, names=names, spec=spec, written=frozenset(facts), place=place)


def _refuse_unknown(facts: dict[str, Any], place: str, found: list[Problem]) -> None:
    from difflib import get_close_matches

    known = [*field_types(Heading), *field_types(VmSpec)]
    for key in facts:
        if key not in known:
            near = get_close_matches(key, [*known, "memory"], n=1)
            fix = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            found.append(Problem(inner(place, key), f"a VM has no key '{key}'", fix))


def _with_sizes(facts: dict[str, Any], place: str, found: list[Problem]) -> dict[str, Any]:
    """Return an entry with memory in MiB and disk sizes in bytes, however they were written."""
    if "memory" in facts:
        if "memory_mib" in facts:
            found.append(
                Problem(inner(place, "memory"), "memory stands there twice", "memory: 512M alone")
            )
        facts["memory_mib"] = _memory(facts.pop("memory"), inner(place, "memory"), found)
    elif isinstance(facts.get("memory_mib"), str):
        facts["memory_mib"] = _memory(facts["memory_mib"], inner(place, "memory_mib"), found)
    disks = facts.get("disks")
    if isinstance(disks, list):
        facts["disks"] = [
            _with_disk_size(disk, f"{inner(place, 'disks')}[{number}].size", found)
            for number, disk in enumerate(disks)
        ]
    return facts


def _memory(value: Any, place: str, found: list[Problem]) -> Any:
    if not isinstance(value, str):
        if value is not None and type(value) is not int:
            found.append(Problem(place, f"memory is '{value}'", "MiB, or a size such as 512M"))
            return None
        return value
    size = _size(value, place, "M", found)
    if size is not None and size % MIB:
        found.append(Problem(place, f"memory of '{value}' is not a whole number of MiB", "512M"))
        return None
    return None if size is None else size // MIB


def _with_disk_size(disk: Any, place: str, found: list[Problem]) -> Any:
    if not isinstance(disk, Mapping) or "size" not in disk:
        return disk
    size = disk["size"]
    if isinstance(size, str):
        return {**disk, "size": _size(size, place, "", found)}
    if type(size) is int and 0 < size < SMALLEST_BARE_SIZE:
        found.append(
            Problem(place, f"a disk of {size} bytes is hardly meant", f"{size}G, or {size}B")
        )
    return disk


def _size(text: str, place: str, suffix: str, found: list[Problem]) -> int | None:
    try:
        return parse_size(text, default_suffix=suffix)
    except UsageError as error:
        found.append(Problem(place, str(error), error.hint))
        return None


def _method(heading: Heading, spec: VmSpec) -> list[Problem]:
    """Return what is wrong with how a VM comes to its system."""
    first = spec.disks[0] if spec.disks else None
    if heading.template:
        if first is None or first.device != "disk" or first.source or first.backing:
            fix = "no source, no backing; further disks after it"
            return [Problem("disks", "a clone's first disk is an overlay of its template", fix)]
        return []
    found = []
    if heading.count is not None:
        found.append(Problem("count", "only clones of a template can be counted", "template: NAME"))
    if not (
        spec.install
        or spec.boot.kernel
        or "network" in spec.boot.order
        or any(disk.source or disk.backing for disk in spec.disks)
    ):
        fix = "template: NAME, a disk with a source or a backing, install, or boot.kernel"
        found.append(Problem("", "nothing says how the VM comes to its system", fix))
    return found
