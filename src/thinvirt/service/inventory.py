"""What VMs there are and how they are; and their removal."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from thinvirt.errors import Conflict, ImageError, NotFound
from thinvirt.progress import Progress, Silent
from thinvirt.run import liveness
from thinvirt.run.folder import VmFolder
from thinvirt.run.liveness import RunState
from thinvirt.store import Store, Template, Vm

_SILENT = Silent()
_BLOCK = 512  # the unit of st_blocks, whatever the file system
RUNNING, STARTING, STOPPED = "running", "starting", "stopped"
HALTED = "halted"  # by QEMU, until there is space for what it has to write


@dataclass(frozen=True, slots=True)
class Selection:
    """Which VMs a listing shows.

    Attributes:
        patterns: names or shell-style patterns; none: all.
        template: only clones of this template (any reference); None: of all.
        running: only those that run.
        limit: at most so many; None: all.
    """

    patterns: Sequence[str] = ()
    template: str | None = None
    running: bool = False
    limit: int | None = None


def list_vms(store: Store, chosen: Selection) -> Iterator[dict[str, Any]]:
    """Yield a few facts about each VM, by name; the first come at once, however many there are.

    Raises:
        NotFound: there is no such template, or a pattern matches nothing.
    """
    template = None if chosen.template is None else store.catalog.find_template(chosen.template)
    for pattern in chosen.patterns:
        if next(store.catalog.iter_vms([pattern], limit=1), None) is None:
            store.catalog.find_vms([pattern])  # raises, with what is near
    alive = running_vms(store)
    vms = store.catalog.iter_vms(
        chosen.patterns,
        template=template,
        ids=sorted(alive) if chosen.running else None,
        limit=chosen.limit,
    )
    batch_id, folder = 0, ""
    for vm in vms:
        state = alive.get(vm.id)
        if vm.batch.id != batch_id:  # a path object per row would be most of a listing's cost
            batch_id, folder = vm.batch.id, str(store.layout.batch(vm.batch.id))
        yield {
            "name": vm.name,
            "id": vm.id,
            "state": state_word(vm, alive),
            "template": vm.origin,
            "ssh_port": state.ssh_port if state else None,
            "vnc": state.vnc if state else "",
            "spice": state.spice if state else "",
            "virtual_size": vm.batch.virtual_size,
            "disk_bytes": _occupied(
                f"{folder}/{store.layout.overlay_name(vm.name)}"
                if vm.template is not None
                else first_disk(store, vm)
            ),
        }


def count_vms(store: Store, chosen: Selection) -> int:
    """Return how many VMs a listing without limit would show."""
    if chosen.running:
        return sum(1 for _ in list_vms(store, chosen))
    template = None if chosen.template is None else store.catalog.find_template(chosen.template)
    return store.catalog.count_vms(chosen.patterns, template=template)


def vm_facts(store: Store, vm: Vm) -> dict[str, Any]:
    """Return all there is to say about one VM, JSON-ready."""
    identity = store.identity(vm)
    alive = running_vms(store, only=vm.id)
    state = alive.get(vm.id)
    facts: dict[str, Any] = {
        "name": vm.name,
        "id": vm.id,
        "state": state_word(vm, alive),
        "template": vm.origin,
        "uuid": identity.uuid,
        "mac": identity.mac,
        "lan_address": identity.lan_address,
        "disk": first_disk(store, vm),
        "virtual_size": vm.batch.virtual_size,
        "disk_bytes": occupied(store, vm),
        "batch": vm.batch.id,
        "created": vm.batch.created,
        "console_log": str(store.layout.log_dir(vm.id) / "console.log"),
        "spec": _shown(vm.spec.to_facts()),
    }
    if vm.template is not None:
        facts |= {
            "template_digest": f"sha256:{vm.template.digest}",
            "backing": str(store.template_image(vm.template)),
            "backing_format": vm.template.format,
            "backing_state": backing_state(store, vm, vm.template),
            "extended_l2": vm.batch.extended_l2,
        }
    if state is not None:
        from thinvirt.run.qemu import is_halted  # loads QMP and subprocess: listings do without

        if is_halted(VmFolder(store.layout.run_dir(vm.id), store.layout.log_dir(vm.id))):
            facts["state"] = HALTED
            facts["trouble"] = (
                f"there is no space left for its disk; free some, then: thinvirt start {vm.name}"
            )
        facts |= {
            "pid": state.pid,
            "started_at": state.started_at,
            "accel": state.accel,
            "ssh_port": state.ssh_port,
            "vnc": state.vnc,
            "spice": state.spice,
            "qemu_version": state.qemu_version,
        }
    return facts


def _shown(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a specification without the password of the screen: lists end up in logs."""
    graphics = spec.get("graphics", {})
    return spec | {"graphics": graphics | {"password": "***"}} if "password" in graphics else spec


def backing_state(store: Store, vm: Vm, template: Template) -> str:
    """Return whether a VM's disk stands on what it was made for: "ok", or what is the matter.

    This looks at names and `stat` alone; ``template verify`` reads everything.
    """
    from thinvirt.image.ops.screen import screen
    from thinvirt.store import Fingerprint

    try:
        details = screen(store.overlay(vm), allow_backing=True).details
    except (ImageError, NotFound) as error:
        return f"the overlay cannot be used: {error.message}"
    expected = store.layout.backing_name(template.digest, template.format)
    if details.get("backing_file") != expected:
        return f"the overlay names another backing file: {details.get('backing_file', 'none')}"
    try:
        seen = Fingerprint.of(store.template_image(template))
    except OSError as error:
        return f"the template's image cannot be used: {error.strerror}"
    if seen.size != template.file_size:
        return "the template's image has been changed behind our back"
    if seen != template.fingerprint:
        return "the template's image is to be verified: moved, restored or touched"
    return "ok"


def worth_acting_on(
    store: Store, patterns: Sequence[str], *, running: bool
) -> tuple[list[Vm], list[Vm]]:
    """Return the VMs that patterns name: those to act on, and those to pass over.

    Whoever types ``stop 'web-*'`` means those that run, and ``start 'web-*'`` the others. A VM
    that is named in full is acted on whatever its state, so that a mistake is told.

    Args:
        store: theirs.
        patterns: names, or shell-style patterns.
        running: whether the action is for VMs that run.

    Raises:
        NotFound: a pattern matches nothing.
    """
    vms = store.catalog.find_vms(patterns)
    alive = running_vms(store)
    named = set(patterns)
    act = [vm for vm in vms if vm.name in named or (vm.id in alive) == running]
    chosen = {vm.id for vm in act}
    return act, [vm for vm in vms if vm.id not in chosen]


def running_vms(store: Store, *, only: int | None = None) -> dict[int, RunState | None]:
    """Return the VMs whose QEMU lives, by number; the facts are None while one is starting."""
    if only is not None:
        numbers = [only]
    else:
        try:
            with os.scandir(store.layout.run) as entries:
                numbers = [int(entry.name) for entry in entries if entry.name.isdecimal()]
        except FileNotFoundError:
            return {}
    alive = {}
    for number in numbers:
        folder = store.layout.run_dir(number)
        try:
            if liveness.is_alive(folder):
                alive[number] = liveness.read_state(folder)
        except OSError:
            # Somebody else's store, or a read-only one: nothing of ours can run there.
            continue
    return alive


def state_word(vm: Vm, alive: dict[int, RunState | None]) -> str:
    """Return the state of a VM as one word."""
    if vm.id not in alive:
        return STOPPED
    return STARTING if alive[vm.id] is None else RUNNING


def first_disk(store: Store, vm: Vm) -> str:
    """Return the file of a VM's first disk, "" if it has none."""
    if vm.template is not None:
        return str(store.overlay(vm))
    from thinvirt.service.drives import disk_path

    numbered = [(n, disk) for n, disk in enumerate(vm.spec.disks) if disk.device == "disk"]
    return str(disk_path(store, vm, numbered[0][1], numbered[0][0])) if numbered else ""


def occupied(store: Store, vm: Vm) -> int | None:
    """Return the bytes a VM's first disk occupies; None if it is not there."""
    return _occupied(first_disk(store, vm))


def _occupied(path: str) -> int | None:
    try:
        return os.stat(path).st_blocks * _BLOCK  # noqa: PTH116 (see `list_vms`)
    except OSError:
        return None


def remove_vms(
    store: Store, patterns: Sequence[str], *, force: bool = False, progress: Progress = _SILENT
) -> list[str]:
    """Remove VMs with their disks, all or none, and return their names.

    Args:
        store: theirs.
        patterns: names or shell-style patterns.
        force: cut the power of those that run first.
        progress: told the number of VMs.

    Raises:
        NotFound: a pattern matches nothing.
        Conflict: one runs, and `force` is not set.
        Busy: another command is at one of them.
    """
    from thinvirt.store.removal import remove_vms as remove_from_store

    store.require_writable()
    vms = store.catalog.find_vms(patterns)
    alive = running_vms(store)
    running = [vm for vm in vms if vm.id in alive]
    if running and force:
        from thinvirt.service.power import stop

        progress.step("cutting power", len(running), "VMs")
        # Their disks go anyway, so QEMU need not close them in good order.
        for result in stop(
            store, running, force="kill", on_result=lambda _result: progress.advance(1)
        ):
            if result.error is not None:
                raise result.error
    remove_from_store(
        store, vms, refuse_running=lambda them: _refuse_running(store, them), progress=progress
    )
    return [vm.name for vm in vms]


def _refuse_running(store: Store, vms: Sequence[Vm]) -> None:
    from thinvirt.store.batches import name_some

    alive = running_vms(store)
    names = [vm.name for vm in vms if vm.id in alive]
    if names:
        are = "VM is running" if len(names) == 1 else f"{len(names)} VMs are running"
        raise Conflict(
            f"{are}: {name_some(names)}; nothing was removed",
            hint="stop them first (thinvirt stop), or cut their power: --force",
        )
