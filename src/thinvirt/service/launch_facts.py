"""Facts of a VM's start that need no start: its equivalents are made of them too."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from thinvirt.run import accel
from thinvirt.run.accel import Acceleration
from thinvirt.run.folder import VmFolder
from thinvirt.store import Store, Template, Vm
from thinvirt.store.layout import cache_home
from thinvirt.vm.identity import mac_address
from thinvirt.vm.qemu import PROGRAM
from thinvirt.vm.spec import VmSpec
from thinvirt.vm.spec.words import DEFAULT_MEMORY_MIB

QEMU_VARIABLE = "THINVIRT_QEMU"  # another QEMU than the one on the PATH

Say = Callable[[str], None]


def folder_of(store: Store, vm: Vm) -> VmFolder:
    """Return where a VM's run-time files and its log lie."""
    return VmFolder(store.layout.run_dir(vm.id), store.layout.log_dir(vm.id))


def qemu_program() -> str:
    """Return the QEMU to run: $THINVIRT_QEMU, else the one on the PATH."""
    return os.environ.get(QEMU_VARIABLE) or PROGRAM


def acceleration(say: Say | None = None) -> Acceleration:
    """Return what shall execute guest code on this host; the first time this takes up to 2 s.

    Args:
        say: told the outcome if it was found anew.

    Raises:
        ProgramMissing: there is no QEMU.
    """
    return accel.choose(qemu_program(), cache_dir=cache_home(), say=say)


def memory_mib(spec: VmSpec, template: Template | None) -> int:
    """Return how much memory a VM gets: what was asked, else what its template recommends."""
    if spec.memory_mib is not None:
        return spec.memory_mib
    recommended = template.facts.get("memory_mib") if template is not None else None
    return recommended if isinstance(recommended, int) else DEFAULT_MEMORY_MIB


def mac_addresses(store: Store, vm: Vm, spec: VmSpec) -> tuple[str, ...]:
    """Return the hardware address of every card of a VM: what was asked for, else its own."""
    return tuple(
        card.mac or mac_address(store.mac_base, vm.id, number)
        for number, card in enumerate(spec.cards)
    )


def with_own_kernel(store: Store, vm: Vm, spec: VmSpec) -> VmSpec:
    """Return a specification whose installer's kernel, if the store keeps it, has a whole path."""
    return with_kernel_in(spec, store.layout.batch(vm.batch.id))


def with_kernel_in(spec: VmSpec, folder: Path) -> VmSpec:
    """Return a specification whose installer's kernel, if it has no folder, is in this one."""
    install = spec.install
    if install is None or not install.kernel:
        return spec
    initrd = str(folder / install.initrd) if install.initrd else ""
    return replace(
        spec, install=replace(install, kernel=str(folder / install.kernel), initrd=initrd)
    )
