"""What a VM gets where nothing was asked for. One place for every driver and every twin.

What depends on the guest's OS is decided earlier, when the VM is made (`thinvirt.vm.advice`), and
stands in its specification from then on; what is left open here has one answer for all.
"""

from dataclasses import replace

from thinvirt.vm.spec.parts import DiskSpec, NetworkSpec
from thinvirt.vm.spec.vm import VmSpec
from thinvirt.vm.spec.words import Bus, Machine


def machine_of(spec: VmSpec) -> Machine:
    """Return the machine: what was asked for, else what its disk buses and firmware live on."""
    if spec.machine is not None:
        return spec.machine
    if any(disk.bus == "ide" for disk in spec.disks):
        return "pc"
    wants_q35 = spec.firmware == "efi" or any(disk.bus == "sata" for disk in spec.disks)
    return "q35" if wants_q35 else "pc"


def with_defaults(spec: VmSpec) -> VmSpec:
    """Return the specification with machine, buses, cards and video filled in.

    Memory and the CPU model stay open: the first is the template's to say, the second depends on
    what executes the guest.
    """
    machine = machine_of(spec)
    return replace(
        spec,
        machine=machine,
        disks=tuple(_disk(disk, machine) for disk in spec.disks),
        networks=tuple(_card(network) for network in spec.networks),
        video=spec.video or "vga",
    )


def main_bus(spec: VmSpec) -> Bus:
    """Return the bus of the first disk: the one the guest certainly has a driver for."""
    for disk in spec.disks:
        if disk.device == "disk":
            return disk.bus or "virtio"
    return "sata" if machine_of(spec) == "q35" else "ide"


def _disk(disk: DiskSpec, machine: Machine) -> DiskSpec:
    if disk.device == "cdrom":
        return replace(
            disk, bus=disk.bus or ("sata" if machine == "q35" else "ide"), read_only=True
        )
    discard = disk.discard or ("ignore" if disk.read_only else "unmap")
    return replace(disk, bus=disk.bus or "virtio", discard=discard)


def _card(network: NetworkSpec) -> NetworkSpec:
    if network.kind == "none":
        return network
    return replace(network, model=network.model or "virtio")
