"""What thinvirt shows of a VM in others' words is that VM: virt-install and libvirt say so."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.oracle.twins.cases import CHOICES, cases, pairs_met
from tests.oracle.twins.from_argv import from_argv
from tests.oracle.twins.from_xml import from_xml
from tests.oracle.twins.private_libvirt import Libvirt, Missing, private_libvirt
from tests.oracle.twins.round_trip import Trip, go, make_files, set_out

from thinvirt.service.os_knowledge import OsKnowledge
from thinvirt.vm.twins.differences import DIFFERENCES

pytestmark = pytest.mark.oracle
ROOT = Path(__file__).parents[3]
QUICK = (1, 28)  # seed and count in the normal suite
LONG = ((2, 160), (20261123, 80))


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> OsKnowledge:
    return OsKnowledge(cache_dir=tmp_path_factory.mktemp("os-index"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twins")
    make_files(folder)
    return folder


@pytest.fixture(scope="module")
def libvirt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirt]:
    try:
        with private_libvirt(tmp_path_factory.mktemp("v") / "v") as running:
            yield running
    except Missing as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINVIRT_ACCEL", "tcg")


def run(seed: int, count: int, files: Path, knowledge: OsKnowledge, libvirt: Libvirt) -> list[Trip]:
    trips = [set_out(case, files, knowledge) for case in cases(seed, count)]
    go(trips, libvirt, files)
    assert {str(trip.case): trip.faults for trip in trips if trip.faults} == {}
    return trips


def test_a_sample_agrees(files: Path, knowledge: OsKnowledge, libvirt: Libvirt) -> None:
    trips = run(*QUICK, files, knowledge, libvirt)
    one = files / f"{trips[0].case.name}.xml"
    subprocess.run(["virt-xml-validate", one, "domain"], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "count"), LONG)
def test_hundreds_agree(
    seed: int, count: int, files: Path, knowledge: OsKnowledge, libvirt: Libvirt
) -> None:
    run(seed, count, files, knowledge, libvirt)


@pytest.mark.slow
def test_every_declared_difference_is_met(
    files: Path, knowledge: OsKnowledge, libvirt: Libvirt
) -> None:
    trips = run(3, 60, files, knowledge, libvirt)
    declared = {d.name for d in DIFFERENCES} - {"network-name"}  # needs a network that is up
    assert set().union(*(trip.meant for trip in trips)) >= declared


def test_seeds_make_cases() -> None:
    assert cases(5, 12) == cases(5, 12)
    assert cases(5, 12) != cases(6, 12)
    made = cases(5, 30)
    for name, values in CHOICES.items():
        assert {case.choices[name] for case in made} == set(values), name
    assert pairs_met(made) > 4500


SPOILED: dict[str, tuple[str, str]] = {
    "cache": ('cache="none"', 'cache="unsafe"'),
    "bus": ('bus="virtio"', 'bus="sata"'),
    "format": ('type="qcow2"', 'type="raw"'),
    "serial": ("<serial>WD-1</serial>", ""),
    "memory": (">512</memory>", ">513</memory>"),
    "model": ('<model type="e1000" />', '<model type="virtio" />'),
    "mac": ("52:54:00:12:34:56", "52:54:00:12:34:57"),
    "listen": ('address="127.0.0.1"', 'address="0.0.0.0"'),
    "port": ('port="5941"', 'port="5942"'),
    "password": (' passwd="secret"', ""),
    "chain": ("plain.qcow2", "other.qcow2"),
    "boot": ('order="1"', 'order="9"'),
    "machine": ('machine="pc"', 'machine="q35"'),
    "genid": ("<genid />", ""),
    "agent": ("org.qemu.guest_agent.0", "org.qemu.guest_agent.1"),
    "clock": ('offset="utc"', 'offset="localtime"'),
    "reboot": ("<on_reboot>restart", "<on_reboot>destroy"),
}


@pytest.fixture
def plain(files: Path, knowledge: OsKnowledge) -> Trip:
    from thinvirt.vm.spec import DiskSpec, GraphicsSpec, NetworkSpec, VmSpec

    case = cases(1, 1)[0]
    spec = VmSpec(
        memory_mib=512,
        machine="pc",
        disks=(
            DiskSpec(source="overlay.qcow2", bus="virtio", cache="none", serial="WD-1"),
            DiskSpec(source="data.raw", format="raw", bus="scsi"),
        ),
        networks=(NetworkSpec("bridge", "br0", "e1000", "52:54:00:12:34:56"),),
        graphics=GraphicsSpec(port=5941, password="secret"),
    )
    return set_out(replace(case, spec=spec), files, knowledge)


@pytest.mark.parametrize("fact", SPOILED)
def test_a_difference_that_is_not_meant_is_found(fact: str, plain: Trip) -> None:
    """The comparison sees what it is for: no spoiled XML passes for the QEMU command line's."""
    plain.compare("xml-qemu", from_xml(plain.xml), from_argv(plain.qemu))
    assert plain.faults == []
    before, after = SPOILED[fact]
    assert before in plain.xml
    spoiled = plain.xml.replace(before, after, 1)
    plain.compare("xml-qemu", from_xml(spoiled), from_argv(plain.qemu))
    assert plain.faults


def test_virt_install_is_not_needed_to_write_its_command(
    files: Path, knowledge: OsKnowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything else run for an equivalent, once it is known what executes guests."""

    def refuse(*words: object, **_: object) -> None:
        raise AssertionError(f"ran {words}")

    monkeypatch.setenv("PATH", "/nonexistent")
    forbidden: Callable[..., None] = refuse
    monkeypatch.setattr(os, "posix_spawn", forbidden)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    trip = set_out(cases(1, 1)[0], files, knowledge)
    assert trip.virt_install[0] == "virt-install"
