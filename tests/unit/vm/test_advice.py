"""What is advised, and what is warned of."""

import pytest

from thinvirt.units import GIB, MIB
from thinvirt.vm.advice import Chosen, advise, warnings_for
from thinvirt.vm.advice_texts import ENGLISH, LANGUAGES, Text
from thinvirt.vm.osinfo.records import DEVICE_IDS, Device, Firmware, OsInfo, Resources


def system(distro: str, version: str, *devices: str, **more: object) -> OsInfo:
    values = {
        "id": "x",
        "short_ids": (distro + version,),
        "name": f"{distro} {version}",
        "devices": tuple(Device(DEVICE_IDS[name][0], name) for name in devices),
        "family": "winnt" if distro == "win" else "linux",
    } | more
    return OsInfo(distro=distro, version=version, **values)  # type: ignore[arg-type]


MODERN = ("virtio-blk", "virtio-scsi", "virtio-net", "virtio-1.0", "q35", "virtio-gpu")
NEEDS = (
    Resources("all", "minimum", cpus=1, memory_bytes=512 * MIB, disk_bytes=5 * GIB),
    Resources("all", "recommended", memory_bytes=2 * GIB),
)
DEBIAN = system("debian", "12", *MODERN, resources=NEEDS)
XP = system("win", "5.1", "rtl8139")
WIN11 = system(
    "win", "11.0", "q35", "e1000e",
    firmware=(Firmware("x86_64", "efi"), Firmware("x86_64", "bios", False)),
)  # fmt: skip
CIRROS = system("cirros", "0.5.1", "virtio-blk", "virtio-net", "virtio-1.0")
GENERIC = system("", "", short_ids=("generic",), family="")


def values(info: OsInfo, **options: bool) -> dict[str, str | int]:
    return {name: choice.value for name, choice in advise(info, **options).choices()}  # type: ignore[arg-type]


def test_a_modern_linux() -> None:
    assert values(DEBIAN) == {
        "bus": "virtio", "cache": "writeback", "network": "virtio", "machine": "q35",
        "firmware": "bios", "memory_mib": 2048, "disk_gib": 10, "vcpus": 2, "video": "virtio",
        "rng": "none", "tpm": "none", "clock": "utc",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("info", "bus", "network", "machine", "firmware", "cache"),
    [
        (XP, "ide", "rtl8139", "pc", "bios", "writethrough"),
        (WIN11, "sata", "e1000e", "q35", "efi", "writeback"),
        (CIRROS, "virtio", "virtio", "pc", "bios", "writeback"),
        (GENERIC, "ide", "e1000", "pc", "bios", "writeback"),
        (system("centos", "5.4"), "virtio", "virtio", "pc", "bios", "writethrough"),
        (system("house", "1", "q35"), "sata", "e1000e", "q35", "bios", "writeback"),
        (system("house", "1", bad_buses=("ide",)), "sata", "e1000", "pc", "bios", "writeback"),
        (system("rhel", "6.9", "virtio-net", "q35"), "virtio", "virtio", "pc", "bios", "writeback"),
    ],
)
def test_others(
    info: OsInfo, bus: str, network: str, machine: str, firmware: str, cache: str
) -> None:
    found = values(info)
    names = ("bus", "network", "machine", "firmware", "cache")
    assert [found[name] for name in names] == [bus, network, machine, firmware, cache]


def test_the_driver_disc_makes_windows_take_virtio() -> None:
    found = values(WIN11, driver_disc=True)
    assert (found["bus"], found["network"]) == ("virtio", "virtio")
    assert any("virtio-win" in str(note) for note in advise(WIN11).notes)
    assert not any("virtio-win" in str(note) for note in advise(WIN11, driver_disc=True).notes)


def test_every_choice_has_its_reason_in_words() -> None:
    for info in (DEBIAN, XP, WIN11, CIRROS, GENERIC):
        for name, choice in advise(info).choices():
            reason = choice.reason.render()
            assert reason, name
            assert "{" not in reason, name
        facts = advise(info).as_facts()
        assert facts["bus"]["reason_key"] in ENGLISH


def test_support_that_ended_is_noted() -> None:
    old = system("house", "1", eol_date="2020-01-01", release_date="2010-01-01")
    assert "2020-01-01" in str(advise(old, today="2020-01-02").notes[-1])
    assert not advise(old, today="2020-01-01").notes
    undated = system("house", "1", release_date="2010-06-01")
    assert advise(undated, today="2020-06-02").notes
    assert not advise(undated, today="2020-05-01").notes
    rolling = system("house", "1", release_date="2010-06-01", status="rolling")
    assert not advise(rolling, today="2030-01-01").notes


def warned(info: OsInfo, chosen: Chosen) -> list[tuple[str, str]]:
    return [(w.subject, w.certainty) for w in warnings_for(info, chosen)]


@pytest.mark.parametrize(
    ("info", "chosen", "expected"),
    [
        (DEBIAN, Chosen(buses=("virtio", "scsi"), machine="q35"), []),
        (DEBIAN, Chosen(buses=("ide",), machine="q35"), [("bus", "certain")]),
        (DEBIAN, Chosen(buses=("sata",)), [("bus", "possible")]),  # the cloud kernel
        (DEBIAN, Chosen(memory_mib=256), [("memory", "likely")]),
        (DEBIAN, Chosen(memory_mib=512, disk_bytes=5 * GIB, vcpus=1), []),
        (DEBIAN, Chosen(disk_bytes=5 * GIB - 1), [("disk", "likely")]),
        (CIRROS, Chosen(buses=("sata",)), [("bus", "certain")]),
        (CIRROS, Chosen(machine="q35"), [("machine", "possible")]),
        (CIRROS, Chosen(no_network=True, seed=False), [("network", "certain")]),
        (CIRROS, Chosen(no_network=True), []),
        (XP, Chosen(buses=("sata",)), [("bus", "certain")]),
        (XP, Chosen(buses=("virtio",)), [("bus", "certain")]),
        (XP, Chosen(buses=("virtio",), driver_disc=True), []),
        (XP, Chosen(firmware="efi"), [("firmware", "certain")]),
        (XP, Chosen(network_models=("virtio", "virtio")), [("network", "certain")]),
        (XP, Chosen(network_models=("rtl8139",)), []),
        (WIN11, Chosen(firmware="efi", tpm=True, secure_boot=True), []),
        (WIN11, Chosen(firmware="efi", installing=False), []),
        (
            WIN11,
            Chosen(firmware="bios"),
            [("firmware", "certain"), ("tpm", "likely"), ("firmware", "likely")],
        ),
        (system("house", "1"), Chosen(buses=("scsi",)), [("bus", "possible")]),
        (system("house", "1"), Chosen(network_models=("virtio",)), [("network", "possible")]),
        (GENERIC, Chosen(buses=("virtio",), network_models=("virtio",), machine="q35"), []),
    ],
)
def test_warnings(info: OsInfo, chosen: Chosen, expected: list[tuple[str, str]]) -> None:
    assert warned(info, chosen) == expected


def test_warnings_say_what_to_do() -> None:
    (warning,) = warnings_for(CIRROS, Chosen(buses=("sata",)))
    facts = warning.as_facts()
    assert facts["message"].startswith("cirros 0.5.1 has no driver for disk bus sata")
    assert facts["fix"] == "use bus virtio"
    (warning,) = warnings_for(DEBIAN, Chosen(memory_mib=256))
    assert warning.fix.render() == "give at least 512 MiB; 2048 MiB are recommended"


def test_what_is_advised_is_never_warned_of() -> None:
    for info in (DEBIAN, XP, CIRROS, GENERIC, system("house", "1", "q35"), system("win", "6.1")):
        advice = advise(info)
        chosen = Chosen(
            buses=(str(advice.bus.value),),
            machine=str(advice.machine.value),
            firmware=str(advice.firmware.value),
            memory_mib=int(advice.memory_mib.value),
            disk_bytes=int(advice.disk_gib.value) * GIB,
            vcpus=int(advice.vcpus.value),
            network_models=(str(advice.network.value),),
        )
        assert warned(info, chosen) == []


def test_a_language_that_is_not_there_speaks_english() -> None:
    assert Text.of("network-default").render("tlh") == ENGLISH["network-default"]
    for table in LANGUAGES.values():
        assert table.keys() <= ENGLISH.keys()
