"""What is known of one operating system, as values: `OsInfo` is what the rest of thinvirt asks.

Sizes are bytes, dates are ISO texts (YYYY-MM-DD), and None or "" means that nothing is said.
"""

from dataclasses import dataclass
from typing import Final, Literal

ResourceKind = Literal["minimum", "recommended", "maximum", "network-install"]
RESOURCE_KINDS: Final[tuple[ResourceKind, ...]] = (
    "minimum",
    "recommended",
    "maximum",
    "network-install",
)
ALL_ARCHITECTURES: Final = "all"

# The devices that decisions are made by, as osinfo-db names them. A virtio device has two ids: the
# transitional one of the first drivers and the one of virtio 1.0; who drives either drives ours.
PCI: Final = "http://pcisig.com/pci"
DEVICE_IDS: Final = {
    "virtio-net": (f"{PCI}/1af4/1000", f"{PCI}/1af4/1041"),
    "virtio-blk": (f"{PCI}/1af4/1001", f"{PCI}/1af4/1042"),
    "virtio-balloon": (f"{PCI}/1af4/1002", f"{PCI}/1af4/1045"),
    "virtio-serial": (f"{PCI}/1af4/1003", f"{PCI}/1af4/1043"),
    "virtio-scsi": (f"{PCI}/1af4/1004", f"{PCI}/1af4/1048"),
    "virtio-rng": (f"{PCI}/1af4/1005", f"{PCI}/1af4/1044"),
    "virtio-gpu": (f"{PCI}/1af4/1050",),
    "virtio-input": (f"{PCI}/1af4/1052",),
    "virtio-1.0": (f"{PCI}/1af4/1041",),
    "q35": ("http://qemu.org/chipset/x86/q35",),
    "usb3": (f"{PCI}/1b36/0004",),
    "usb-tablet": ("http://usb.org/usb/80ee/0021",),
    "qxl": (f"{PCI}/1b36/0100",),
    "e1000": (f"{PCI}/8086/100e",),
    "e1000e": (f"{PCI}/8086/10d3",),
    "rtl8139": (f"{PCI}/10ec/8139",),
    "ne2k_pci": (f"{PCI}/10ec/8029",),
    "pcnet": (f"{PCI}/1022/2000",),
}


@dataclass(frozen=True, slots=True)
class Device:
    """A device that QEMU has: its id, what people call it, and its class (block, net, video …)."""

    id: str
    name: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a system needs on one architecture ("all" for any).

    Attributes:
        inherit: figures not given here come from the systems it derives from.
    """

    architecture: str
    kind: ResourceKind
    inherit: bool = False
    cpus: int | None = None
    cpu_hz: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Firmware:
    """Whether the system starts from this firmware, "bios" or "efi"."""

    architecture: str
    kind: str
    supported: bool = True


@dataclass(frozen=True, slots=True)
class Media:
    """An installation or live disc; the ``*_id`` are regular expressions to know its ISO by.

    Attributes:
        volume_size: bytes of the ISO 9660 volume, where they tell editions apart.
        kernel: path of the installer's kernel on the disc, and `initrd` of its initial RAM disk.
        reboots: how often the installer reboots before it is done.
        script: whether an unattended installation from it is possible.
    """

    architecture: str
    volume_id: str = ""
    system_id: str = ""
    publisher_id: str = ""
    application_id: str = ""
    volume_size: int | None = None
    kernel: str = ""
    initrd: str = ""
    live: bool = False
    installer: bool = True
    reboots: int = 1
    eject: bool = True
    script: bool = True
    url: str = ""
    variants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedImage:
    """A disk image that the publisher offers for download."""

    architecture: str
    format: str
    url: str
    cloud_init: bool = False
    variants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kin:
    """A system that another derives from or clones: enough to look it up in a table."""

    short_id: str
    distro: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OsInfo:
    """A system with all that it inherits.

    Attributes:
        id: its address-like name; `short_ids` are what people type, the first is the usual one.
        kin: the systems it derives from or clones, nearest first.
        devices: those it is known to drive. One that is missing may be driven all the same.
        good_buses, bad_buses: disk buses that a user's own file declares.
        source: where this is from: "osinfo-db", "built in", or a user's file.
    """

    id: str
    short_ids: tuple[str, ...]
    name: str
    vendor: str = ""
    version: str = ""
    family: str = ""
    distro: str = ""
    codename: str = ""
    release_date: str = ""
    eol_date: str = ""
    status: str = "released"
    kin: tuple[Kin, ...] = ()
    upgrades: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    firmware: tuple[Firmware, ...] = ()
    resources: tuple[Resources, ...] = ()
    images: tuple[PublishedImage, ...] = ()
    kernel_url_argument: str = ""
    cloud_image_username: str = ""
    good_buses: tuple[str, ...] = ()
    bad_buses: tuple[str, ...] = ()
    source: str = "osinfo-db"

    @property
    def short_id(self) -> str:
        """The id people type."""
        return self.short_ids[0] if self.short_ids else self.id

    @property
    def is_windows(self) -> bool:
        """Whether it is any Windows."""
        return self.family in ("win9x", "winnt", "win16")

    @property
    def is_generic(self) -> bool:
        """Whether it stands for an unknown system."""
        return self.short_id in ("generic", "unknown")

    def drives(self, device: str) -> bool:
        """Return whether it is known to drive a device of `DEVICE_IDS`, in either of its forms."""
        wanted = DEVICE_IDS[device]
        return any(known.id in wanted for known in self.devices)

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """Return the names of the devices of one class that it is known to drive."""
        return tuple(device.name for device in self.devices if device.kind == kind)

    def resource(self, kind: ResourceKind, figure: str, architecture: str) -> int | None:
        """Return one figure of `Resources`, of the architecture or else for all; None if unsaid.

        Args:
            kind: "minimum", "recommended" and so on.
            figure: the attribute: "cpus", "cpu_hz", "memory_bytes", "disk_bytes".
            architecture: as osinfo-db has it, "x86_64".
        """
        for wanted in (architecture, ALL_ARCHITECTURES):
            for found in reversed(self.resources):  # a later statement wins
                if found.architecture == wanted and found.kind == kind:
                    value: int | None = getattr(found, figure)
                    if value is not None and value > 0:
                        return value
        return None

    def recommended(self, figure: str, architecture: str) -> int | None:
        """Return the recommended figure; where only a minimum is said, twice that."""
        value = self.resource("recommended", figure, architecture)
        if value is None and (least := self.resource("minimum", figure, architecture)):
            value = 2 * least
        return value

    def starts_from(self, firmware: str, architecture: str) -> bool | None:
        """Return whether it starts from "bios" or "efi"; None if nothing is said."""
        for known in self.firmware:
            if known.kind == firmware and known.architecture == architecture:
                return known.supported
        return None

    def is_past(self, today: str) -> bool:
        """Return whether its support had ended on a day (ISO date), as far as is known.

        Without an end date, a release of ten years ago counts as ended, unless it is rolling.
        """
        if self.eol_date:
            return today > self.eol_date
        if self.status == "rolling" or not self.release_date:
            return False
        year = int(self.release_date[:4]) + 10
        return today > f"{year:04d}{self.release_date[4:]}"
