"""What is done when the QEMU of an installation has ended: `thinvirt.run.phase_watch` calls it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from thinvirt.errors import ThinvirtError
from thinvirt.run import liveness, qemu
from thinvirt.service.launching import acceleration, folder_of, launch_locked
from thinvirt.service.second_phase import settle
from thinvirt.store import Store, open_store

_LOCK_WAIT_S = 300.0  # `thinvirt stop` holds the lock until the guest is down


def proceed(arguments: Sequence[str]) -> int:
    """Settle what the end of a QEMU means, and start its VM again if it has to come back.

    What cannot be done is written to the standard error, which is the VM's ``watch.log``; the next
    start of the VM does it.

    Args:
        arguments: the store and the VM's number.
    """
    home, vm_id = arguments
    try:
        store = open_store(Path(home), create=False)
        try:
            _proceed(store, int(vm_id))
        finally:
            store.close()
    except ThinvirtError as error:
        sys.stderr.write(f"thinvirt: {error}\n")
        return error.exit_status
    return 0


def _proceed(store: Store, vm_id: int) -> None:
    vm = store.catalog.vm_by_id(vm_id)
    if vm is None:
        return  # removed
    with store.lock_vm(vm, "install", wait_s=_LOCK_WAIT_S):
        folder = folder_of(store, vm)
        liveness.wait_dead(folder.run)
        if liveness.is_alive(folder.run):
            return  # somebody has been quicker: it runs again
        found = store.catalog.vm_by_id(vm_id)
        if found is None:
            return
        install = found.spec.install
        vm, ending = settle(store, found)
        qemu.bury(folder)
        stays_off = ending.installed and install is not None and not install.reboot
        if ending.again and not stays_off:
            launch_locked(store, vm, accel=acceleration())
