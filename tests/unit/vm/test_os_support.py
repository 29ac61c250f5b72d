"""The table of disk buses: bounds, order, kin, and the cases people ask about."""

import pytest

from thinvirt.vm.os_support import TABLE, bus_support, find_row, row_for
from thinvirt.vm.osinfo.records import DEVICE_IDS, Device, Kin, OsInfo


def system(distro: str, version: str, **more: object) -> OsInfo:
    values = {"id": "x", "short_ids": (distro + version,), "name": "X"} | more
    return OsInfo(distro=distro, version=version, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("distro", "version", "ide", "sata", "virtio", "scsi"),
    [
        ("centos", "5.2", "good", "good", "unknown", "bad"),
        ("centos", "5.11", "good", "good", "good", "bad"),
        ("centos", "6.2", "good", "good", "good", "bad"),
        ("rhel", "6.10", "good", "good", "good", "good"),
        ("centos", "7", "good", "good", "good", "good"),
        ("debian", "4", "good", "good", "bad", "bad"),
        ("debian", "12", "good", "good", "good", "good"),
        ("ubuntu", "8.04", "good", "good", "unknown", "bad"),
        ("ubuntu", "22.04", "good", "good", "good", "good"),
        ("fedora", "8", "good", "good", "bad", "bad"),
        ("sles", "11", "good", "good", "good", "unknown"),
        ("sles", "11.4", "good", "good", "good", "good"),
        ("opensuse", "42.1", "good", "good", "good", "good"),
        ("cirros", "0.5.1", "good", "bad", "good", "unknown"),
        ("cirros", "0.5.2", "good", "good", "good", "good"),
        ("cirros", "0.6.2", "good", "good", "good", "good"),
        ("freebsd", "9.3", "good", "good", "unknown", "bad"),
        ("openbsd", "5.3", "good", "good", "good", "bad"),
        ("netbsd", "7.0", "good", "good", "good", "bad"),
        ("netbsd", "7.1.2", "good", "good", "good", "unknown"),
        ("win", "5.1", "good", "bad", "bad", "bad"),
        ("win", "6.0", "good", "good", "bad", "bad"),
        ("win", "10.0", "good", "good", "bad", "bad"),
    ],
)
def test_rows(distro: str, version: str, ide: str, sata: str, virtio: str, scsi: str) -> None:
    info = system(distro, version)
    found = tuple(bus_support(info, bus).value for bus in ("ide", "sata", "virtio", "scsi"))
    assert found == (ide, sata, virtio, scsi)


def test_not_listed_is_not_unsupported() -> None:
    for bus in ("virtio", "scsi", "sata", "ide", "usb"):
        assert bus_support(system("templeos", "5"), bus).value == "unknown"
    assert bus_support(system("debian", "12"), "usb").value == "unknown"


def test_osinfo_knows_better_where_it_says_yes() -> None:
    device = Device(DEVICE_IDS["virtio-scsi"][1])
    info = system("ubuntu", "12.04", devices=(device,))
    assert (bus_support(info, "scsi").value, bus_support(info, "scsi").source) == (
        "good",
        "osinfo-db",
    )


def test_a_users_file_knows_best() -> None:
    info = system("debian", "12", bad_buses=("virtio",), good_buses=("usb",), source="/my/os.toml")
    assert bus_support(info, "virtio").value == "bad"
    assert bus_support(info, "usb").source == "/my/os.toml"


def test_kin_lend_their_row() -> None:
    info = system("house", "3", kin=(Kin("shed1", "shed", "1"), Kin("debian4", "debian", "4")))
    assert bus_support(info, "virtio").value == "bad"


def test_versions_that_are_no_numbers_mean_the_newest() -> None:
    newest = row_for("fedora", "40")
    assert row_for("fedora", "rawhide") is newest
    assert row_for("debian", "testing") is row_for("debian", "13")


def test_generic_linux_is_known_by_its_year() -> None:
    assert find_row(system("", "2022", short_ids=("linux2022",))) is row_for("linux", "2022")
    assert find_row(system("", "", short_ids=("generic",))) is None


def test_every_row_has_a_source_and_can_be_reached() -> None:
    for row in TABLE:
        assert row.source
        for distro in row.distros:
            reached = {row_for(distro, v) for v in (row.first, row.last, row.last + ".99") if v}
            assert row in reached or not (row.first or row.last), (distro, row)
