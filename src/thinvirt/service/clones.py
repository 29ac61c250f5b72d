"""Linked clones: one VM or a batch of them, in one transaction."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thinvirt.errors import NotFound
from thinvirt.image.formats.qcow2.limits import DEFAULT_CLUSTER_SIZE
from thinvirt.progress import Progress, Silent
from thinvirt.service.clone_spec import planned_spec, refuse_shared
from thinvirt.service.firmware import firmware_build, make_variables
from thinvirt.service.new_disks import NewDisk, found_disk, make_disk, new_disks, refuse_used
from thinvirt.service.templates import check_base
from thinvirt.store import Store, Template, Vm
from thinvirt.store.batches import MakeFiles, create_batch, disk_size
from thinvirt.vm.names import batch_names
from thinvirt.vm.spec import DiskSpec, VmSpec
from thinvirt.vm.spec.validate import checked

_SILENT = Silent()


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneRequest:
    """What is asked for.

    Attributes:
        template: ``NAME``, ``NAME@N`` or a digest's beginning.
        name: of the one VM, or the beginning of the names of several.
        count: how many; None: one, named exactly so.
        size: bytes of their disks; None: the template's.
        extended_l2: give the overlays subclusters; False for tools that cannot read them.
        spec: what else is asked of the VMs; its first disk describes the overlay, the others are
            files that are there, or are made for each VM.
        os: the guest's OS, as osinfo-db calls it; "": as the template knows.
        firmware_asked: whether `spec.firmware` was asked for, rather than left to the template.
    """

    template: str
    name: str
    count: int | None = None
    size: int | None = None
    extended_l2: bool = True
    spec: VmSpec
    os: str = ""
    firmware_asked: bool = False


@dataclass(frozen=True, slots=True)
class ClonePlan:
    """A request that has been found possible, as far as can be told without doing it.

    Attributes:
        spec: with everything decided that depends on the template, its OS, or files of the host.
        new_disks: what is made for each VM beside its overlay.
        remarks: what people should know before.
    """

    template: Template
    names: list[str]
    virtual_size: int
    extended_l2: bool
    spec: VmSpec
    new_disks: tuple[NewDisk, ...] = ()
    remarks: tuple[str, ...] = ()


def plan(store: Store, request: CloneRequest) -> ClonePlan:
    """Return what `clone` would make.

    Raises:
        UsageError: names, count or size cannot be.
        InvalidSpec: the specification cannot be met; all problems are named.
        NotFound: there is no such template or OS, or a file that was named is not there.
        Conflict: a disk is another VM's, or would be several VMs'.
        BaseChanged: the template's file is not what it was.
        ProgramMissing: there is no UEFI firmware.
    """
    names = batch_names(request.name, request.count)
    template = store.catalog.find_template(request.template)
    check_base(store, template)
    size = disk_size(template, request.size)
    planned = planned_spec(
        template, request.spec, os=request.os, firmware_asked=request.firmware_asked
    )
    spec = planned.spec
    further = tuple(_further(disk) for disk in spec.disks[1:])
    refuse_shared(further, len(names))
    refuse_used(store, further, besides=names)
    spec = checked(replace(spec, disks=(spec.disks[0], *further)))
    if spec.firmware == "efi":
        firmware_build(spec)
    new = tuple(disk for disk in new_disks(spec.disks) if disk.number)
    return ClonePlan(template, names, size, request.extended_l2, spec, new, planned.remarks)


def _further(disk: DiskSpec) -> DiskSpec:
    """Return a further drive of a clone with what its file is found to be.

    Raises:
        NotFound: its file is not there.
    """
    if disk.source and not Path(disk.source).exists():
        raise NotFound(
            f"disk '{disk.source}' is not there",
            hint="size=GIB without a path gives each VM a new disk in the store",
        )
    return found_disk(disk)


def make_further(store: Store, planned: ClonePlan) -> MakeFiles | None:
    """Return what makes the files that each VM has beside its overlay; None: it has none."""
    spec = planned.spec
    if not planned.new_disks and spec.firmware != "efi":
        return None

    def make(folder: Path, name: str) -> None:
        own = store.layout.own_files(int(folder.name), name)
        for disk in planned.new_disks:
            make_disk(disk, own.disk(disk.number))
        if spec.firmware == "efi":
            make_variables(spec, own.variables)

    return make


def clone(
    store: Store,
    request: CloneRequest,
    *,
    owner: str | None = None,
    progress: Progress = _SILENT,
    say: Callable[[str], None] | None = None,
) -> list[Vm]:
    """Make the VMs, all of them or none, and return them in the order of their numbers.

    Args:
        store: where.
        request: what.
        owner: the maker with whom disposable VMs go; None: they stay until they are removed.
        progress: told the number of VMs.
        say: told what people should know, before anything is made.

    Raises:
        UsageError, NotFound, BaseChanged, ProgramMissing: as `plan`.
        Conflict: a name is taken.
        NoSpace: the file system is full; nothing is left behind.
    """
    store.require_writable()
    planned = plan(store, request)
    if say is not None:
        for remark in planned.remarks:
            say(remark)
    batch = create_batch(
        store,
        planned.template,
        planned.names,
        spec_json=planned.spec.to_json(),
        virtual_size=planned.virtual_size,
        further=make_further(store, planned),
        extended_l2=planned.extended_l2,
        owner=owner,
        progress=progress,
    )
    return store.catalog.vms_of_batch(batch)


def qemu_img_commands(store: Store, planned: ClonePlan) -> Iterator[str]:
    """Yield the qemu-img commands that make overlays like those of a plan, in the current folder.

    They are quoted for a shell. (qemu-img's overlays are the same to a guest; they take 196 KiB.)
    """
    backing = str(store.template_image(planned.template))
    for name in planned.names:
        yield qemu_img_create(
            f"{name}.qcow2",
            backing=backing,
            backing_format=planned.template.format,
            virtual_size=planned.virtual_size,
            extended_l2=planned.extended_l2,
        )


def qemu_img_twin(store: Store, vm: Vm) -> str:
    """Return the qemu-img command that makes an overlay like the VM's, where the VM's is."""
    template = vm.require_template()
    return qemu_img_create(
        str(store.overlay(vm)),
        backing=store.layout.backing_name(template.digest, template.format),
        backing_format=template.format,
        virtual_size=vm.batch.virtual_size,
        extended_l2=vm.batch.extended_l2,
    )


def qemu_img_create(
    path: str, *, backing: str, backing_format: str, virtual_size: int, extended_l2: bool
) -> str:
    """Return one ``qemu-img create`` of an overlay, quoted for a shell."""
    options = f"cluster_size={DEFAULT_CLUSTER_SIZE}"
    if extended_l2:
        options += ",extended_l2=on"
    words: Sequence[str] = (
        *("qemu-img", "create", "-q", "-f", "qcow2", "-o", options),
        *("-b", backing, "-F", backing_format, path, str(virtual_size)),
    )
    return shlex.join(words)
