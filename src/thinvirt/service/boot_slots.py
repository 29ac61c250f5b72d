"""How many guests boot at once: a start waits for its turn, as more would only slow each other.

A guest has its place until it shows its login prompt, ends, rests, or has had it for `BOOT_SLOT_S`.
"""

import time
from dataclasses import dataclass, field

from thinvirt.run import process
from thinvirt.run.folder import VmFolder
from thinvirt.run.liveness import RunState
from thinvirt.run.watch import GuestWatch

BOOT_SLOT_S = 120.0  # a guest that says nothing and never rests gives its place to the next
REST_WINDOW_S = 3.0
REST_SHARE = 0.25  # of one core: below that a guest is not booting, whatever it prints
_LOOK_S = 0.1


@dataclass(slots=True)
class BootSlots:
    """Places for VMs that boot at the same time.

    Attributes:
        slots: how many there are.
        guests: who has one.
    """

    slots: int
    guests: list["_Guest"] = field(default_factory=list)

    def add(self, folder: VmFolder, name: str, state: RunState) -> None:
        """Give a place to a VM that has just been started."""
        self.guests.append(_Guest(GuestWatch(folder, name), state))

    def wait_for_slot(self) -> None:
        """Return once there is a place."""
        while len(self.guests) >= self.slots:
            self.guests = [guest for guest in self.guests if guest.is_booting()]
            if len(self.guests) >= self.slots:
                time.sleep(_LOOK_S)


@dataclass(slots=True)
class _Guest:
    """One VM that boots: seen by its console, and by the processor time it takes."""

    watch: GuestWatch
    state: RunState
    began: float = field(default_factory=time.monotonic)
    measured_at: float = 0.0
    cpu_s: float = 0.0

    def is_booting(self) -> bool:
        self.watch.look()
        now = time.monotonic()
        if not self.watch.alive or self.watch.login_at_s is not None:
            return False
        if now - self.began > BOOT_SLOT_S:
            return False
        return not self._rests(now)

    def _rests(self, now: float) -> bool:
        if now - self.measured_at < REST_WINDOW_S:
            return False
        used_s = process.wanted_cpu_seconds(self.state.pid)
        share = (used_s - self.cpu_s) / (now - self.measured_at)
        is_first = self.measured_at == 0.0
        self.measured_at, self.cpu_s = now, used_s
        return not is_first and share < REST_SHARE
