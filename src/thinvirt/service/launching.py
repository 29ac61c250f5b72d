"""From a VM of the store to a running QEMU: every value the driver needs, resolved."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from thinvirt.errors import Conflict, ProgramMissing
from thinvirt.run import liveness, qemu
from thinvirt.run.accel import Acceleration
from thinvirt.run.bridge import bridge_of_network
from thinvirt.run.liveness import RunState
from thinvirt.run.qemu import LaunchRequest, Running
from thinvirt.service.direct_io import require_direct
from thinvirt.service.drives import disk_layers, host_driver, require_io
from thinvirt.service.firmware import firmware_files
from thinvirt.service.launch_facts import (
    acceleration,
    folder_of,
    mac_addresses,
    memory_mib,
    qemu_program,
    with_own_kernel,
)
from thinvirt.service.second_phase import settle, watch
from thinvirt.service.templates import check_base
from thinvirt.store import Store, Template, Vm
from thinvirt.store.trouble import explained
from thinvirt.units import MIB, format_size
from thinvirt.vm.qemu import DiskLayer
from thinvirt.vm.screen import screen_remarks
from thinvirt.vm.seed import SeedInterface, seed_files
from thinvirt.vm.spec import NetworkSpec, VmSpec
from thinvirt.vm.spec.validate import checked

__all__ = ["acceleration", "folder_of", "mac_addresses", "memory_mib", "qemu_program"]

Say = Callable[[str], None]


def store_key(store: Store) -> Path:
    """Return the store's private SSH key; it is made at first need.

    Raises:
        ProgramMissing: ssh-keygen is not installed.
    """
    from thinvirt.run.ssh import ensure_key

    with explained(store.layout.home):
        return ensure_key(store.layout.ssh)


def ssh_keys(store: Store, spec: VmSpec, say: Say | None = None) -> list[str]:
    """Return the public keys a guest is given: the store's own, and those of its specification."""
    from thinvirt.run.ssh import public_key

    try:
        own = [public_key(store_key(store))]
    except ProgramMissing as error:
        if say is not None:
            say(f"{error}: the guest gets no key of this store ({error.hint})")
        own = []
    given = spec.seed.ssh_keys if spec.seed is not None else ()
    return list(dict.fromkeys([*own, *given]))


def seed_of(store: Store, vm: Vm, say: Say | None = None) -> Mapping[str, str]:
    """Return the files of a VM's seed by name; none if it is given no seed."""
    spec = vm.spec
    if spec.seed is None:
        return {}
    identity = store.identity(vm)
    interfaces = [
        SeedInterface(mac, identity.lan_address if card.kind == "lan" else None)
        for card, mac in zip(spec.cards, mac_addresses(store, vm, spec), strict=True)
    ]
    return seed_files(
        instance_id=identity.uuid,
        hostname=vm.name,
        ssh_keys=ssh_keys(store, spec, say),
        interfaces=interfaces,
        user_data=spec.seed.user_data,
        meta_data=spec.seed.meta_data,
        own_network=spec.seed.network_config,
    )


def install_media(spec: VmSpec) -> DiskLayer | None:
    """Return the installer's disc of a VM that has still to be installed; None for none.

    Raises:
        NotFound: it is not there.
    """
    if spec.install is None or not spec.install.media:
        return None
    return DiskLayer(spec.install.media, "raw", host_driver(Path(spec.install.media)))


def launch_request(
    store: Store,
    vm: Vm,
    *,
    accel: Acceleration,
    die_with_parent: bool = False,
    paused: bool = False,
    say: Say | None = None,
) -> LaunchRequest:
    """Return everything the driver needs to start a VM.

    Args:
        store: the VM's.
        vm: which.
        accel: what executes the guest's instructions.
        die_with_parent: see `thinvirt.run.process.spawn`.
        paused: do not let the guest run yet.
        say: told of what is less than perfect.

    Raises:
        InvalidSpec: its specification cannot be met.
        NotFound: a file, or a libvirt network, is not there.
        Conflict: this host has not what it asks for.
    """
    spec = with_own_kernel(store, vm, checked(vm.spec))
    own = store.layout.own_files(vm.batch.id, vm.name)
    require_io(spec)
    disks = disk_layers(store, vm, spec)
    require_direct(spec.disks, disks)
    return LaunchRequest(
        name=vm.name,
        uuid=store.identity(vm).uuid,
        spec=spec,
        memory_mib=memory_mib(spec, vm.template),
        disks=disks,
        media=install_media(spec),
        firmware=firmware_files(spec, own.variables),
        macs=mac_addresses(store, vm, spec),
        folder=folder_of(store, vm),
        accel=accel,
        seed=seed_of(store, vm, say),
        lans=tuple(store.layout.network(n.name) for n in spec.cards if n.kind == "lan"),
        bridges=tuple(_bridge(card) for card in spec.cards if card.kind in ("bridge", "network")),
        tpm_state=own.tpm_state if spec.tpm is not None else None,
        program=qemu_program(),
        die_with_parent=die_with_parent,
        paused=paused,
    )


def _bridge(card: NetworkSpec) -> str:
    return card.name if card.kind == "bridge" else bridge_of_network(card.name)


def launch_vm(
    store: Store,
    vm: Vm,
    *,
    accel: Acceleration,
    die_with_parent: bool = False,
    say: Say | None = None,
) -> Running:
    """Start one VM and return once QEMU runs its guest; or leave everything as it was.

    Args:
        store: the VM's.
        vm: which.
        accel: what executes the guest's instructions.
        die_with_parent: see `thinvirt.run.process.spawn`.
        say: told of what is less than perfect.

    Raises:
        Busy: another command is at this VM; it is named.
        Conflict: the VM runs already, or a port that was asked for is taken.
        BaseChanged: the template's file is not what it was.
        QemuFailed: QEMU refused to start; its own words are quoted.
    """
    with store.lock_vm(vm, "start"):
        return launch_locked(store, vm, accel=accel, die_with_parent=die_with_parent, say=say)


def launch_locked(
    store: Store,
    vm: Vm,
    *,
    accel: Acceleration,
    die_with_parent: bool = False,
    say: Say | None = None,
) -> Running:
    """Start one VM as `launch_vm` does, for a caller that holds its lock.

    A VM that is to be installed comes back by itself when its installer restarts it.
    """
    with explained(store.layout.home):
        run_dir = store.layout.run_dir(vm.id)
        if liveness.read_state(run_dir) is not None:
            raise Conflict(f"VM '{vm.name}' is running already")
        vm, _ = settle(store, vm)
        if vm.template is not None:
            check_base(store, vm.template)
        request = launch_request(store, vm, accel=accel, die_with_parent=die_with_parent, say=say)
        if say is not None:
            remarks = memory_remarks(request.memory_mib, vm.template)
            screen = request.spec.graphics  # with a password it was told when the VM was made
            for remark in (*remarks, *(() if screen.password else screen_remarks(screen))):
                say(f"{vm.name}: {remark}")
        running = qemu.launch(request)
        if request.spec.install is not None:
            watch(store, vm, running)
        return running


def memory_remarks(given_mib: int, template: Template | None) -> Iterator[str]:
    """Yield what is doubtful about the memory a VM gets: less than it needs, or than there is."""
    needed = template.facts.get("min_memory_mib") if template is not None else None
    if template is not None and isinstance(needed, int) and given_mib < needed:
        yield (
            f"{format_size(given_mib * MIB)} of memory is less than the "
            f"{format_size(needed * MIB)} that {template.ref} needs: it may not reach its login"
        )
    with open("/proc/meminfo") as file:
        facts = dict(line.split(":", 1) for line in file)
    available = int(facts["MemAvailable"].split()[0]) << 10
    if given_mib * MIB > available:
        yield (
            f"it may use {format_size(given_mib * MIB)} of memory, "
            f"and {format_size(available)} are free on this host"
        )


def run_state(store: Store, vm: Vm) -> RunState | None:
    """Return the facts of a VM's QEMU; None if it does not run, or is only being started."""
    return liveness.read_state(store.layout.run_dir(vm.id))


def require_running(store: Store, vm: Vm) -> RunState:
    """Return the facts of a VM's QEMU.

    Raises:
        Conflict: the VM does not run.
    """
    state = run_state(store, vm)
    if state is None:
        raise Conflict(f"VM '{vm.name}' is not running", hint=f"thinvirt start {vm.name}")
    return state


def running_ids(store: Store) -> set[int]:
    """Return the ids of the VMs that run; the others, however many, cost nothing."""
    folder = store.layout.run
    entries = list(folder.iterdir()) if folder.is_dir() else []
    return {
        int(entry.name) for entry in entries if entry.name.isdigit() and liveness.is_alive(entry)
    }
