"""What cannot be in a specification, beyond the types of its fields."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

from thinvirt.errors import UsageError
from thinvirt.vm.names import check_vm_name
from thinvirt.vm.seed import further_meta_data
from thinvirt.vm.spec.defaults import machine_of, main_bus, with_defaults
from thinvirt.vm.spec.facts import field_types
from thinvirt.vm.spec.parts import DiskSpec, GraphicsSpec, NetworkSpec, SeedSpec
from thinvirt.vm.spec.problems import InvalidSpec, Problem
from thinvirt.vm.spec.vm import VmSpec
from thinvirt.vm.spec.words import (
    BUS_PLACES,
    MAX_DISKS,
    MAX_MEMORY_MIB,
    MAX_NETWORKS,
    MAX_PASSWORD_LENGTH,
    MAX_SERIAL_LENGTH,
    MAX_USER_DATA,
    MAX_VCPUS,
    VNC_BASE_PORT,
)

_KEY_LINE = re.compile(r"(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]+(?: [^\r\n]*)?")
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")
_SERIAL = re.compile(r"[A-Za-z0-9 ._+-]*")  # what libvirt accepts
_INTERFACE = re.compile(r"[^/\s,]{1,15}")  # IFNAMSIZ - 1
_CPU = re.compile(r"[A-Za-z0-9._-]*")
_NAMES_OF_PLACES = {
    "machine": "machine",
    "bus": "disk bus",
    "cache": "cache mode",
    "discard": "discard mode",
    "io": "I/O mode",
    "kind": "kind",
    "model": "model",
}


def checked(spec: VmSpec) -> VmSpec:
    """Return the specification itself if it can be met.

    Raises:
        InvalidSpec: it cannot; all problems are named.
    """
    problems = list(problems_of(spec))
    if problems:
        raise InvalidSpec(problems)
    return spec


def problems_of(spec: VmSpec) -> Iterator[Problem]:
    """Yield everything that is wrong with a specification, each thing once."""
    wrong_words = list(_words(spec, ""))
    yield from wrong_words
    if wrong_words:  # what follows builds on them
        return
    yield from _hardware(spec)
    yield from _boot(spec)
    yield from _disks(spec)
    yield from _networks(spec)
    yield from _forwards(spec)
    yield from _graphics(spec.graphics)
    if spec.seed is not None:
        yield from _seed(spec.seed)


def _words(value: Any, place: str) -> Iterator[Problem]:
    """Yield the fields whose word is none of those their type declares."""
    for name, declared in field_types(type(value)).items():
        where = f"{place}.{name}" if place else name
        item = getattr(value, name)
        for number, each in enumerate(item) if isinstance(item, tuple) else [(None, item)]:
            at = where if number is None else f"{where}[{number}]"
            known = _known_words(declared)
            if hasattr(type(each), "__dataclass_fields__"):
                yield from _words(each, at)
            elif known and each is not None and each not in known:
                what = _NAMES_OF_PLACES.get(name, name)
                yield Problem(at, f"unknown {what} '{each}'", f"known: {', '.join(known)}")


def _known_words(declared: Any) -> tuple[str, ...]:
    if get_origin(declared) is Literal:
        return get_args(declared)
    return next((words for part in get_args(declared) if (words := _known_words(part))), ())


def _hardware(spec: VmSpec) -> Iterator[Problem]:
    if not 1 <= spec.vcpus <= MAX_VCPUS:
        yield Problem("vcpus", f"{spec.vcpus} virtual CPUs are not possible", f"1 to {MAX_VCPUS}")
    if spec.topology is not None and spec.topology.vcpus != spec.vcpus:
        yield Problem(
            "topology",
            f"sockets, dies, cores and threads make {spec.topology.vcpus} CPUs, "
            f"and {spec.vcpus} are asked for",
            f"their product has to be {spec.vcpus}",
        )
    if spec.memory_mib is not None and not 1 <= spec.memory_mib <= MAX_MEMORY_MIB:
        yield Problem(
            "memory_mib",
            f"{spec.memory_mib} MiB of memory are not possible",
            f"1 to {MAX_MEMORY_MIB}",
        )
    if not _CPU.fullmatch(spec.cpu):
        yield Problem("cpu", f"'{spec.cpu}' is no CPU model", "qemu-system-x86_64 -cpu help")
    if spec.secure_boot and spec.firmware != "efi":
        yield Problem("secure_boot", "secure boot is part of UEFI", "firmware: efi")
    elif spec.secure_boot and machine_of(spec) != "q35":
        yield Problem("secure_boot", "secure boot needs machine q35", "machine: q35")


def _boot(spec: VmSpec) -> Iterator[Problem]:
    boot = spec.boot
    for name, text in (("initrd", boot.initrd), ("kernel_args", boot.kernel_args)):
        if text and not boot.kernel:
            yield Problem(f"boot.{name}", f"boot.{name} goes with a kernel, and there is none")
    for device in _doubled(boot.order):
        yield Problem("boot.order", f"'{device}' stands twice in the boot order")
    asked = [disk.boot_order for disk in spec.disks]
    asked += [network.boot_order for network in spec.networks]
    numbers = [number for number in asked if number is not None]
    if numbers and boot.order:
        yield Problem(
            "boot.order",
            "a boot order of kinds and boot orders of single devices exclude each other",
            "use one of them",
        )
    for number in _doubled(numbers):
        yield Problem("disks", f"boot order {number} is given to two devices")
    for number in numbers:
        if number < 1:
            yield Problem("disks", f"a boot order of {number} is not possible", "from 1")
    install = spec.install
    if install is not None and not (install.media or install.kernel or install.boot):
        yield Problem(
            "install",
            "an installation needs something to start from",
            "a disc, a kernel, or a kind of device to boot",
        )
    if install is not None and install.boot == "network" and not spec.cards:
        yield Problem("install.boot", "it is to be installed from the network, and has no card")
    drives = {disk.device for disk in spec.disks}
    if install is not None and install.boot == "cdrom" and "cdrom" not in drives:
        yield Problem("install.boot", "it is to be installed from a CD-ROM drive, and has none")


def _disks(spec: VmSpec) -> Iterator[Problem]:
    machine = machine_of(spec)
    if len(spec.disks) > MAX_DISKS:
        yield Problem("disks", f"{len(spec.disks)} drives are too many", f"up to {MAX_DISKS}")
    taken = Counter(disk.bus for disk in with_defaults(spec).disks)
    if spec.install is not None and spec.install.media:
        taken["sata" if machine == "q35" else "ide"] += 1
    for (bus, on), places in BUS_PLACES.items():
        count = taken[bus]  # type: ignore[index]
        if spec.seed is not None and main_bus(spec) == bus:
            places -= 1  # noqa: PLW2901  # the seed's disc is attached there too
        if on != machine or count <= places:
            continue
        where = next(
            f"disks[{n}].bus" for n, disk in enumerate(with_defaults(spec).disks) if disk.bus == bus
        )
        if places <= 0:
            yield Problem(where, "machine q35 has no IDE bus: use bus sata, or machine pc")
        else:
            yield Problem(where, f"{count} {bus.upper()} drives are too many", f"up to {places}")
    for number, disk in enumerate(spec.disks):
        yield from _disk(disk, f"disks[{number}]")
    for source in _doubled(disk.source for disk in spec.disks if disk.source):
        yield Problem("disks", f"'{source}' is attached twice")
    for serial in _doubled(disk.serial for disk in spec.disks if disk.serial):
        yield Problem("disks", f"serial number '{serial}' is given to two disks")


def _disk(disk: DiskSpec, place: str) -> Iterator[Problem]:
    if disk.size is not None and disk.size <= 0:
        yield Problem(f"{place}.size", f"a disk of {disk.size} bytes is not possible")
    if disk.io == "native" and disk.cache not in ("none", "directsync"):
        yield Problem(
            f"{place}.io",
            "io native works only without the host's page cache",
            "cache none or directsync, or io threads",
        )
    if disk.detect_zeroes == "unmap" and disk.discard == "ignore":
        yield Problem(
            f"{place}.detect_zeroes",
            "written zeroes cannot become holes where discards are ignored",
            "discard unmap, or detect_zeroes on",
        )
    if disk.iothread and disk.bus in ("ide", "sata", "usb"):
        yield Problem(
            f"{place}.iothread",
            f"a {disk.bus.upper()} disk cannot have an I/O thread of its own",
            "bus virtio or scsi",
        )
    if disk.backing_format and not disk.backing:
        yield Problem(f"{place}.backing_format", "there is a backing format and no backing file")
    if disk.backing and disk.format == "raw":
        yield Problem(f"{place}.format", "a raw disk cannot have a backing file", "format qcow2")
    if disk.shareable and disk.format == "qcow2":
        yield Problem(f"{place}.shareable", "a qcow2 file has one writer at a time", "format raw")
    if disk.device == "cdrom":
        yield from _cdrom(disk, place)
    if len(disk.serial) > MAX_SERIAL_LENGTH or not _SERIAL.fullmatch(disk.serial):
        yield Problem(
            f"{place}.serial",
            f"'{disk.serial}' is no serial number",
            f"up to {MAX_SERIAL_LENGTH} letters, digits, blanks, '.', '_', '+' and '-'",
        )


def _cdrom(disk: DiskSpec, place: str) -> Iterator[Problem]:
    if disk.bus == "virtio":
        yield Problem(f"{place}.bus", "virtio has no CD-ROM drives", "bus sata, scsi, ide or usb")
    if disk.size is not None or disk.backing:
        yield Problem(place, "a CD-ROM is not made, it is there", "no size, no backing file")


def _networks(spec: VmSpec) -> Iterator[Problem]:
    kinds = [network.kind for network in spec.networks]
    if len(kinds) > MAX_NETWORKS:
        yield Problem("networks", f"{len(kinds)} networks are too many", f"up to {MAX_NETWORKS}")
    if "none" in kinds and len(kinds) > 1:
        yield Problem("networks", "network none goes with no other network")
    if kinds.count("user") > 1:
        yield Problem(
            "networks", "one user network is enough: a second one leads to the same place"
        )
    for number, network in enumerate(spec.networks):
        yield from _network(network, f"networks[{number}]")
    for mac in _doubled(network.mac.lower() for network in spec.networks if network.mac):
        yield Problem("networks", f"hardware address {mac} is given to two cards")


def _network(network: NetworkSpec, place: str) -> Iterator[Problem]:
    if network.kind in ("lan", "network"):
        try:
            check_vm_name(network.name)
        except UsageError:
            what = "a LAN" if network.kind == "lan" else "a libvirt network"
            yield Problem(f"{place}.name", f"'{network.name}' cannot name {what}")
    elif network.kind == "bridge":
        if not _INTERFACE.fullmatch(network.name):
            yield Problem(f"{place}.name", f"'{network.name}' cannot name a bridge")
    elif network.name:
        yield Problem(f"{place}.name", f"network {network.kind} has no name")
    if network.mac and not _MAC.fullmatch(network.mac):
        yield Problem(
            f"{place}.mac",
            f"'{network.mac}' is no hardware address",
            "six bytes in hexadecimal, such as 52:54:00:12:34:56",
        )
    elif network.mac and int(network.mac[:2], 16) & 1:
        yield Problem(
            f"{place}.mac",
            f"{network.mac} is a multicast address, which no card can have",
            "an even first byte, such as 52:54:00:…",
        )


def _forwards(spec: VmSpec) -> Iterator[Problem]:
    if spec.forwards and all(network.kind != "user" for network in spec.networks):
        yield Problem("forwards", "ports are forwarded through a user network, and there is none")
    for number, forward in enumerate(spec.forwards):
        for port in (forward.host_port, forward.guest_port):
            if not 1 <= port <= 65535:
                yield Problem(f"forwards[{number}]", f"port {port} is not possible", "1 to 65535")
    places = [(f.protocol, f.host_address, f.host_port) for f in spec.forwards]
    for protocol, _, port in _doubled(places):
        yield Problem("forwards", f"host port {port}/{protocol} is forwarded twice")


def _graphics(graphics: GraphicsSpec) -> Iterator[Problem]:
    if graphics.port is not None and not VNC_BASE_PORT <= graphics.port <= 65535:
        yield Problem(
            "graphics.port",
            f"{graphics.kind} at port {graphics.port} is not possible",
            f"a port from {VNC_BASE_PORT} to 65535",
        )
    if graphics.kind == "vnc" and len(graphics.password) > MAX_PASSWORD_LENGTH:
        yield Problem(
            "graphics.password",
            f"VNC reads only the first {MAX_PASSWORD_LENGTH} characters of a password",
            "a shorter one",
        )


def _seed(seed: SeedSpec) -> Iterator[Problem]:
    for number, key in enumerate(seed.ssh_keys):
        if not _KEY_LINE.fullmatch(key):
            yield Problem(
                f"seed.ssh_keys[{number}]", f"not a line of an SSH public key file: '{key[:40]}'"
            )
    for name in ("user_data", "meta_data", "network_config"):
        size = len(getattr(seed, name).encode())
        if size > MAX_USER_DATA:
            what = name.replace("_", "-")
            yield Problem(
                f"seed.{name}", f"{what} of {size} bytes is too large", f"up to {MAX_USER_DATA}"
            )
    if seed.meta_data:
        try:
            further_meta_data(seed.meta_data)
        except ValueError as error:
            yield Problem("seed.meta_data", str(error), 'such as {"role": "db"}')


def _doubled(items: Iterable[Any]) -> list[Any]:
    return sorted(item for item, count in Counter(items).items() if count > 1)
