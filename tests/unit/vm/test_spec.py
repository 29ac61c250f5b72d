from typing import Any

import pytest

from thinvirt.errors import ThinvirtError, UsageError
from thinvirt.vm.spec import (
    BootSpec,
    DiskSpec,
    Forward,
    GraphicsSpec,
    InstallSpec,
    InvalidSpec,
    NetworkSpec,
    SeedSpec,
    Topology,
    VmSpec,
)
from thinvirt.vm.spec.defaults import machine_of, with_defaults
from thinvirt.vm.spec.validate import checked, problems_of
from thinvirt.vm.spec.words import Bus

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@here"
RICH = VmSpec(
    os="debian12",
    vcpus=4,
    topology=Topology(cores=2, threads=2),
    memory_mib=512,
    machine="q35",
    firmware="efi",
    boot=BootSpec(order=("cdrom", "hd")),
    disks=(
        DiskSpec(bus="sata", cache="none", io="native", serial="A1"),
        DiskSpec(source="/data/x.raw", format="raw", bus="virtio", iothread=True),
        DiskSpec(device="cdrom"),
    ),
    networks=(NetworkSpec("user"), NetworkSpec("lan", "lab", "e1000", "52:54:00:00:00:01")),
    forwards=(Forward(8080, 80), Forward(53, 53, "udp", "0.0.0.0")),
    seed=SeedSpec(user_data="#!/bin/sh\necho ä\n", ssh_keys=(KEY,)),
    graphics=GraphicsSpec("spice", password="long enough"),
    tpm="tpm-crb",
)


def on_bus(*buses: Bus) -> VmSpec:
    return VmSpec(disks=tuple(DiskSpec(bus=bus) for bus in buses))


def test_nothing_asked_takes_no_room() -> None:
    assert VmSpec().to_json() == "{}"
    assert VmSpec.from_json("") == VmSpec.from_json("{}") == VmSpec()


@pytest.mark.parametrize("spec", [RICH, VmSpec(networks=()), VmSpec(seed=None)])
def test_json_round_trip(spec: VmSpec) -> None:
    assert VmSpec.from_json(spec.to_json()) == spec
    assert list(problems_of(spec)) == []


def test_overrides_of_one_vm() -> None:
    spec = VmSpec.from_json(RICH.to_json(), '{"vcpus": 8, "networks": [{"kind": "none"}]}')
    assert (spec.vcpus, spec.networks, spec.disks) == (8, (NetworkSpec("none"),), RICH.disks)


def test_a_newer_version_is_told() -> None:
    with pytest.raises(ThinvirtError, match="'warp'"):
        VmSpec.from_json('{"warp": true}')


def test_machine_follows_buses_and_firmware() -> None:
    assert [machine_of(on_bus(bus)) for bus in ("virtio", "ide", "sata", "scsi")] == [
        "pc", "pc", "q35", "pc",
    ]  # fmt: skip
    assert machine_of(VmSpec(firmware="efi")) == "q35"
    assert machine_of(on_bus("ide", "sata")) == "pc"


def test_defaults_are_filled_in_once() -> None:
    spec = VmSpec(disks=(DiskSpec(), DiskSpec(device="cdrom"), DiskSpec(read_only=True)))
    filled = with_defaults(spec)
    assert [(d.bus, d.discard, d.read_only) for d in filled.disks] == [
        ("virtio", "unmap", False),
        ("ide", None, True),
        ("virtio", "ignore", True),
    ]
    assert (filled.machine, filled.video, filled.networks[0].model) == ("pc", "vga", "virtio")
    assert with_defaults(filled) == filled


@pytest.mark.parametrize(
    ("spec", "place", "told"),
    [
        (VmSpec(vcpus=0), "vcpus", "0 virtual CPUs"),
        (VmSpec(vcpus=3, topology=Topology(cores=2)), "topology", "make 2 CPUs"),
        (VmSpec(memory_mib=0), "memory_mib", "0 MiB"),
        (VmSpec(machine="q35", disks=(DiskSpec(bus="ide"),)), "disks[0].bus", "no IDE bus"),
        (on_bus("ide", "ide", "ide", "ide"), "disks[0].bus", "4 IDE drives are too many (up to 3)"),
        (on_bus("foo"), "disks[0].bus", "unknown disk bus 'foo'"),  # type: ignore[arg-type]
        (VmSpec(disks=(DiskSpec(cache="x"),)), "disks[0].cache", "unknown cache mode 'x'"),  # type: ignore[arg-type]
        (VmSpec(disks=(DiskSpec(io="native"),)), "disks[0].io", "page cache"),
        (VmSpec(disks=(DiskSpec(bus="ide", iothread=True),)), "disks[0].iothread", "I/O thread"),
        (VmSpec(disks=(DiskSpec(size=0),)), "disks[0].size", "0 bytes"),
        (VmSpec(disks=(DiskSpec(serial="a,b"),)), "disks[0].serial", "'a,b'"),
        (VmSpec(disks=(DiskSpec(format="raw", backing="/b"),)), "disks[0].format", "raw disk"),
        (VmSpec(disks=(DiskSpec(device="cdrom", bus="virtio"),)), "disks[0].bus", "no CD-ROM"),
        (VmSpec(disks=(DiskSpec(source="/a"),) * 2), "disks", "attached twice"),
        (VmSpec(disks=(DiskSpec(boot_order=1),) * 2), "disks", "boot order 1"),
        (VmSpec(boot=BootSpec(initrd="/i")), "boot.initrd", "goes with a kernel"),
        (VmSpec(install=InstallSpec()), "install", "needs something to start from"),
        (VmSpec(secure_boot=True), "secure_boot", "part of UEFI"),
        (VmSpec(graphics=GraphicsSpec(port=80)), "graphics.port", "port from 5900"),
        (VmSpec(graphics=GraphicsSpec(password="123456789")), "graphics.password", "first 8"),
        (VmSpec(networks=(NetworkSpec("none"), NetworkSpec())), "networks", "no other network"),
        (VmSpec(networks=(NetworkSpec("lan", "../x"),)), "networks[0].name", "cannot name a LAN"),
        (VmSpec(networks=(NetworkSpec("bridge", ""),)), "networks[0].name", "name a bridge"),
        (VmSpec(networks=(NetworkSpec(mac="1:2"),)), "networks[0].mac", "hardware address"),
        (VmSpec(networks=(NetworkSpec(mac="53:54:00:00:00:01"),)), "networks[0].mac", "multicast"),
        (VmSpec(networks=(), forwards=(Forward(1, 2),)), "forwards", "there is none"),
        (VmSpec(forwards=(Forward(0, 22),)), "forwards[0]", "port 0"),
        (VmSpec(forwards=(Forward(8080, 1), Forward(8080, 2))), "forwards", "forwarded twice"),
        (VmSpec(seed=SeedSpec(ssh_keys=("hello",))), "seed.ssh_keys[0]", "'hello'"),
        (VmSpec(seed=SeedSpec(ssh_keys=(f"{KEY}\nssh-rsa A",))), "seed.ssh_keys[0]", "not a line"),
    ],
)  # fmt: skip
def test_problems_are_named(spec: VmSpec, place: str, told: str) -> None:
    problems = list(problems_of(spec))
    assert [problem.place for problem in problems] == [place]
    assert told in str(problems[0])
    with pytest.raises(InvalidSpec):
        checked(spec)


def test_all_problems_at_once() -> None:
    problems = list(problems_of(VmSpec(vcpus=0, memory_mib=0, graphics=GraphicsSpec(port=1))))
    assert len(problems) == 3
    assert issubclass(InvalidSpec, UsageError)


@pytest.mark.parametrize(
    ("facts", "place", "told"),
    [
        ({"vcpu": 2}, "vcpu", "did you mean 'vcpus'?"),
        ({"vcpus": "two"}, "vcpus", "'two', not a whole number"),
        ({"vcpus": True}, "vcpus", "'true', not a whole number"),
        ({"disks": {"bus": "ide"}}, "disks", "a group of keys, not a list"),
        ({"disks": [{"bus": "idee"}]}, "disks[0].bus", "known: virtio, scsi"),
        ({"disks": [{}, {"cashe": 1}]}, "disks[1].cashe", "did you mean 'cache'?"),
        ({"forwards": [{"host_port": 1}]}, "forwards[0].guest_port", "is missing"),
        ({"boot": {"order": ["hd", 3]}}, "boot.order[1]", "'3'"),
        ({"memory_mib": None}, None, ""),
        ({"machine": None, "tpm": None}, None, ""),
    ],
)
def test_wrong_types_have_places(facts: dict[str, Any], place: str | None, told: str) -> None:
    if place is None:
        assert VmSpec.from_facts(facts) == VmSpec()
        return
    with pytest.raises(InvalidSpec) as raised:
        VmSpec.from_facts(facts)
    (problem,) = raised.value.problems
    assert problem.place == place
    assert told in str(problem)
