"""The parts of a VM's specification: disks, networks, graphics, boot, installation.

A field that is None was not asked for; `thinvirt.vm.spec.defaults` decides then.
"""

from dataclasses import dataclass

from thinvirt.vm.spec.words import (
    LOOPBACK,
    BootDevice,
    Bus,
    Cache,
    DetectZeroes,
    Device,
    Discard,
    DiskFormat,
    GraphicsKind,
    Io,
    NetworkKind,
    NetworkModel,
    Protocol,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpec:
    """One drive: a disk or a CD-ROM.

    Attributes:
        source: the file or block device; "": the store makes the disk (a clone's first one is an
            overlay of its template), or the CD-ROM drive is empty.
        size: bytes of a disk that is made; None: of the template or the backing file.
        format: the file's format; None: what the file is found to be, qcow2 for a new one.
        sparse: whether a disk that is made takes space only as it is written.
        backing: the backing file of a disk that is made, "" for none.
        backing_format: its format; None: what it is found to be.
        device: "disk" or "cdrom".
        bus: how it is attached ("scsi" is virtio-scsi); None: by the OS and the device.
        cache: cache mode; None: QEMU's default, writeback.
        io: how QEMU reads and writes; None: QEMU's default, threads.
        discard: whether the guest's discards free space; None: "unmap" for disks, which is what
            keeps overlays small.
        detect_zeroes: whether written zeroes become holes; None: QEMU's default, off.
        iothread: whether a thread of its own serves it (virtio and scsi only).
        boot_order: its place among all devices to boot from, from 1; None: after those.
        serial: serial number that the guest sees.
        read_only: whether writes are refused; a CD-ROM is always read-only.
        shareable: whether other VMs may write it at the same time (cluster file systems).
    """

    source: str = ""
    size: int | None = None
    format: DiskFormat | None = None
    sparse: bool = True
    backing: str = ""
    backing_format: DiskFormat | None = None
    device: Device = "disk"
    bus: Bus | None = None
    cache: Cache | None = None
    io: Io | None = None
    discard: Discard | None = None
    detect_zeroes: DetectZeroes | None = None
    iothread: bool = False
    boot_order: int | None = None
    serial: str = ""
    read_only: bool = False
    shareable: bool = False

    @property
    def of_the_store(self) -> bool:
        """Whether its file is made, kept and removed by the store."""
        return self.device == "disk" and not self.source


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One network the VM is connected to, or "none": no network at all.

    Attributes:
        kind: "user" (outward through the host, no root needed), "lan" (private, between the VMs
            of a store), "network" (of libvirt), "bridge" (of the host), or "none".
        name: which LAN, libvirt network or bridge.
        model: the card that the guest sees; None: by the OS, else virtio.
        mac: its hardware address; "": derived from the VM's identity.
        boot_order: as of a disk.
    """

    kind: NetworkKind = "user"
    name: str = ""
    model: NetworkModel | None = None
    mac: str = ""
    boot_order: int | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of the host that leads to a port of the guest, through its user network."""

    host_port: int
    guest_port: int
    protocol: Protocol = "tcp"
    host_address: str = LOOPBACK


@dataclass(frozen=True, slots=True)
class GraphicsSpec:
    """How the VM's screen is shown.

    Attributes:
        kind: "vnc", "spice" or "none".
        listen: the address it listens on; the empty one means every address.
        port: TCP port; None: a free one from 5900 on.
        password: what a viewer has to give, "" for none.
    """

    kind: GraphicsKind = "vnc"
    listen: str = LOOPBACK
    port: int | None = None
    password: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """How virtual CPUs are grouped; the product is their number."""

    sockets: int = 1
    dies: int = 1
    cores: int = 1
    threads: int = 1

    @property
    def vcpus(self) -> int:
        """How many CPUs that makes."""
        return self.sockets * self.dies * self.cores * self.threads


@dataclass(frozen=True, slots=True, kw_only=True)
class BootSpec:
    """What the VM boots.

    Attributes:
        order: kinds of device in the order they are tried; (): as `DiskSpec.boot_order` says,
            else the disks as they are listed.
        menu: whether the firmware offers a menu.
        kernel: a Linux kernel on the host that is started directly, "" for none.
        initrd: its initial RAM disk, "" for none.
        kernel_args: its command line.
    """

    order: tuple[BootDevice, ...] = ()
    menu: bool = False
    kernel: str = ""
    initrd: str = ""
    kernel_args: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallSpec:
    """An installation that has still to be done: the first phase of the VM's life.

    Attributes:
        media: the installer's disc, "" for none.
        kernel: the installer's kernel, started directly, "" for booting from the disc; without a
            folder it is one that the store keeps beside the VM's disks.
        initrd: its initial RAM disk.
        kernel_args: its command line.
        location: where kernel and initial RAM disk came from, as it was asked for.
        boot: the kind of device the installer is booted from instead: the network (PXE), a
            CD-ROM drive among the disks, or a disk that has it.
        reboot: whether the VM comes back by itself once its installer restarts it.
    """

    media: str = ""
    kernel: str = ""
    initrd: str = ""
    kernel_args: str = ""
    location: str = ""
    boot: BootDevice | None = None
    reboot: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedSpec:
    """What the guest's first boot is told beside its name, keys and network.

    Attributes:
        user_data: cloud-init user-data, or a script; "" for none.
        meta_data: further meta-data as JSON text, "" for none; what identifies the VM is ours.
        network_config: cloud-init network-config instead of ours, "" for ours.
        ssh_keys: public keys for the guest's user, as in ``authorized_keys``.
    """

    user_data: str = ""
    meta_data: str = ""
    network_config: str = ""
    ssh_keys: tuple[str, ...] = ()
