"""What the end of an installer means, and what the VM is afterwards."""

from typing import Any

import pytest

from thinvirt.vm.phases import INTERRUPTED, Ending, ending_of, second_phase
from thinvirt.vm.qemu.argv import boot_order
from thinvirt.vm.spec import DiskSpec, InstallSpec, VmSpec


def event(name: str, reason: str = "", at: int = 1000) -> dict[str, Any]:
    found: dict[str, Any] = {"event": name, "timestamp": {"seconds": at, "microseconds": 5}}
    return found | ({"data": {"reason": reason}} if reason else {})


REBOOTED = Ending(installed=True, again=True)
OFF = Ending(installed=True, again=False)
BUTTON = event("POWERDOWN", at=990)


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        ([], INTERRUPTED),
        ([{"QMP": {}}, {"return": {}}], INTERRUPTED),
        ([{"return": {}}, event("RTC_CHANGE"), event("SHUTDOWN", "guest-reset")], REBOOTED),
        ([event("SHUTDOWN", "guest-shutdown")], OFF),
        ([BUTTON, event("SHUTDOWN", "guest-shutdown")], INTERRUPTED),
        ([event("POWERDOWN", at=1), event("SHUTDOWN", "guest-shutdown")], OFF),
        ([BUTTON, event("SHUTDOWN", "guest-reset")], OFF),
        ([event("SHUTDOWN", "host-qmp-quit")], INTERRUPTED),
        ([event("SHUTDOWN", "host-signal")], INTERRUPTED),
        ([event("SHUTDOWN", "guest-panic")], INTERRUPTED),
        (
            [event("SHUTDOWN", "host-qmp-system-reset")],
            Ending(installed=False, again=True),
        ),
    ],
)
def test_an_end_is_judged_by_its_events(events: list[dict[str, Any]], wanted: Ending) -> None:
    assert ending_of(events) == wanted


def test_the_disc_becomes_a_drive_behind_the_disks() -> None:
    install = InstallSpec(media="/x.iso", kernel="/k", initrd="/i")
    first = VmSpec(install=install, disks=(DiskSpec(), DiskSpec(device="cdrom")))
    second = second_phase(first)
    assert second.install is None
    assert second.disks == (*first.disks, DiskSpec(source="/x.iso", device="cdrom", read_only=True))
    assert boot_order(first, media=True) == {"media": 0, "disk0": 1, "disk1": 2}
    assert boot_order(second) == {"disk0": 0, "disk1": 1, "disk2": 2}
    assert second_phase(second) == second


def test_what_comes_by_network_is_booted_from_the_disk_afterwards() -> None:
    first = VmSpec(install=InstallSpec(boot="network"))
    assert boot_order(first) == {"nic0": 0, "disk0": 1}
    assert boot_order(second_phase(first)) == {"disk0": 0}
