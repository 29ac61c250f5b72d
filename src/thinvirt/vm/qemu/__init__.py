"""QEMU's command line of a VM: a pure function of values that are all known."""

from thinvirt.vm.qemu.argv import PROGRAM, qemu_argv
from thinvirt.vm.qemu.launch import (
    BridgePort,
    DiskLayer,
    FirmwareFiles,
    LanPort,
    Launch,
)

__all__ = [
    "PROGRAM",
    "BridgePort",
    "DiskLayer",
    "FirmwareFiles",
    "LanPort",
    "Launch",
    "qemu_argv",
]
