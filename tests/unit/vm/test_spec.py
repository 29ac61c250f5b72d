import pytest

from thinvirt.errors import ThinvirtError, UsageError
from thinvirt.vm.spec import Forward, InvalidSpec, NetworkSpec, VmSpec

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@here"
RICH = VmSpec(
    vcpus=2,
    memory_mib=512,
    machine="q35",
    bus="sata",
    cache="none",
    discard=None,
    networks=(NetworkSpec("user"), NetworkSpec("lan", "lab")),
    forwards=(Forward(8080, 80), Forward(53, 53, "udp", "0.0.0.0")),
    user_data="#!/bin/sh\necho ä\n",
    ssh_keys=(KEY,),
    vnc="off",
)


def test_nothing_asked_takes_no_room() -> None:
    assert VmSpec().to_json() == "{}"
    assert VmSpec.from_json("") == VmSpec.from_json("{}") == VmSpec()


@pytest.mark.parametrize("spec", [RICH, VmSpec(networks=()), VmSpec(discard=None)])
def test_json_round_trip(spec: VmSpec) -> None:
    assert VmSpec.from_json(spec.to_json()) == spec
    assert spec.validate() == []


def test_overrides_of_one_vm() -> None:
    spec = VmSpec.from_json(RICH.to_json(), '{"vcpus": 4, "networks": [{"kind": "none"}]}')
    assert (spec.vcpus, spec.networks, spec.bus) == (4, (NetworkSpec("none"),), "sata")


def test_a_newer_version_is_told() -> None:
    with pytest.raises(ThinvirtError, match="'tpm'"):
        VmSpec.from_json('{"tpm": true}')


def test_machine_follows_the_bus() -> None:
    assert [VmSpec(bus=bus).machine_type for bus in ("virtio", "ide", "sata", "scsi")] == [
        "pc", "pc", "q35", "pc",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (VmSpec(vcpus=0), "0 virtual CPUs"),
        (VmSpec(memory_mib=0), "0 MiB"),
        (VmSpec(machine="q35", bus="ide"), "no IDE bus"),
        (VmSpec(bus="foo"), "unknown disk bus 'foo'"),  # type: ignore[arg-type]
        (VmSpec(cache="x"), "unknown cache mode 'x'"),  # type: ignore[arg-type]
        (VmSpec(vnc="127.0.0.1:80"), "port from 5900"),
        (VmSpec(vnc="nonsense"), "VNC at 'nonsense'"),
        (VmSpec(networks=(NetworkSpec("none"), NetworkSpec("user"))), "no other network"),
        (VmSpec(networks=(NetworkSpec("lan", "../x"),)), "cannot name a LAN"),
        (VmSpec(networks=(NetworkSpec("lan", "a"),), forwards=(Forward(1, 2),)), "there is none"),
        (VmSpec(forwards=(Forward(0, 22),)), "port 0"),
        (VmSpec(forwards=(Forward(8080, 1), Forward(8080, 2))), "8080/tcp is forwarded twice"),
        (VmSpec(ssh_keys=("hello",)), "'hello'"),
        (VmSpec(ssh_keys=(f"{KEY}\nssh-rsa AAAA",)), "not a line"),
    ],
)
def test_problems_are_named(spec: VmSpec, told: str) -> None:
    assert told in "; ".join(spec.validate())
    with pytest.raises(InvalidSpec):
        spec.check()


def test_all_problems_at_once() -> None:
    problems = VmSpec(vcpus=0, memory_mib=0, vnc="x").validate()
    assert len(problems) == 3
    assert issubclass(InvalidSpec, UsageError)
