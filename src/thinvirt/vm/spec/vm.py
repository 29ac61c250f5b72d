"""What a VM is asked to be: a value that is stored once per batch and read by every driver.

A field that is None was not asked for: the template, the OS or thinvirt decides, in `defaults`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from thinvirt.errors import ThinvirtError
from thinvirt.vm.spec.facts import read_facts, to_facts
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
from thinvirt.vm.spec.words import Firmware, Machine, TpmModel, Video

MAIN_DISK = DiskSpec()
USER_NETWORK = NetworkSpec("user")
SCREEN = GraphicsSpec()
NO_BOOT_WISH = BootSpec()
PLAIN_SEED = SeedSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """What is asked of a VM, apart from its name and identity.

    Attributes:
        os: the guest's OS as osinfo-db calls it (``debian12``), "" if it is not known.
        vcpus: virtual CPUs.
        topology: how they are grouped; None: each a socket of its own.
        cpu: CPU model (``host``, ``max``, ``Skylake-Client``…); "": host under KVM, max under TCG.
        memory_mib: memory in MiB; None: as the template or the OS recommends, else 1024.
        machine: machine type; None: "q35" for a SATA disk or UEFI, else "pc".
        firmware: BIOS (SeaBIOS), or UEFI (OVMF) with a variable store of the VM's own.
        secure_boot: whether UEFI starts signed boot loaders only.
        boot: what is booted.
        install: an installation that has still to be done.
        disks: the drives, in the guest's order; a clone's first one is its overlay.
        networks: in the order of the guest's network cards; empty means no network.
        forwards: further forwarded ports beside the one for SSH.
        graphics: how the screen is shown.
        video: the graphics card; None: "vga", which every guest has a driver for.
        seed: what the guest's first boot is told; None: it gets no NoCloud disc.
        agent: whether there is a channel for the QEMU guest agent.
        rng: whether the guest is given random numbers of the host (virtio-rng).
        vmgenid: whether the guest is told when it is a copy or was set back.
        tpm: a TPM 2.0 of the VM's own; None: it has none.
    """

    os: str = ""
    vcpus: int = 1
    topology: Topology | None = None
    cpu: str = ""
    memory_mib: int | None = None
    machine: Machine | None = None
    firmware: Firmware = "bios"
    secure_boot: bool = False
    boot: BootSpec = NO_BOOT_WISH
    install: InstallSpec | None = None
    disks: tuple[DiskSpec, ...] = (MAIN_DISK,)
    networks: tuple[NetworkSpec, ...] = (USER_NETWORK,)
    forwards: tuple[Forward, ...] = ()
    graphics: GraphicsSpec = SCREEN
    video: Video | None = None
    seed: SeedSpec | None = PLAIN_SEED
    agent: bool = True
    rng: bool = True
    vmgenid: bool = True
    tpm: TpmModel | None = None

    def to_facts(self) -> dict[str, Any]:
        """Return what differs from the defaults, JSON-ready."""
        return to_facts(self)

    def to_json(self) -> str:
        """Return what differs from the defaults as compact JSON."""
        return json.dumps(self.to_facts(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Return the specification that `to_facts` described.

        Raises:
            InvalidSpec: a value has the wrong type, or is none of those known here; all such
                problems are named with their places.
        """
        problems: list[Problem] = []
        spec = read_facts(cls, facts, problems)
        if problems:
            raise InvalidSpec(problems)
        return spec

    @classmethod
    def from_json(cls, text: str, overrides: str | None = None) -> Self:
        """Return the specification that `to_json` wrote, with a VM's own overrides applied.

        Raises:
            ThinvirtError: it cannot be read here: a newer version wrote it.
            ValueError: it is no JSON.
        """
        facts = json.loads(text) if text else {}
        try:
            return cls.from_facts(facts | (json.loads(overrides) if overrides else {}))
        except InvalidSpec as error:
            raise ThinvirtError(
                f"the VM's specification cannot be read here: {error}",
                hint="a newer thinvirt made this VM; use that one",
            ) from error

    @property
    def cards(self) -> tuple[NetworkSpec, ...]:
        """The networks that the VM has a card for."""
        return tuple(network for network in self.networks if network.kind != "none")
