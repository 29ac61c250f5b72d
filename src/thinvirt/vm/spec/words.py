"""The words of a VM's specification, and the limits of its numbers.

The words are virt-install's where it has them.
"""

from typing import Literal

Machine = Literal["pc", "q35"]
Firmware = Literal["bios", "efi"]
BootDevice = Literal["hd", "cdrom", "network"]
Device = Literal["disk", "cdrom"]
Bus = Literal["virtio", "scsi", "sata", "ide", "usb"]
DiskFormat = Literal["qcow2", "raw"]
Cache = Literal["writeback", "none", "writethrough", "directsync", "unsafe"]
Io = Literal["threads", "native", "io_uring"]
Discard = Literal["unmap", "ignore"]
DetectZeroes = Literal["off", "on", "unmap"]
NetworkKind = Literal["user", "lan", "network", "bridge", "none"]
NetworkModel = Literal["virtio", "e1000", "e1000e", "rtl8139", "vmxnet3", "pcnet", "ne2k_pci"]
Protocol = Literal["tcp", "udp"]
GraphicsKind = Literal["vnc", "spice", "none"]
Video = Literal["vga", "virtio", "qxl", "cirrus", "bochs", "none"]
TpmModel = Literal["tpm-tis", "tpm-crb"]

DEFAULT_MEMORY_MIB = 1024
DEFAULT_LAN = "default"
LOOPBACK = "127.0.0.1"
MAX_VCPUS = 255  # what an APIC without x2APIC ids can address
MAX_MEMORY_MIB = 16 << 20  # 16 TiB, QEMU's own limit on x86
MAX_NETWORKS = 8
MAX_USER_DATA = 1 << 20  # it is held in the catalogue; clouds allow 16 to 64 KiB
MAX_SERIAL_LENGTH = 20  # what virtio-blk passes on; IDE and SCSI have room for as many
MAX_PASSWORD_LENGTH = 8  # VNC's authentication reads no more (RFC 6143, 7.2.2)
VNC_BASE_PORT = 5900
BUS_PLACES: dict[tuple[str, str], int] = {  # (bus, machine): how many drives fit
    ("ide", "pc"): 4,
    ("ide", "q35"): 0,
    ("sata", "pc"): 6,
    ("sata", "q35"): 6,
}
MAX_DISKS = 24  # what the slots of a pc machine leave for virtio-blk beside the other devices
