"""Linked clones: one VM or a batch of them, in one transaction."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from thinvirt.image.formats.qcow2.limits import DEFAULT_CLUSTER_SIZE
from thinvirt.progress import Progress, Silent
from thinvirt.service.templates import check_base
from thinvirt.store import Store, Template, Vm
from thinvirt.store.batches import create_batch, disk_size
from thinvirt.vm.names import batch_names
from thinvirt.vm.spec import VmSpec

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
        spec: what else is asked of the VMs.
    """

    template: str
    name: str
    count: int | None = None
    size: int | None = None
    extended_l2: bool = True
    spec: VmSpec


@dataclass(frozen=True, slots=True)
class ClonePlan:
    """A request that has been found possible, as far as can be told without doing it."""

    template: Template
    names: list[str]
    virtual_size: int
    extended_l2: bool
    spec: VmSpec


def plan(store: Store, request: CloneRequest) -> ClonePlan:
    """Return what `clone` would make.

    Raises:
        UsageError: names, count or size cannot be.
        NotFound: there is no such template.
        BaseChanged: its file is not what it was.
    """
    names = batch_names(request.name, request.count)
    template = store.catalog.find_template(request.template)
    check_base(store, template)
    size = disk_size(template, request.size)
    return ClonePlan(template, names, size, request.extended_l2, request.spec)


def clone(
    store: Store,
    request: CloneRequest,
    *,
    owner: str | None = None,
    progress: Progress = _SILENT,
) -> list[Vm]:
    """Make the VMs, all of them or none, and return them in the order of their numbers.

    Args:
        store: where.
        request: what.
        owner: the maker with whom disposable VMs go; None: they stay until they are removed.
        progress: told the number of VMs.

    Raises:
        UsageError, NotFound, BaseChanged: as `plan`.
        Conflict: a name is taken.
        NoSpace: the file system is full; nothing is left behind.
    """
    store.require_writable()
    planned = plan(store, request)
    batch = create_batch(
        store,
        planned.template,
        planned.names,
        spec_json=planned.spec.to_json(),
        virtual_size=planned.virtual_size,
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
