"""A VM as an entry of a file, to be read back by `thinvirt.vm.file.entries`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from thinvirt.units import GIB, KIB, MIB
from thinvirt.vm.file.entries import Heading
from thinvirt.vm.spec import VmSpec
from thinvirt.vm.spec.facts import to_facts


def entry_facts(heading: Heading, spec: VmSpec) -> dict[str, Any]:
    """Return an entry of a file, sizes as text; what is as everywhere is left away."""
    facts = to_facts(heading) | spec.to_facts()
    memory = facts.pop("memory_mib", None)
    if memory is not None:
        facts["memory"] = f"{memory}M"
    if "disks" in facts:
        facts["disks"] = [_with_size(disk) for disk in facts["disks"]]
    return facts


def _with_size(disk: Mapping[str, Any]) -> dict[str, Any]:
    size = disk.get("size")
    return {**disk, "size": size_text(size)} if size is not None else dict(disk)


def size_text(size: int) -> str:
    """Return a size exactly, with the largest suffix that leaves a whole number."""
    for unit, letter in ((GIB, "G"), (MIB, "M"), (KIB, "K")):
        if size and size % unit == 0:
            return f"{size // unit}{letter}"
    return f"{size}B"


def to_yaml(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return a file of these VMs.

    Raises:
        ModuleNotFoundError: PyYAML is not installed.
    """
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
        """Writes texts of several lines as such, and no aliases."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    written: str = yaml.dump(
        {"vms": [dict(entry) for entry in entries]},
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    return written


def to_json(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the same as JSON."""
    return json.dumps({"vms": list(entries)}, ensure_ascii=False, indent=2) + "\n"
