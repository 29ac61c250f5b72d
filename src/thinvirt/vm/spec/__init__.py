"""What a VM is asked to be: typed, complete, and checked as a whole."""

from thinvirt.vm.spec.parts import (
    BootSpec,
    DiskSpec,
    Forward,
    GraphicsSpec,
    InstallSpec,
    NetworkSpec,
    SeedSpec,
    Topology,
)
from thinvirt.vm.spec.problems import InvalidSpec, Problem
from thinvirt.vm.spec.vm import MAIN_DISK, SCREEN, USER_NETWORK, VmSpec

__all__ = [
    "MAIN_DISK",
    "SCREEN",
    "USER_NETWORK",
    "BootSpec",
    "DiskSpec",
    "Forward",
    "GraphicsSpec",
    "InstallSpec",
    "InvalidSpec",
    "NetworkSpec",
    "Problem",
    "SeedSpec",
    "Topology",
    "VmSpec",
]
