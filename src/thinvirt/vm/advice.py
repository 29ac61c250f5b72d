"""What to give a VM for the operating system it runs, with the reason of each choice.

Where osinfo-db says something, the choices are those of virt-install 4.1 (its Guest.set_defaults);
where it is silent and thinvirt's table of drivers is not, the table counts. Pure: a system in,
advice out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from thinvirt.units import GIB, MIB, format_size
from thinvirt.vm.advice_texts import Text
from thinvirt.vm.os_support import BusSupport, bus_support
from thinvirt.vm.osinfo.records import OsInfo

DEFAULT_MEMORY_MIB: Final = 1024
DEFAULT_DISK_GIB: Final = 20
DEFAULT_VCPUS: Final = 1
BUSES: Final = ("virtio", "scsi", "sata", "ide", "usb")
_CARDS: Final = ("e1000", "rtl8139", "ne2k_pci", "pcnet")  # virt-install's order

Certainty = Literal["certain", "likely", "possible"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing to choose, and why."""

    value: str | int
    reason: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What suits a system; sizes as the names say.

    Attributes:
        buses: of every disk bus, whether the system drives it.
        notes: what else people should know.
    """

    bus: Choice
    cache: Choice
    network: Choice
    machine: Choice
    firmware: Choice
    memory_mib: Choice
    disk_gib: Choice
    vcpus: Choice
    video: Choice
    rng: Choice
    tpm: Choice
    clock: Choice
    buses: tuple[BusSupport, ...]
    notes: tuple[Text, ...]

    def choices(self) -> Iterator[tuple[str, Choice]]:
        """Yield every choice with its name."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Choice):
                yield field.name, value

    def as_facts(self, language: str = "en") -> dict[str, Any]:
        """Return the advice JSON-ready: value and reason of each choice, buses and notes."""
        facts: dict[str, Any] = {
            name: {
                "value": choice.value,
                "reason": choice.reason.render(language),
                "reason_key": choice.reason.key,
            }
            for name, choice in self.choices()
        }
        facts["buses"] = {
            one.bus: {"support": one.value, "source": one.source} for one in self.buses
        }
        facts["notes"] = [note.render(language) for note in self.notes]
        return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What was chosen for a VM, as plain words; "" and None mean that nothing was.

    Attributes:
        buses: of each disk that the system starts from or is installed to.
        network_models: of each card; empty: no network at all, if `no_network`.
        driver_disc: the virtio-win disc is attached, or its drivers are in the image already.
    """

    buses: tuple[str, ...] = ()
    machine: str = ""
    firmware: str = ""
    memory_mib: int | None = None
    disk_bytes: int | None = None
    vcpus: int | None = None
    network_models: tuple[str, ...] = ()
    no_network: bool = False
    seed: bool = True
    tpm: bool = False
    secure_boot: bool = False
    driver_disc: bool = False
    installing: bool = True


@dataclass(frozen=True, slots=True)
class Caution:
    """Something in a choice that cannot work, or may not.

    Attributes:
        subject: which choice: "bus", "memory", "disk", "vcpus", "machine", "firmware", "tpm",
            "network".
        certainty: "certain": it cannot work; "likely": it will hardly; "possible": nobody knows.
    """

    subject: str
    certainty: Certainty
    message: Text
    fix: Text

    def as_facts(self, language: str = "en") -> dict[str, str]:
        """Return the warning JSON-ready."""
        return {
            "subject": self.subject,
            "certainty": self.certainty,
            "message": self.message.render(language),
            "fix": self.fix.render(language),
        }


def advise(
    info: OsInfo, *, architecture: str = "x86_64", driver_disc: bool = False, today: str = ""
) -> Advice:
    """Return what suits a system.

    Args:
        info: the system.
        architecture: as osinfo-db names it; the needs may differ.
        driver_disc: Windows: the virtio-win disc is attached, or its drivers are installed.
        today: ISO date, to tell whether support has ended; "" leaves that out.
    """
    machine = _machine(info)
    firmware = _firmware(info, architecture)
    return Advice(
        bus=_bus(info, str(machine.value), driver_disc=driver_disc),
        cache=_cache(info),
        network=_network(info, str(machine.value), driver_disc=driver_disc),
        machine=machine,
        firmware=firmware,
        memory_mib=_need(info, "memory", architecture, MIB, DEFAULT_MEMORY_MIB),
        disk_gib=_need(info, "disk", architecture, GIB, DEFAULT_DISK_GIB),
        vcpus=_need(info, "vcpus", architecture, 1, DEFAULT_VCPUS),
        video=_video(info, str(firmware.value)),
        rng=_chosen("virtio", "rng-virtio")
        if info.drives("virtio-rng")
        else _chosen("none", "rng-none"),
        tpm=_chosen("tpm-crb", "tpm-needed") if needs_tpm(info) else _chosen("none", "tpm-none"),
        clock=_chosen("localtime", "clock-localtime")
        if info.is_windows or info.family == "solaris"
        else _chosen("utc", "clock-utc"),
        buses=tuple(bus_support(info, bus) for bus in BUSES),
        notes=tuple(_notes(info, today=today, driver_disc=driver_disc)),
    )


def _chosen(value: str | int, key: str, **values: object) -> Choice:
    return Choice(value, Text.of(key, **values))


def needs_tpm(info: OsInfo) -> bool:
    """Return whether the installer insists on a TPM 2.0 and Secure Boot."""
    return info.distro == "win" and info.version.partition(".")[0] == "11"


def _bus(info: OsInfo, machine: str, *, driver_disc: bool) -> Choice:
    virtio = bus_support(info, "virtio")
    if virtio.value == "good":
        return _chosen("virtio", "bus-virtio", source=virtio.source)
    if info.is_windows and driver_disc:
        return _chosen("virtio", "bus-virtio-disc")
    order = ("sata",) if machine == "q35" else ("ide", "sata")
    supports = [bus_support(info, bus) for bus in order]
    best = next((one for one in supports if one.value != "bad"), supports[0])
    return _chosen(best.bus, _bus_reason(info, best), source=best.source)


def _bus_reason(info: OsInfo, support: BusSupport) -> str:
    if info.is_windows:
        return f"bus-{support.bus}-windows"
    if info.is_generic:
        return f"bus-{support.bus}-generic"
    known = support.bus == "ide" or support.value == "good"
    return f"bus-{support.bus}" if known else "bus-sata-unlisted"


def _cache(info: OsInfo) -> Choice:
    """Return writethrough for systems whose file systems do not flush, else writeback.

    ext3 was mounted without barriers by default; distributions changed to ext4 or to barriers
    with kernels of 2010 and later. Windows before Vista does not flush a disk cache reliably.
    """
    old_linux = info.family == "linux" and "" < info.release_date < "2010"
    bare = info.version.partition(".")[0]
    rhel_5 = info.distro in ("rhel", "centos", "ol", "scientificlinux") and bare == "5"
    old_windows = info.is_windows and (info.family != "winnt" or _is_before_vista(info))
    if old_linux or rhel_5 or old_windows:
        return _chosen("writethrough", "cache-writethrough")
    return _chosen("writeback", "cache-writeback")


def _is_before_vista(info: OsInfo) -> bool:
    major = info.version.partition(".")[0]
    return major.isdigit() and int(major) < 6


def _network(info: OsInfo, machine: str, *, driver_disc: bool) -> Choice:
    # A system whose virtio driver only our table knows has the one for the network with it.
    unlisted = not info.drives("virtio-blk") and bus_support(info, "virtio").value == "good"
    if info.drives("virtio-net") or unlisted:
        return _chosen("virtio", "network-virtio")
    if info.is_windows and driver_disc:
        return _chosen("virtio", "network-virtio-disc")
    if machine == "q35":
        return _chosen("e1000e", "network-e1000e")
    for card in _CARDS:
        if info.drives(card):
            return _chosen(card, "network-listed")
    return _chosen("e1000", "network-default")


def _machine(info: OsInfo) -> Choice:
    if not info.drives("q35"):
        return _chosen("pc", "machine-pc")
    if info.drives("virtio-net") and not info.drives("virtio-1.0"):
        return _chosen("pc", "machine-pc-old-virtio")
    return _chosen("q35", "machine-q35")


def _firmware(info: OsInfo, architecture: str) -> Choice:
    bios, efi = (info.starts_from(kind, architecture) for kind in ("bios", "efi"))
    if (bios is False and efi) or needs_tpm(info):
        return _chosen("efi", "firmware-efi")
    return _chosen("bios", "firmware-bios" if bios else "firmware-bios-default")


_FIGURES: Final = {"memory": "memory_bytes", "disk": "disk_bytes", "vcpus": "cpus"}


def _need(info: OsInfo, what: str, architecture: str, unit: int, default: int) -> Choice:
    figure = _FIGURES[what]
    value = info.recommended(figure, architecture)
    if not value:
        return _chosen(default, f"{what}-default")
    stated = info.resource("recommended", figure, architecture) is not None
    return _chosen(-(-value // unit), f"{what}-{'recommended' if stated else 'twice'}")


def _video(info: OsInfo, firmware: str) -> Choice:
    if info.drives("virtio-gpu"):
        return _chosen("virtio", "video-virtio")
    if firmware == "efi":
        return _chosen("bochs", "video-bochs")
    return _chosen("vga", "video-vga")


def _notes(info: OsInfo, *, today: str, driver_disc: bool) -> Iterator[Text]:
    if info.is_generic:
        yield Text.of("note-generic")
    if info.is_windows and not driver_disc:
        yield Text.of("note-driver-disc")
    if needs_tpm(info):
        yield Text.of("note-secure-boot", os=info.name)
    if info.distro == "cirros":
        yield Text.of("note-cirros", os=info.name)
    noted = {support.note for support in (bus_support(info, bus) for bus in BUSES)} - {""}
    for note in sorted(noted):
        yield Text.of("note-bus", note=note)
    if today and info.is_past(today):
        key = "note-past" if info.eol_date else "note-past-old"
        yield Text.of(key, os=info.name, date=info.eol_date or info.release_date)


def warnings_for(
    info: OsInfo, chosen: Chosen, *, architecture: str = "x86_64"
) -> tuple[Caution, ...]:
    """Return what in a choice cannot work with a system, or may not; the certain ones first.

    Args:
        info: the system.
        chosen: what was chosen, by somebody or by default.
        architecture: as osinfo-db names it.
    """
    advice = advise(info, architecture=architecture, driver_disc=chosen.driver_disc)
    found = [
        *_bus_warnings(info, chosen, advice),
        *_size_warnings(info, chosen, advice, architecture),
        *_machine_warnings(info, chosen, advice, architecture),
        *_network_warnings(info, chosen, advice),
    ]
    order = ("certain", "likely", "possible")
    return tuple(sorted(found, key=lambda warning: order.index(warning.certainty)))


def _warning(  # the two sentences share their values
    subject: str, certainty: Certainty, message: str, fix: str, **values: object
) -> Caution:
    return Caution(subject, certainty, Text.of(message, **values), Text.of(fix, **values))


def _bus_warnings(info: OsInfo, chosen: Chosen, advice: Advice) -> Iterator[Caution]:
    advised = str(advice.bus.value)
    for bus in dict.fromkeys(chosen.buses):
        if bus == "ide" and chosen.machine == "q35":
            yield _warning("bus", "certain", "warn-ide-q35", "fix-ide-q35")
            continue
        support = bus_support(info, bus)
        values = {"os": info.name, "bus": bus, "source": support.source, "advised": advised}
        if support.value == "bad" and info.is_windows and bus in ("virtio", "scsi"):
            if not chosen.driver_disc:
                yield _warning("bus", "certain", "warn-bus-windows", "fix-bus-disc", **values)
        elif support.value == "bad":
            yield _warning("bus", "certain", "warn-bus-bad", "fix-bus", **values)
        elif support.value == "unknown" and bus != advised and not info.is_generic:
            yield _warning("bus", "possible", "warn-bus-unknown", "fix-bus", **values)
        elif support.note and bus in ("sata", "usb"):
            yield _warning(
                "bus", "possible", "warn-bus-note", "fix-bus", note=support.note, **values
            )


def _size_warnings(
    info: OsInfo, chosen: Chosen, advice: Advice, architecture: str
) -> Iterator[Caution]:
    memory = None if chosen.memory_mib is None else chosen.memory_mib * MIB
    given = (
        ("memory", memory, _mebibytes, advice.memory_mib),
        ("disk", chosen.disk_bytes, format_size, advice.disk_gib),
        ("vcpus", chosen.vcpus, str, advice.vcpus),
    )
    for what, value, words, advised in given:
        needed = info.resource("minimum", _FIGURES[what], architecture)
        if needed is None or value is None or value >= needed:
            continue
        yield _warning(
            what,
            "likely",
            f"warn-{what}",
            f"fix-{what}",
            os=info.name,
            given=words(value),
            least=words(needed),
            advised=advised.value,
        )


def _mebibytes(size_bytes: int) -> str:
    return str(-(-size_bytes // MIB))


def _machine_warnings(
    info: OsInfo, chosen: Chosen, advice: Advice, architecture: str
) -> Iterator[Caution]:
    name = info.name
    if chosen.machine == "q35" and advice.machine.value == "pc" and not info.is_generic:
        yield _warning("machine", "possible", "warn-q35", "fix-q35", os=name)
    if chosen.firmware and info.starts_from(chosen.firmware, architecture) is False:
        yield _warning(
            "firmware",
            "certain",
            "warn-firmware-bad",
            "fix-firmware",
            os=name,
            firmware={"bios": "BIOS", "efi": "UEFI"}.get(chosen.firmware, chosen.firmware),
            advised={"bios": "BIOS", "efi": "UEFI"}[str(advice.firmware.value)],
        )
    elif chosen.firmware == "efi" and info.is_windows and _is_before_vista(info):
        yield _warning(
            "firmware", "certain", "warn-firmware-old", "fix-firmware", os=name, advised="BIOS"
        )
    if chosen.installing and needs_tpm(info):
        if not chosen.tpm:
            yield _warning("tpm", "likely", "warn-tpm", "fix-tpm", os=name)
        if not chosen.secure_boot:
            yield _warning("firmware", "likely", "warn-secure-boot", "fix-secure-boot", os=name)


def _network_warnings(info: OsInfo, chosen: Chosen, advice: Advice) -> Iterator[Caution]:
    advised = advice.network.value
    if chosen.no_network and not chosen.seed and info.distro == "cirros":
        yield _warning(
            "network", "certain", "warn-cirros-network", "fix-cirros-network", os=info.name
        )
    for model in dict.fromkeys(chosen.network_models):
        values = {"os": info.name, "model": model, "advised": advised}
        if model != "virtio" or info.is_generic or advised == "virtio":
            continue
        if info.is_windows:
            yield _warning(
                "network", "certain", "warn-network-windows", "fix-network-disc", **values
            )
        else:
            yield _warning("network", "possible", "warn-network-unknown", "fix-network", **values)
