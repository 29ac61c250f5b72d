"""Our advice is virt-install's own choice, except where our table knows more than osinfo-db."""

from pathlib import Path
from typing import Any

import pytest
from tests.oracle.os.conftest import Ask

from thinvirt.service.os_knowledge import OsKnowledge
from thinvirt.units import GIB, MIB
from thinvirt.vm.advice import DEFAULT_DISK_GIB, DEFAULT_MEMORY_MIB, DEFAULT_VCPUS, advise
from thinvirt.vm.os_support import bus_support

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def virtinst(ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    capabilities: Path = tmp_path_factory.mktemp("virtinst") / "capabilities.xml"
    found: dict[str, dict[str, Any]] = ask(
        "ask_virtinst.py",
        str(capabilities),
        needs="import sys; sys.path.insert(0, '/usr/share/virt-manager'); import virtinst",
    )
    return found


def ceil(size: int | None, unit: int, default: int) -> int:
    return -(-size // unit) if size else default


def test_what_it_chooses(knowledge: OsKnowledge, virtinst: dict[str, dict[str, Any]]) -> None:
    differing = {}
    for name, theirs in virtinst.items():
        info = knowledge.find(name)
        advice = advise(info)
        ours = {
            "machine": advice.machine.value,
            "efi": advice.firmware.value == "efi",
            "virtio_gpu": advice.video.value == "virtio",
            "virtio_rng": advice.rng.value == "virtio",
            "memory": advice.memory_mib.value,
            "least_memory": info.resource("minimum", "memory_bytes", "x86_64"),
            "disk": advice.disk_gib.value,
            "vcpus": advice.vcpus.value,
            "clock": advice.clock.value,
        }
        expected = {key: theirs[key] for key in ours} | {
            "memory": ceil(theirs["memory"], MIB, DEFAULT_MEMORY_MIB),
            "disk": ceil(theirs["disk"], GIB, DEFAULT_DISK_GIB),
            "vcpus": theirs["vcpus"] or DEFAULT_VCPUS,
        }
        wrong = {key: (ours[key], expected[key]) for key in ours if ours[key] != expected[key]}
        if wrong:
            differing[name] = wrong
    assert len(virtinst) > 700
    assert not differing


def test_bus_and_network_where_osinfo_knows(
    knowledge: OsKnowledge, virtinst: dict[str, dict[str, Any]]
) -> None:
    more_known = set()
    for name, theirs in virtinst.items():
        info = knowledge.find(name)
        advice = advise(info)
        if (advice.bus.value, advice.network.value) == (theirs["bus"], theirs["network"]):
            continue
        # The one allowed reason: our table has a virtio driver that osinfo-db does not list.
        assert not theirs["virtio_blk"], name
        assert bus_support(info, "virtio").value == "good", name
        assert bus_support(info, "virtio").source != "osinfo-db", name
        assert advice.bus.value == "virtio", name
        more_known.add(info.distro)
    assert more_known <= {
        "rhel", "centos", "ol", "oel", "scientificlinux", "asianux", "rocky", "miraclelinux",
        "circle", "fedora", "ubuntu", "sles", "sled", "sle", "opensuse", "alpinelinux", "netbsd",
        "openbsd", "voidlinux", "nixos", "manjaro", "mageia", "debian", "popos", "elementaryos",
        "trisquel", "pureos", "ucs", "slem", "caasp",
    }  # fmt: skip


def test_virtio_support_is_never_denied(
    knowledge: OsKnowledge, virtinst: dict[str, dict[str, Any]]
) -> None:
    for name, theirs in virtinst.items():
        info = knowledge.find(name)
        for bus, known in (("virtio", "virtio_blk"), ("scsi", "virtio_scsi")):
            if theirs[known]:
                assert bus_support(info, bus).value == "good", (name, bus)


def test_names_are_the_same(knowledge: OsKnowledge, virtinst: dict[str, dict[str, Any]]) -> None:
    for name, theirs in virtinst.items():
        if name != "generic":  # virt-install's own, as ours is our own
            assert knowledge.find(name).name == theirs["label"]
