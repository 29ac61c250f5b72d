"""From what is asked of a clone to its specification: what its template knows decides the rest."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from thinvirt.errors import Conflict, NotFound, UsageError
from thinvirt.service.new_disks import found_boot
from thinvirt.store import Template
from thinvirt.vm.screen import screen_remarks
from thinvirt.vm.spec import DiskSpec, VmSpec
from thinvirt.vm.spec.words import Bus, NetworkModel

if TYPE_CHECKING:
    from thinvirt.vm.osinfo.records import OsInfo

OS = "osinfo"  # facts of a template: its OS as osinfo-db calls it
FIRMWARE = "firmware"  # what it starts by: "bios", "uefi"
SECURE_BOOT = "secure_boot"


@dataclass(frozen=True, slots=True)
class Planned:
    """A clone's specification, with what people should know of it."""

    spec: VmSpec
    remarks: tuple[str, ...]


def planned_spec(
    template: Template, spec: VmSpec, *, os: str = "", firmware_asked: bool = False
) -> Planned:
    """Return the specification of clones of a template.

    What was asked for stays. Else the template's own facts count, then what suits its OS, then
    what suits all (`thinvirt.vm.spec.defaults`).

    Args:
        template: which.
        spec: what was asked for; its first disk describes the overlay.
        os: the guest's OS, as osinfo-db calls it; "": as the template knows.
        firmware_asked: whether `spec.firmware` was asked for.

    Raises:
        NotFound: there is no such OS, or a kernel is not there.
        UsageError: the first disk is described as something that no overlay can be.
    """
    _check_overlay(spec.disks)
    facts = template.facts
    info = _known_os(os, facts)
    spec = replace(spec, os=info.short_id if info is not None else "", boot=found_boot(spec.boot))
    if not firmware_asked and _firmware_of(facts) == ["uefi"]:
        spec = replace(spec, firmware="efi", secure_boot=bool(facts.get(SECURE_BOOT)))
    remarks = list(_firmware_remarks(template, spec))
    spec = _with_template(spec, facts)
    if info is not None:
        spec = _with_os(spec, info, drives_known=_bus_of(facts) is not None)
        remarks += _cautions(info, spec, template)
    remarks += [*screen_remarks(spec.graphics), *_network_remarks(spec)]
    return Planned(spec, tuple(remarks))


def refuse_shared(disks: tuple[DiskSpec, ...], count: int) -> None:
    """Return if several VMs can have these disks at the same time.

    Raises:
        Conflict: they would write to the same one.
    """
    for disk in disks:
        if count > 1 and disk.source and not (disk.shareable or disk.read_only):
            if disk.device == "cdrom":
                continue
            raise Conflict(
                f"disk '{disk.source}' cannot be given to {count} VMs: all would write to it",
                hint="size=GIB gives each its own; readonly=yes, or shareable=yes with format=raw "
                "for a cluster file system",
            )


def _check_overlay(disks: tuple[DiskSpec, ...]) -> None:
    """Refuse what the first disk of a clone cannot be."""
    if not disks:
        raise UsageError("a clone has a disk: the overlay of its template")
    first = disks[0]
    wrong = {
        "path": first.source,
        "device=cdrom": first.device == "cdrom",
        "backing_store": first.backing or first.backing_format,
        "format=raw": first.format == "raw",
        "readonly": first.read_only,
        "shareable": first.shareable,
        "sparse=no": not first.sparse,
    }
    for key, given in wrong.items():
        if given:
            raise UsageError(
                f"--disk: {key} does not go with a clone's first disk, "
                "which is an overlay of its template",
                hint="a further disk stands in a second --disk: --disk bus=virtio --disk …",
            )


def _known_os(asked: str, facts: dict[str, Any]) -> "OsInfo | None":
    name = asked or str(facts.get(OS, ""))
    if not name:
        # Templates that were built or pulled say "debian12", "debian 12"; "tiny" is no such system.
        name = str(facts.get("os", "")).replace(" ", "")
        if not any(character.isdigit() for character in name):
            return None
    from thinvirt.service.os_knowledge import OsKnowledge

    try:
        return OsKnowledge().find(name)
    except NotFound:
        if asked:
            raise
        return None  # the database that knew it when the template came is another one now


def _firmware_of(facts: dict[str, Any]) -> list[str]:
    found = facts.get(FIRMWARE)
    return [str(item) for item in found] if isinstance(found, list) else []


def _firmware_remarks(template: Template, spec: VmSpec) -> Iterator[str]:
    known = _firmware_of(template.facts)
    word = {"bios": "BIOS", "efi": "UEFI"}[spec.firmware]
    loader = {"bios": "bios", "efi": "uefi"}[spec.firmware]
    if known and loader not in known and not spec.boot.kernel:
        yield f"{template.ref} has no boot loader for {word}: it will not start"


def _network_remarks(spec: VmSpec) -> Iterator[str]:
    """Yield which networks of the host are not there yet; they may be when the VM is started."""
    for card in spec.cards:
        if card.kind not in ("bridge", "network"):
            continue
        from thinvirt.run.bridge import bridge_of_network, require_bridge

        try:
            require_bridge(card.name if card.kind == "bridge" else bridge_of_network(card.name))
        except (NotFound, Conflict) as error:
            yield f"{error}; before that it cannot be started ({error.hint})"


def _buses_of(facts: dict[str, Any]) -> list[Bus]:
    """Return the buses that a template is known to start from, the best first."""
    buses = facts.get("buses")
    known = [facts.get("bus"), *(buses if isinstance(buses, list) else [])]
    return [bus for bus in get_args(Bus) if bus in known]


def _bus_of(facts: dict[str, Any]) -> Bus | None:
    return next(iter(_buses_of(facts)), None)


def _with_template(spec: VmSpec, facts: dict[str, Any]) -> VmSpec:
    bus = _bus_of(facts)
    if bus in (None, "virtio"):  # virtio is what is left open anyway
        return spec
    return _on_bus(spec, bus)


def _on_bus(spec: VmSpec, bus: Bus | None) -> VmSpec:
    disks = tuple(
        replace(disk, bus=disk.bus or bus) if disk.device == "disk" else disk for disk in spec.disks
    )
    return replace(spec, disks=disks)


def _with_os(spec: VmSpec, info: "OsInfo", *, drives_known: bool) -> VmSpec:
    """Return the specification with bus and network cards that the OS has drivers for."""
    from thinvirt.vm.advice import advise
    from thinvirt.vm.spec.defaults import machine_of

    advice = advise(info)
    if not drives_known and advice.bus.value != "virtio":
        bus = next(bus for bus in get_args(Bus) if bus == advice.bus.value)
        if bus == "ide" and machine_of(spec) == "q35":
            bus = "sata"
        spec = _on_bus(spec, bus)
    if drives_known or advice.network.value == "virtio":
        return spec
    model = next((m for m in get_args(NetworkModel) if m == advice.network.value), None)
    cards = tuple(
        card if card.kind == "none" else replace(card, model=card.model or model)
        for card in spec.networks
    )
    return replace(spec, networks=cards)


def _cautions(info: "OsInfo", spec: VmSpec, template: Template) -> Iterator[str]:
    from thinvirt.service.installing import chosen_of
    from thinvirt.service.launch_facts import memory_mib
    from thinvirt.vm.advice import warnings_for

    given = replace(spec, memory_mib=memory_mib(spec, template))
    # The template's maker knows its guest better than a table of systems does.
    vouched = {"memory"} if "min_memory_mib" in template.facts else set()
    if spec.disks[0].bus in (None, *_buses_of(template.facts)) and _buses_of(template.facts):
        vouched.add("bus")
    for caution in warnings_for(info, chosen_of(given)):
        if caution.subject not in vouched:
            yield f"{caution.message.render()}; {caution.fix.render()}"
