"""Whether a VM may be migrated live: this host's facts, for `thinvirt.vm.migration` to judge."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thinvirt.service.drives import disk_layers, disk_path
from thinvirt.service.launching import acceleration, run_state
from thinvirt.store import Store, Vm
from thinvirt.store.probe import file_system_type
from thinvirt.vm.migration import (
    CLUSTER_FILE_SYSTEMS,
    SHARED_FILE_SYSTEMS,
    DiskPlace,
    Storage,
    Verdict,
    judge,
)
from thinvirt.vm.spec import VmSpec
from thinvirt.vm.spec.defaults import with_defaults

HERE = "this-host"
_OTHERS_QEMU = (7, 2)  # of the other end, where nothing is known of it: the reference host's


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something beside the disks that stands against a migration, or is lost by it.

    Attributes:
        what: the key of the specification.
        stops: whether the migration cannot be; False: it can, and something is lost.
        reason: why, in words.
        way_out: what to do about it.
    """

    what: str
    stops: bool
    reason: str
    way_out: str


@dataclass(frozen=True, slots=True)
class MigrationCheck:
    """What would become of a migration; `safe` if nothing stands against it."""

    name: str
    to: str
    safe: bool
    disks: tuple[Verdict, ...]
    obstacles: tuple[Obstacle, ...]

    def to_facts(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return asdict(self)


def check(store: Store, vm: Vm, to: str) -> MigrationCheck:
    """Return whether a VM may be migrated, by libvirt's rules; nothing is moved.

    Args:
        store: the VM's.
        vm: which.
        to: the other end: `HERE` for another QEMU under this kernel, else any name of a host.

    Raises:
        NotFound: a disk is not there.
    """
    spec = with_defaults(vm.spec)
    same = to == HERE
    state = run_state(store, vm)
    qemu = _version(state.qemu_version) if state is not None else _OTHERS_QEMU
    places = [place for n in range(len(spec.disks)) for place in _places(store, vm, spec, n)]
    disks = tuple(judge(places, same_host=same, qemu=qemu))
    accel = state.accel if state is not None else acceleration().name
    obstacles = tuple(_obstacles(spec, accel=accel, same=same))
    if not same:
        obstacles += tuple(_files_left_behind(store, vm, spec))
    safe = all(each.safe for each in disks) and not any(each.stops for each in obstacles)
    return MigrationCheck(vm.name, to, safe, disks, obstacles)


def _version(text: str) -> tuple[int, int]:
    words = text.split(".")
    if len(words) < 2 or not (words[0].isdecimal() and words[1].isdecimal()):
        return _OTHERS_QEMU
    return int(words[0]), int(words[1])


def _places(store: Store, vm: Vm, spec: VmSpec, number: int) -> Iterator[DiskPlace]:
    disk = spec.disks[number]
    if disk.device == "cdrom" and not disk.source:
        yield DiskPlace(name=f"disks[{number}]", storage="empty")
        return
    path = disk_path(store, vm, disk, number)
    storage: Storage = "block" if path.is_block_device() else "file"
    yield DiskPlace(
        name=str(path),
        storage=storage,
        file_system=file_system_type(_there(path)) if storage == "file" else "",
        cache=disk.cache,
        read_only=disk.read_only,
        shareable=disk.shareable,
    )


def _files_left_behind(store: Store, vm: Vm, spec: VmSpec) -> Iterator[Obstacle]:
    """Yield the files beside the disks themselves that the other host would not find."""
    below = [
        ("disks", "the backing file", Path(layer.path))
        for layers in disk_layers(store, vm, spec)
        for layer in layers[1:]
    ]
    if spec.firmware == "efi":
        own = store.layout.own_files(vm.batch.id, vm.name)
        below.append(("firmware", "the UEFI variable store", own.variables))
    for key, what, path in below:
        system = file_system_type(_there(path))
        if system not in SHARED_FILE_SYSTEMS | CLUSTER_FILE_SYSTEMS:
            yield Obstacle(
                key,
                True,
                f"{what} {path} is on {system}, which is not known to be shared between hosts",
                "keep the store on storage that both hosts see, at the same path",
            )


def _there(path: Path) -> Path:
    return path if path.exists() else path.parent


def _obstacles(spec: VmSpec, *, accel: str, same: bool) -> Iterator[Obstacle]:
    if any(card.kind == "user" for card in spec.cards):
        yield Obstacle(
            "networks",
            False,
            "the user network lives in QEMU: open connections through it end, and the forward for "
            "SSH gets another port",
            "a bridge or libvirt network on both hosts",
        )
    if same:
        return
    cpu = spec.cpu or ("host" if accel == "kvm" else "max")
    if cpu == "host":
        yield Obstacle(
            "cpu",
            True,
            "the guest has this host's CPU: on another model it may execute what is not there",
            "cpu: a named model that both hosts have; or hosts of one model",
        )
    elif cpu == "max":
        yield Obstacle("cpu", True, "CPU model max differs from host to host", "cpu: a named model")
    if any(card.kind == "lan" for card in spec.cards):
        yield Obstacle(
            "networks",
            True,
            "a private LAN reaches the VMs of this store only",
            "a bridge that both hosts are on",
        )
    if spec.tpm is not None:
        yield Obstacle(
            "tpm",
            True,
            "the state of its TPM is in this store",
            "libvirt moves it: put both hosts' swtpm state on shared storage",
        )
