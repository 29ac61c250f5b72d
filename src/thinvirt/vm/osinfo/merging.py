"""From records to systems: fragments of one id put together, and what is inherited followed.

The rules are libosinfo's (osinfo_loader.c, osinfo_os.c, osinfo_product.c):

- The fragments of one id add up: a text of a later one replaces, lists grow.
- A system inherits along ``derives-from`` and then ``clones``, depth first; ``upgrades`` tells
  the order of releases and hands nothing down.
- Of what is said several times on that way, the nearest statement counts, also the one that a
  device or a firmware is not supported.
- Minimum, recommended and other resources are inherited only where ``inherit="true"`` asks for
  it, figure by figure, per architecture.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace

from thinvirt.vm.osinfo.fragments import OsRecord
from thinvirt.vm.osinfo.records import Device, Firmware, Kin, OsInfo, Resources


def merge_fragments(records: Iterable[OsRecord]) -> dict[str, OsRecord]:
    """Return one record per id, in the order in which the ids first appear."""
    merged: dict[str, OsRecord] = {}
    for record in records:
        known = merged.get(record.id)
        merged[record.id] = record if known is None else _added(known, record)
    return merged


def _added(first: OsRecord, second: OsRecord) -> OsRecord:
    changes = {}
    for field in fields(OsRecord):
        before, after = getattr(first, field.name), getattr(second, field.name)
        if isinstance(after, tuple):
            changes[field.name] = before + after
        elif after:
            changes[field.name] = after
    changes["short_ids"] = tuple(dict.fromkeys(changes["short_ids"]))
    return replace(first, **changes)


def lineage(record: OsRecord, records: Mapping[str, OsRecord]) -> Iterator[OsRecord]:
    """Yield the record itself and all that it derives from or clones, nearest first.

    Relatives that are not there are passed over, and none comes twice, so that a circle ends.
    """
    seen = set()
    waiting = [record]
    while waiting:
        current = waiting.pop()
        if current.id in seen:
            continue
        seen.add(current.id)
        yield current
        # A stack, so reversed: the first relative is followed to its end before the second.
        relatives = (*current.derives_from, *current.clones)
        waiting.extend(records[name] for name in reversed(relatives) if name in records)


def resolve(
    record: OsRecord,
    records: Mapping[str, OsRecord],
    devices: Mapping[str, Device],
    *,
    source: str = "osinfo-db",
) -> OsInfo:
    """Return a system with everything it inherits.

    Args:
        record: its own record.
        records: all of them by id, for its relatives.
        devices: what is known of devices, by id; others are kept with their id alone.
        source: where it is from.
    """
    family = list(lineage(record, records))
    return OsInfo(
        id=record.id,
        short_ids=record.short_ids,
        name=record.name or record.id,
        vendor=record.vendor,
        version=record.version,
        family=record.family,
        distro=record.distro,
        codename=record.codename,
        release_date=record.release_date,
        eol_date=record.eol_date,
        status=record.status or "released",
        kin=tuple(
            Kin(k.short_ids[0] if k.short_ids else k.id, k.distro, k.version) for k in family[1:]
        ),
        upgrades=record.upgrades,
        devices=tuple(_devices(family, devices)),
        firmware=tuple(_firmware(family)),
        resources=tuple(_inherited(own, family[1:]) for own in record.resources),
        images=record.images,
        kernel_url_argument=_nearest(family, "kernel_url_argument"),
        cloud_image_username=_nearest(family, "cloud_image_username"),
        good_buses=record.good_buses,
        bad_buses=record.bad_buses,
        source=source,
    )


def _nearest(family: list[OsRecord], name: str) -> str:
    values = (getattr(member, name) for member in family)
    return next((value for value in values if value), "")


def _devices(family: list[OsRecord], devices: Mapping[str, Device]) -> Iterator[Device]:
    links: dict[str, bool] = {}
    for member in family:
        own: dict[str, bool] = {}
        for link in member.devices:
            own[link.device] = link.supported  # within one system the last statement counts
        links = {**own, **links}
    for device in sorted(name for name, supported in links.items() if supported):
        yield devices.get(device, Device(device))


def _firmware(family: list[OsRecord]) -> Iterator[Firmware]:
    known = set()
    for member in family:
        for firmware in member.firmware:
            key = (firmware.architecture, firmware.kind)
            if key not in known:
                known.add(key)
                yield firmware


def _inherited(own: Resources, relatives: list[OsRecord]) -> Resources:
    if not own.inherit:
        return own
    for relative in relatives:
        for other in relative.resources:
            if (other.kind, other.architecture) == (own.kind, own.architecture):
                own = replace(
                    own,
                    cpus=other.cpus if own.cpus is None else own.cpus,
                    cpu_hz=other.cpu_hz if own.cpu_hz is None else own.cpu_hz,
                    memory_bytes=(
                        other.memory_bytes if own.memory_bytes is None else own.memory_bytes
                    ),
                    disk_bytes=other.disk_bytes if own.disk_bytes is None else own.disk_bytes,
                )
    return own
