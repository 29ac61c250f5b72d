"""Drives on QEMU's command line: the nodes of their files, controllers and devices.

Every layer of a disk has its format, so that no file's content is ever probed: a guest could
otherwise write a qcow2 header into its raw disk, and the next start would open what it names.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from thinvirt.vm.cache_modes import cache_flags
from thinvirt.vm.qemu.launch import DiskLayer, Launch
from thinvirt.vm.qemu.text import Option, as_json, escape
from thinvirt.vm.spec import DiskSpec, VmSpec
from thinvirt.vm.spec.defaults import main_bus
from thinvirt.vm.spec.words import Bus

_IDE_PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))  # channel, unit
_IDE_SEED_PLACES = ((1, 0), (1, 1), (0, 1))  # apart from the disk if there is room
_CDROM = DiskSpec(device="cdrom", read_only=True)


def drive_options(launch: Launch, bootindex: dict[str, int]) -> Iterator[Option]:
    """Yield the options of all drives of a VM, the installer's disc and the seed.

    Args:
        launch: with the defaults of its specification filled in.
        bootindex: the places of ``disk0``… and ``media`` among what is booted from.
    """
    seats = _Seats(launch.spec)
    drives = list(zip(launch.spec.disks, launch.disks, strict=True))
    used = {disk.bus for disk, _ in drives} | ({main_bus(launch.spec)} if launch.seed else set())
    if launch.media is not None:
        bus: Bus = "sata" if launch.spec.machine == "q35" else "ide"
        used.add(bus)
        drives.append((replace(_CDROM, bus=bus), (launch.media,)))
    threads = [n for n, (disk, _) in enumerate(drives) if disk.iothread]
    for number in threads:
        yield "-object", f"iothread,id=iothread{number}"
    # The order of options is the order of devices in the guest: nodes before devices.
    for number, (disk, layers) in enumerate(drives):
        if layers:
            yield "-blockdev", as_json(blockdev(disk, layers, number))
    yield from _controllers(launch, used)
    for number, (disk, layers) in enumerate(drives):
        is_media = launch.media is not None and number == len(drives) - 1
        order = bootindex.get("media" if is_media else f"disk{number}")
        for device in _devices(disk, number, seats, order=order, empty=not layers):
            yield "-device", device
    if launch.seed:
        yield from _seed(launch, seats)


def blockdev(disk: DiskSpec, layers: tuple[DiskLayer, ...], number: int) -> dict[str, object]:
    """Return a drive's node: its file, with every layer below it spelled out to the last.

    Args:
        disk: what was asked for.
        layers: the chain, the writable layer first.
        number: which drive of the VM it is.
    """
    _, direct, no_flush = cache_flags(disk.cache)
    cache = {"direct": direct, "no-flush": no_flush}
    node: dict[str, object] | None = None
    for depth in reversed(range(len(layers))):
        layer = layers[depth]
        below, top = node, depth == 0
        read_only = not top or disk.read_only
        file: dict[str, object] = {
            "driver": layer.driver,
            "filename": layer.path,
            "node-name": f"disk{number}-file{depth}",
            "cache": cache,
            "read-only": read_only,
        }
        node = {
            "driver": layer.format,
            "node-name": f"disk{number}-layer{depth}",
            "cache": cache,
            "read-only": read_only,
            "file": file,
        }
        if disk.io:
            file["aio"] = disk.io
        if top and disk.discard and not disk.read_only:
            node["discard"] = file["discard"] = disk.discard
        if top and disk.detect_zeroes and not disk.read_only:
            node["detect-zeroes"] = disk.detect_zeroes
        if layer.format == "qcow2":
            node["backing"] = below  # null at the end: whatever its header names is not opened
    if node is None:
        raise ValueError("a drive that is not empty has at least one layer")
    return node


@dataclass(slots=True)
class _Seats:
    """Hands out the places on the buses in order."""

    spec: VmSpec
    ide: int = 0
    sata: int = 0

    def next_ide(self) -> str:
        channel, unit = _IDE_PLACES[self.ide]
        self.ide += 1
        return f"bus=ide.{channel},unit={unit}"

    def next_sata(self) -> str:
        port = self.sata
        self.sata += 1
        return f"bus={'ide' if self.spec.machine == 'q35' else 'ahci'}.{port}"

    def seed_ide(self) -> str:
        taken = _IDE_PLACES[: self.ide]
        channel, unit = next(place for place in _IDE_SEED_PLACES if place not in taken)
        return f"bus=ide.{channel},unit={unit}"


def _controllers(launch: Launch, used: set[Bus | None]) -> Iterator[Option]:
    if "scsi" in used:
        thread = next(
            (n for n, d in enumerate(launch.spec.disks) if d.bus == "scsi" and d.iothread), None
        )
        suffix = "" if thread is None else f",iothread=iothread{thread}"
        yield "-device", f"virtio-scsi-pci,id=scsi0{suffix}"
    if "sata" in used and launch.spec.machine == "pc":
        yield "-device", "ich9-ahci,id=ahci"
    if "usb" in used:
        yield "-device", "qemu-xhci,id=usb"


def _devices(
    disk: DiskSpec, number: int, seats: _Seats, *, order: int | None, empty: bool
) -> Iterator[str]:
    cdrom = disk.device == "cdrom"
    kind = "cd" if cdrom else "hd"
    match disk.bus:
        case "virtio":
            words = ["virtio-blk-pci"]
        case "scsi":
            words = [f"scsi-{kind}", "bus=scsi0.0"]
        case "sata":
            words = [f"ide-{kind}", seats.next_sata()]
        case "ide":
            words = [f"ide-{kind}", seats.next_ide()]
        case _ if cdrom:  # USB storage is SCSI over a transport of its own
            yield f"usb-bot,id=bot{number},bus=usb.0"
            words = ["scsi-cd", f"bus=bot{number}.0"]
        case _:
            words = ["usb-storage", "bus=usb.0"]
    common = [] if empty else [f"drive=disk{number}-layer0"]
    common.append(f"id=disk{number}")
    if order is not None:
        common.append(f"bootindex={order}")
    if not cdrom:
        common.append(f"write-cache={'on' if cache_flags(disk.cache)[0] else 'off'}")
    if disk.serial:
        common.append(f"serial={escape(disk.serial)}")
    if disk.shareable:
        common.append("share-rw=on")
    if disk.iothread and disk.bus == "virtio":
        common.append(f"iothread=iothread{number}")
    yield ",".join([*words, *common])


def _seed(launch: Launch, seats: _Seats) -> Iterator[Option]:
    """Attach the seed to the disk's own bus: the one the guest certainly has a driver for.

    Debian's cloud kernel, for one, knows neither IDE nor AHCI; guests find the disc by its label,
    so it need not be a CD-ROM.
    """
    yield (
        "-blockdev",
        as_json(
            {
                "driver": "raw",
                "node-name": "seed",
                "read-only": True,
                "file": {"driver": "file", "filename": launch.seed, "read-only": True},
            }
        ),
    )
    match main_bus(launch.spec):
        case "virtio":
            device = "virtio-blk-pci"
        case "scsi":
            device = "scsi-cd,bus=scsi0.0"
        case "sata":
            device = f"ide-cd,{seats.next_sata()}"
        case "ide":
            device = f"ide-cd,{seats.seed_ide()}"
        case _:
            device = "usb-storage,bus=usb.0"
    yield "-device", f"{device},drive=seed,id=seed0"
