"""From the installer to the installed system: the VM comes back by itself after its first restart.

Which phase a VM is in stands in the catalogue: its overrides replace ``install`` once that is done.
It is set by whoever looks first after QEMU's end, under the VM's lock: the watcher that waits for
that end, or, if it was killed, the next start.
"""

import json
import os
import sys
import time
from pathlib import Path

from thinvirt.errors import Conflict, QemuFailed, Timeout
from thinvirt.run import event_record, liveness, phase_watch, qemu
from thinvirt.run.folder import VmFolder
from thinvirt.run.process import spawn, uninterrupted
from thinvirt.run.qemu import Running
from thinvirt.store import Store, Vm
from thinvirt.vm.phases import INTERRUPTED, Ending, ending_of, second_phase

RESTART = "thinvirt.service.installer_restart:proceed"  # what is done at QEMU's end
_LOOK_S = 0.5


def settle(store: Store, vm: Vm) -> tuple[Vm, Ending]:
    """Record that a VM's installation is over, if it is; return the VM as it is now, and how.

    The caller holds the VM's lock, and its QEMU has ended.
    """
    spec = vm.spec
    if spec.install is None:
        return vm, INTERRUPTED
    record = _folder(store, vm).event_record
    ending = ending_of(event_record.read(record))
    if not ending.installed:
        return vm, ending
    facts = second_phase(spec).to_facts()
    kept = json.loads(vm.overrides_json) if vm.overrides_json else {}
    changed = {"install": None, "disks": facts.get("disks", [])}
    if "disks" not in facts:  # as the defaults have it
        del changed["disks"]
    store.catalog.set_overrides(vm, json.dumps(kept | changed, ensure_ascii=False))
    own = store.layout.own_files(vm.batch.id, vm.name)
    for path in (own.installer_kernel, own.installer_initrd):
        path.unlink(missing_ok=True)
    event_record.forget(record)
    return store.catalog.find_vm(vm.name), ending


def watch(store: Store, vm: Vm, running: Running) -> None:
    """Have the VM come back after its installer's restart: start what waits for QEMU's end.

    Raises:
        QemuFailed: QEMU has ended already, or the watcher cannot be started; QEMU is ended then.
    """
    folder, state = _folder(store, vm), running.state
    try:
        event_record.begin(folder.event_record)
        pidfd = liveness.open_process(state.pid, state.start_ticks)
        if pidfd is None:
            raise QemuFailed(f"QEMU of VM '{vm.name}' ended at once", path=folder.qemu_log)
        try:
            path = os.pathsep.join(str(Path(each).absolute()) for each in sys.path if each)
            with uninterrupted():
                spawn(
                    [
                        *(sys.executable, "-I", "-S", "-B", str(Path(phase_watch.__file__))),
                        *(path, str(pidfd), RESTART),
                        *(str(store.layout.home), str(vm.id)),
                    ],
                    log=folder.watch_log,
                    pass_fds=(pidfd,),
                    package="python3",
                )
        finally:
            os.close(pidfd)
    except BaseException:
        qemu.kill(state)
        qemu.bury(folder)
        raise


def wait_installed(store: Store, vm: Vm, *, timeout_s: float) -> None:
    """Return once a VM's installer is done.

    Raises:
        Conflict: it was interrupted: the VM has still to be installed.
        NotFound: the VM has been removed meanwhile.
        Timeout: it is not done in time; it goes on.
    """
    deadline = time.monotonic() + timeout_s
    folder = _folder(store, vm)
    while True:
        ended = not liveness.is_alive(folder.run)
        now = store.catalog.find_vm(vm.name)
        if now.spec.install is None:
            return
        if ended and not _goes_on(folder):
            raise Conflict(
                f"VM '{vm.name}' ended before its installer was done",
                hint=f"thinvirt start {vm.name} begins it anew",
            )
        if time.monotonic() >= deadline:
            raise Timeout(
                f"the installer of VM '{vm.name}' is not done within {timeout_s:g} s",
                hint="it goes on by itself: thinvirt console shows it",
            )
        time.sleep(_LOOK_S)


def _goes_on(folder: VmFolder) -> bool:
    """Tell whether a QEMU that has ended is seen to: its installer is done, or begins anew."""
    ending = ending_of(event_record.read(folder.event_record))
    return ending.installed or ending.again


def _folder(store: Store, vm: Vm) -> VmFolder:
    return VmFolder(store.layout.run_dir(vm.id), store.layout.log_dir(vm.id))
