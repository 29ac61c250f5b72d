"""Which disk buses an operating system can start from: what osinfo-db does not say.

osinfo-db knows virtio devices only, and has gaps there. This small table holds what was looked
up, with its source per line; docs/reference/os-buses.md is made from it. Three values, because not
being listed is not being unsupported.

The Linux rows rest on when a driver entered the kernel: ata_piix (QEMU's IDE) before any release
named here, AHCI in 2.6.11, virtio-blk over PCI in 2.6.25, virtio-scsi in 3.4; a distribution may
have it earlier by a backport, or leave it out of a kernel for clouds.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from thinvirt.vm.osinfo.records import OsInfo

Support = Literal["good", "unknown", "bad"]
TableBus = Literal["ide", "sata", "virtio", "scsi"]
TABLE_BUSES: Final[tuple[TableBus, ...]] = get_args(TableBus)

_GOOD: Final[Support] = "good"
_OPEN: Final[Support] = "unknown"
_BAD: Final[Support] = "bad"


@dataclass(frozen=True, slots=True)
class Row:
    """What holds for some releases of some distributions.

    Attributes:
        distros: as osinfo-db names them.
        first, last: versions, both included; "" is no bound. Only as many parts are compared as
            the bound has: 7 as `last` includes 7.9.
        source: where this is known from.
        note: an exception that people should know.
    """

    distros: tuple[str, ...]
    first: str
    last: str
    ide: Support
    sata: Support
    virtio: Support
    scsi: Support
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class BusSupport:
    """Whether a system drives a bus, and how that is known."""

    bus: str
    value: Support
    source: str
    note: str = ""


_RHEL: Final = (
    "rhel", "centos", "ol", "oel", "scientificlinux", "rocky", "almalinux", "circle",
    "miraclelinux", "asianux", "rhel-atomic",
)  # fmt: skip
_SUSE: Final = ("sles", "sled", "sle")

TABLE: Final = (
    Row(_RHEL, "", "2", _GOOD, _OPEN, _BAD, _BAD, "Linux 2.4"),
    Row(
        _RHEL, "3", "4", _GOOD, _OPEN, _OPEN, _BAD,
        "Linux 2.4 and 2.6.9; Red Hat had virtio drivers as an add-on, and in 4.8",
    ),
    Row(
        _RHEL, "5.0", "5.2", _GOOD, _GOOD, _OPEN, _BAD,
        "Linux 2.6.18; virtio drivers came with 5.3",
    ),
    Row(_RHEL, "5", "5", _GOOD, _GOOD, _GOOD, _BAD, "Linux 2.6.18, virtio backported in 5.3"),
    Row(_RHEL, "6.0", "6.2", _GOOD, _GOOD, _GOOD, _BAD, "Linux 2.6.32"),
    Row(
        _RHEL, "6.3", "6.3", _GOOD, _GOOD, _GOOD, _OPEN,
        "Linux 2.6.32; virtio-scsi was a technology preview",
    ),
    Row(_RHEL, "6", "6", _GOOD, _GOOD, _GOOD, _GOOD, "Linux 2.6.32, virtio-scsi backported in 6.4"),
    Row(_RHEL, "7", "9", _GOOD, _GOOD, _GOOD, _GOOD, "Linux 3.10, 4.18 and 5.14"),
    Row(_RHEL, "10", "", _OPEN, _GOOD, _GOOD, _GOOD, "Linux 6.12; IDE was not tried"),
    Row(("debian",), "", "3", _GOOD, _OPEN, _BAD, _BAD, "Linux 2.2 to 2.6.8"),
    Row(("debian",), "4", "4", _GOOD, _GOOD, _BAD, _BAD, "Linux 2.6.18"),
    Row(("debian",), "5", "6", _GOOD, _GOOD, _GOOD, _BAD, "Linux 2.6.26 and 2.6.32"),
    Row(
        ("debian",), "7", "7", _GOOD, _GOOD, _GOOD, _GOOD,
        "Linux 3.2, virtio-scsi backported (osinfo-db)",
    ),
    Row(
        ("debian",), "8", "", _GOOD, _GOOD, _GOOD, _GOOD,
        "Linux 3.16 and later; configuration of linux-image-amd64 6.1 read",
        "the cloud kernel (linux-image-cloud-amd64, images named genericcloud) has no SATA, no USB "
        "and no e1000 driver: configuration of 6.1 read",
    ),
    Row(("ubuntu",), "", "5.10", _GOOD, _OPEN, _BAD, _BAD, "Linux 2.6.8 to 2.6.12"),
    Row(("ubuntu",), "6.06", "7.10", _GOOD, _GOOD, _BAD, _BAD, "Linux 2.6.15 to 2.6.22"),
    Row(
        ("ubuntu",), "8.04", "8.04", _GOOD, _GOOD, _OPEN, _BAD,
        "Linux 2.6.24: virtio-blk is there, its PCI part came later",
    ),
    Row(("ubuntu",), "8.10", "11.10", _GOOD, _GOOD, _GOOD, _BAD, "Linux 2.6.27 to 3.0"),
    Row(("ubuntu",), "12.04", "12.04", _GOOD, _GOOD, _GOOD, _OPEN, "Linux 3.2"),
    Row(("ubuntu",), "12.10", "", _GOOD, _GOOD, _GOOD, _GOOD, "Linux 3.5 and later"),
    Row(("fedora",), "", "4", _GOOD, _OPEN, _BAD, _BAD, "Linux 2.4 to 2.6.11"),
    Row(("fedora",), "5", "8", _GOOD, _GOOD, _BAD, _BAD, "Linux 2.6.15 to 2.6.23"),
    Row(("fedora",), "9", "16", _GOOD, _GOOD, _GOOD, _BAD, "Linux 2.6.25 to 3.1"),
    Row(("fedora",), "17", "", _GOOD, _GOOD, _GOOD, _GOOD, "Linux 3.3 with virtio-scsi, and later"),
    Row(_SUSE, "", "9", _GOOD, _OPEN, _BAD, _BAD, "Linux 2.6.5"),
    Row(_SUSE, "10", "10", _GOOD, _GOOD, _OPEN, _BAD, "Linux 2.6.16"),
    Row(_SUSE, "11.0", "11.2", _GOOD, _GOOD, _GOOD, _OPEN, "Linux 2.6.27 to 3.0"),
    Row(
        _SUSE, "11", "11", _GOOD, _GOOD, _GOOD, _GOOD,
        "Linux 3.0, virtio-scsi backported (osinfo-db)",
    ),
    Row(_SUSE, "12", "", _GOOD, _GOOD, _GOOD, _GOOD, "Linux 3.12 and later"),
    Row(("opensuse",), "", "10", _GOOD, _GOOD, _BAD, _BAD, "Linux 2.6.18 to 2.6.22"),
    Row(("opensuse",), "11.0", "12.1", _GOOD, _GOOD, _GOOD, _BAD, "Linux 2.6.25 to 3.1"),
    Row(("opensuse",), "12.2", "", _GOOD, _GOOD, _GOOD, _GOOD, "Linux 3.4 and later"),
    Row(("alpinelinux",), "3.5", "", _GOOD, _GOOD, _GOOD, _GOOD, "Linux 4.4 and later"),
    Row(("archlinux", "manjaro"), "", "", _GOOD, _GOOD, _GOOD, _GOOD, "rolling: Linux of today"),
    Row(("voidlinux", "nixos"), "", "", _GOOD, _GOOD, _GOOD, _GOOD, "Linux 4.19 and later"),
    Row(("mageia",), "3", "", _GOOD, _GOOD, _GOOD, _GOOD, "Linux 3.8 and later"),
    Row(("linux",), "2016", "", _GOOD, _GOOD, _GOOD, _GOOD, "Linux 4.4 and later"),
    Row(
        ("cirros",), "", "0.5.1", _GOOD, _BAD, _GOOD, _OPEN,
        "its image has no ahci module before 0.5.2",
    ),
    Row(("cirros",), "0.5.2", "", _GOOD, _GOOD, _GOOD, _GOOD, "ahci module since 0.5.2"),
    Row(("freebsd",), "", "7", _GOOD, _OPEN, _BAD, _BAD, "ahci(4) is of 8.0, virtio(4) of 9.0"),
    Row(("freebsd",), "8", "8", _GOOD, _GOOD, _BAD, _BAD, "ahci(4) is of 8.0, virtio(4) of 9.0"),
    Row(
        ("freebsd",), "9", "9", _GOOD, _GOOD, _OPEN, _BAD,
        "virtio_blk(4) is from 9.0 as a module, virtio_scsi(4) from 10.0",
    ),
    Row(("freebsd",), "10", "", _GOOD, _GOOD, _GOOD, _GOOD, "virtio_blk(4), virtio_scsi(4)"),
    Row(("openbsd",), "4.1", "5.2", _GOOD, _GOOD, _BAD, _BAD, "vioblk(4) is from 5.3"),
    Row(
        ("openbsd",), "5.3", "5.4", _GOOD, _GOOD, _GOOD, _BAD,
        "vioblk(4) is from 5.3, vioscsi(4) from 5.5",
    ),
    Row(("openbsd",), "5.5", "", _GOOD, _GOOD, _GOOD, _GOOD, "vioblk(4), vioscsi(4)"),
    Row(("netbsd",), "", "3", _GOOD, _OPEN, _BAD, _BAD, "virtio(4) is from 6.0"),
    Row(("netbsd",), "4", "5", _GOOD, _GOOD, _BAD, _BAD, "ahcisata(4); virtio(4) is from 6.0"),
    Row(
        ("netbsd",), "6.0", "7.0", _GOOD, _GOOD, _GOOD, _BAD,
        "virtio(4) is from 6.0, vioscsi(4) from 7.1",
    ),
    Row(
        ("netbsd",), "7", "7", _GOOD, _GOOD, _GOOD, _OPEN,
        "vioscsi(4) is from 7.1 and became stable with 8.0",
    ),
    Row(("netbsd",), "8", "", _GOOD, _GOOD, _GOOD, _GOOD, "virtio(4), vioscsi(4)"),
    Row(
        ("win", "winnt"), "", "5", _GOOD, _BAD, _BAD, _BAD,
        "no AHCI and no virtio driver of its own",
    ),
    Row(
        ("win", "winnt"), "6", "", _GOOD, _GOOD, _BAD, _BAD,
        "AHCI driver since Vista; virtio drivers come on the virtio-win disc",
    ),
    Row(("msdos", "freedos"), "", "", _GOOD, _OPEN, _OPEN, _OPEN, "works through the BIOS"),
)  # fmt: skip

_UNLISTED: Final = "neither in osinfo-db nor in thinvirt's table"
_YEAR: Final = re.compile(r"linux\d{4}")


def bus_support(info: OsInfo, bus: str) -> BusSupport:
    """Return whether a system drives a disk bus.

    A user's own file goes first, then osinfo-db where it says yes, then the table, by the system
    itself and else by those it derives from.

    Args:
        info: the system.
        bus: "virtio", "scsi" (which is virtio-scsi), "sata", "ide" or "usb".
    """
    if bus in info.good_buses:
        return BusSupport(bus, "good", info.source)
    if bus in info.bad_buses:
        return BusSupport(bus, "bad", info.source)
    row = find_row(info)
    note = row.note if row else ""
    device = {"virtio": "virtio-blk", "scsi": "virtio-scsi"}.get(bus)
    if device is not None and info.drives(device):
        database = "osinfo-db"
        known_from = database if info.source == database or not info.kin else info.kin[0].short_id
        return BusSupport(bus, "good", known_from, note)
    if row is None or bus not in TABLE_BUSES:
        return BusSupport(bus, "unknown", _UNLISTED, note)
    value: Support = getattr(row, bus)
    return BusSupport(bus, value, row.source, note)


def find_row(info: OsInfo) -> Row | None:
    """Return the row for a system, or for the nearest of its kin that has one."""
    distro = "linux" if _YEAR.fullmatch(info.short_id) else info.distro
    found = row_for(distro, info.version)
    for kin in info.kin:
        if found is not None:
            break
        found = row_for(kin.distro, kin.version)
    return found


def row_for(distro: str, version: str) -> Row | None:
    """Return the first row that holds for a release; None if there is none."""
    numbers = _numbers(version)
    for row in TABLE:
        if distro not in row.distros:
            continue
        if not numbers and (row.first or row.last):
            # "testing", "rawhide", "unknown": the newest that the table has.
            if not row.last:
                return row
            continue
        first, last = _numbers(row.first), _numbers(row.last)
        padded = (*numbers, 0, 0, 0)  # 11 is 11.0
        if padded[: len(first)] >= first and (not last or padded[: len(last)] <= last):
            return row
    return None


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
