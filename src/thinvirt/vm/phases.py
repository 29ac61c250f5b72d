"""The two phases of an installation: with the installer's medium first, then from the disk.

In the first one a guest that restarts makes QEMU end; whether it did so, or was stopped, is told by
the events that QEMU recorded (QEMU's qapi/run-state.json, ``SHUTDOWN`` and ``POWERDOWN``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from thinvirt.vm.spec import DiskSpec, VmSpec

BUTTON_COUNTS_S: Final = 120.0  # a guest that ends so soon after the power button obeyed it


@dataclass(frozen=True, slots=True)
class Ending:
    """What the end of a QEMU means for an installation.

    Attributes:
        installed: whether the first phase is over.
        again: whether the VM has to come back by itself.
    """

    installed: bool
    again: bool


INTERRUPTED: Final = Ending(installed=False, again=False)


def ending_of(events: Iterable[Mapping[str, Any]]) -> Ending:
    """Return what the events of a QEMU that has ended mean.

    A guest that restarts, or powers off by itself, is installed. One that powers off because its
    button was pressed is not, nor one whose QEMU was ended or broke; one that the host reset is to
    begin anew.

    Args:
        events: QMP's messages in their order; what is no event is passed over.
    """
    pressed_at = None
    for event in events:
        name = event.get("event")
        if name == "POWERDOWN":
            pressed_at = _seconds(event)
        elif name == "SHUTDOWN":
            pressed = pressed_at is not None and _seconds(event) - pressed_at < BUTTON_COUNTS_S
            match event.get("data", {}).get("reason"):
                case "guest-reset":
                    return Ending(installed=True, again=not pressed)
                case "guest-shutdown":
                    return Ending(installed=not pressed, again=False)
                case "host-qmp-system-reset":
                    return Ending(installed=False, again=True)
            return INTERRUPTED
    return INTERRUPTED


def _seconds(event: Mapping[str, Any]) -> float:
    stamp = event.get("timestamp", {})
    return float(stamp.get("seconds", 0)) + float(stamp.get("microseconds", 0)) / 1e6


def second_phase(spec: VmSpec) -> VmSpec:
    """Return the specification of a VM whose installer is done.

    Its kernel is gone, and its disc has become the last CD-ROM drive: in the place where the guest
    saw it before, and behind the disks in the boot order.
    """
    install = spec.install
    if install is None:
        return spec
    disks = spec.disks
    if install.media:
        disks = (*disks, DiskSpec(source=install.media, device="cdrom", read_only=True))
    return replace(spec, install=None, disks=disks)
