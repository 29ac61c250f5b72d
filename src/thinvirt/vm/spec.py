"""What a VM is asked to be: a value that is stored once per batch and read by every driver.

The words are virt-install's where it has them (``vcpus``, ``memory``, ``bus``, ``cache``,
``machine``). A field that is None was not asked for: the template, or thinvirt, decides at start.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

from thinvirt.errors import ThinvirtError, UsageError
from thinvirt.vm.names import check_vm_name

Machine = Literal["pc", "q35"]
Bus = Literal["virtio", "scsi", "sata", "ide"]
Cache = Literal["writeback", "none", "writethrough", "directsync", "unsafe"]
Discard = Literal["unmap", "ignore"]
NetworkKind = Literal["user", "lan", "none"]
Protocol = Literal["tcp", "udp"]

DEFAULT_MEMORY_MIB = 1024
DEFAULT_LAN = "default"
LOOPBACK = "127.0.0.1"
MAX_VCPUS = 255  # what an APIC without x2APIC ids can address
MAX_MEMORY_MIB = 16 << 20  # 16 TiB, QEMU's own limit on x86
MAX_NETWORKS = 8
MAX_USER_DATA = 1 << 20  # it is held in the catalogue; clouds allow 16 to 64 KiB
_KEY_LINE = re.compile(r"(?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]+(?: [^\r\n]*)?")
_VNC_ADDRESS = re.compile(r"(?P<address>\[[0-9a-fA-F:.%a-z]+\]|[A-Za-z0-9.-]*):(?P<port>\d{1,5})")


class InvalidSpec(UsageError):
    """A specification that cannot be met; the message lists everything that is wrong with it."""

    kind = "spec"


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One network the VM is connected to, or "none": no network at all.

    Attributes:
        kind: "user" (outward through the host, no root needed), "lan" (private, between the VMs
            of a store), or "none".
        name: which LAN.
    """

    kind: NetworkKind = "user"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of the host that leads to a port of the guest, through its user network."""

    host_port: int
    guest_port: int
    protocol: Protocol = "tcp"
    host_address: str = LOOPBACK


USER_NETWORK = NetworkSpec("user")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """What is asked of a VM, apart from its disk and its identity.

    Attributes:
        vcpus: virtual CPUs.
        memory_mib: memory in MiB; None: as the template recommends, else 1024.
        machine: machine type; None: "q35" for a SATA disk, else "pc".
        bus: how the disk is attached.
        cache: the disk's cache mode; None: QEMU's default, writeback.
        discard: whether the guest's discards free space in the overlay.
        networks: in the order of the guest's network cards; empty means no network.
        forwards: further forwarded ports beside the one for SSH.
        user_data: what the guest's first boot is told (cloud-init user-data, or a script).
        ssh_keys: public keys for the guest's user, as in ``authorized_keys``.
        vnc: "auto" (a free port on the loopback), "off", or "ADDRESS:PORT".
    """

    vcpus: int = 1
    memory_mib: int | None = None
    machine: Machine | None = None
    bus: Bus = "virtio"
    cache: Cache | None = None
    discard: Discard | None = "unmap"
    networks: tuple[NetworkSpec, ...] = (USER_NETWORK,)
    forwards: tuple[Forward, ...] = ()
    user_data: str = ""
    ssh_keys: tuple[str, ...] = ()
    vnc: str = "auto"

    def to_facts(self) -> dict[str, Any]:
        """Return what differs from the defaults, JSON-ready."""
        return {
            field.name: [_compact(item) for item in value] if isinstance(value, tuple) else value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    def to_json(self) -> str:
        """Return what differs from the defaults as compact JSON."""
        return json.dumps(self.to_facts(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """Return the specification that `to_facts` described.

        Raises:
            ThinvirtError: a field is not known here: a newer version wrote it.
        """
        values = dict(facts)
        unknown = values.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ThinvirtError(
                f"the VM's specification has a field '{min(unknown)}' that is not known here",
                hint="a newer thinvirt made this VM; use that one",
            )
        if "networks" in values:
            values["networks"] = tuple(NetworkSpec(**item) for item in values["networks"])
        if "forwards" in values:
            values["forwards"] = tuple(Forward(**item) for item in values["forwards"])
        if "ssh_keys" in values:
            values["ssh_keys"] = tuple(values["ssh_keys"])
        return cls(**values)

    @classmethod
    def from_json(cls, text: str, overrides: str | None = None) -> Self:
        """Return the specification that `to_json` wrote, with a VM's own overrides applied."""
        facts = json.loads(text) if text else {}
        return cls.from_facts(facts | (json.loads(overrides) if overrides else {}))

    @property
    def machine_type(self) -> Machine:
        """The machine the VM gets: what was asked, else what its disk bus lives on."""
        return self.machine or ("q35" if self.bus == "sata" else "pc")

    def validate(self) -> list[str]:
        """Return everything that is wrong with the specification, in words; empty if nothing."""
        return [*self._hardware_problems(), *self._network_problems(), *self._seed_problems()]

    def check(self) -> Self:
        """Return the specification itself if it can be met.

        Raises:
            InvalidSpec: it cannot; all problems are named.
        """
        problems = self.validate()
        if problems:
            raise InvalidSpec("; ".join(problems))
        return self

    def _hardware_problems(self) -> list[str]:
        problems = []
        if not 1 <= self.vcpus <= MAX_VCPUS:
            problems.append(f"{self.vcpus} virtual CPUs are not possible (1 to {MAX_VCPUS})")
        if self.memory_mib is not None and not 1 <= self.memory_mib <= MAX_MEMORY_MIB:
            problems.append(
                f"{self.memory_mib} MiB of memory are not possible (1 to {MAX_MEMORY_MIB})"
            )
        for name, value, known in (
            ("machine", self.machine, get_args(Machine)),
            ("disk bus", self.bus, get_args(Bus)),
            ("cache mode", self.cache, get_args(Cache)),
            ("discard mode", self.discard, get_args(Discard)),
        ):
            if value is not None and value not in known:
                problems.append(f"unknown {name} '{value}' (known: {', '.join(known)})")
        if self.machine == "q35" and self.bus == "ide":
            problems.append("machine q35 has no IDE bus: use bus sata, or machine pc")
        if self.vnc not in ("auto", "off"):
            match = _VNC_ADDRESS.fullmatch(self.vnc)
            if match is None or not 5900 <= int(match["port"]) <= 65535:
                problems.append(
                    f"VNC at '{self.vnc}' is not possible: auto, off, or ADDRESS:PORT "
                    "with a port from 5900"
                )
        return problems

    def _network_problems(self) -> list[str]:
        problems = []
        kinds = [network.kind for network in self.networks]
        if len(kinds) > MAX_NETWORKS:
            problems.append(f"{len(kinds)} networks are too many (up to {MAX_NETWORKS})")
        if "none" in kinds and len(kinds) > 1:
            problems.append("network none goes with no other network")
        if kinds.count("user") > 1:
            problems.append("one user network is enough: a second one leads to the same place")
        for network in self.networks:
            if network.kind not in get_args(NetworkKind):
                problems.append(f"unknown network '{network.kind}' (known: user, lan, none)")
            elif network.kind == "lan":
                try:
                    check_vm_name(network.name)
                except UsageError:
                    problems.append(f"'{network.name}' cannot name a LAN")
        if self.forwards and "user" not in kinds:
            problems.append("ports are forwarded through a user network, and there is none")
        problems += [
            f"port {port} is not possible (1 to 65535)"
            for forward in self.forwards
            for port in (forward.host_port, forward.guest_port)
            if not 1 <= port <= 65535
        ]
        taken = [(f.protocol, f.host_address, f.host_port) for f in self.forwards]
        problems += [
            f"host port {port}/{protocol} is forwarded twice"
            for protocol, address, port in sorted(set(taken))
            if taken.count((protocol, address, port)) > 1
        ]
        return problems

    def _seed_problems(self) -> list[str]:
        problems = [
            f"not a line of an SSH public key file: '{key[:40]}'"
            for key in self.ssh_keys
            if not _KEY_LINE.fullmatch(key)
        ]
        size = len(self.user_data.encode())
        if size > MAX_USER_DATA:
            problems.append(f"user-data of {size} bytes is too large (up to {MAX_USER_DATA})")
        return problems


def _compact(item: object) -> object:
    """Return a field's dataclass value without its defaults; anything else as it is.

    The first field is always there: it says what the thing is.
    """
    if isinstance(item, NetworkSpec | Forward):
        first, *others = fields(item)
        facts = {first.name: getattr(item, first.name)}
        return facts | {
            field.name: value
            for field in others
            if (value := getattr(item, field.name)) != field.default
        }
    return item
