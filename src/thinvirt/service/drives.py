"""The drives of a VM of the store: which file stands behind each, and what below that."""

import stat
from pathlib import Path
from typing import Literal

from thinvirt.errors import Conflict, NotFound, UsageError
from thinvirt.store import Store, Vm
from thinvirt.vm.qemu import DiskLayer
from thinvirt.vm.spec import DiskSpec, VmSpec

Driver = Literal["file", "host_device"]


def disk_path(store: Store, vm: Vm, disk: DiskSpec, number: int) -> Path:
    """Return the file of a VM's drive: its own in the store, or the one that was named."""
    if disk.source:
        return Path(disk.source)
    if number == 0:
        return store.overlay(vm)
    return store.layout.own_files(vm.batch.id, vm.name).disk(number)


def disk_layers(store: Store, vm: Vm, spec: VmSpec) -> tuple[tuple[DiskLayer, ...], ...]:
    """Return the backing chain of every drive, the writable layer first; () for an empty one.

    Raises:
        NotFound: a file is not there.
        UsageError: a file is in a format that VMs are not given.
        ImageError: an image cannot be read.
    """
    drives: list[tuple[DiskLayer, ...]] = []
    for number, disk in enumerate(spec.disks):
        template = vm.template
        if number == 0 and disk.of_the_store and template is not None:
            base = DiskLayer(
                str(store.template_image(template)), "raw" if template.format == "raw" else "qcow2"
            )
            drives.append((DiskLayer(str(store.overlay(vm))), base))
        elif disk.device == "cdrom" and not disk.source:
            drives.append(())
        else:
            drives.append(chain(disk_path(store, vm, disk, number), disk))
    return tuple(drives)


def chain(path: Path, disk: DiskSpec) -> tuple[DiskLayer, ...]:
    """Return a file's backing chain, itself first.

    Args:
        path: the file or block device.
        disk: what it is attached as; its format, where given, is not looked for.
    """
    driver = host_driver(path)
    if disk.device == "cdrom" or disk.format == "raw":
        return (DiskLayer(str(path), "raw", driver),)
    from thinvirt.image import open_image

    with open_image(path, format=disk.format, force_share=True) as image:
        layers = image.backing_chain
    found = []
    for layer in layers:
        if layer.format not in ("raw", "qcow2"):
            raise UsageError(
                f"'{layer.filename}' is a {layer.format} image; VMs run from raw and qcow2",
                hint=f"thinvirt image convert -O qcow2 {layer.filename} NEW.qcow2",
            )
        found.append(
            DiskLayer(
                str(Path(layer.filename).absolute()),
                "raw" if layer.format == "raw" else "qcow2",
                host_driver(Path(layer.filename)),
            )
        )
    return tuple(found)


def require_io(spec: VmSpec) -> None:
    """Return if this host gives QEMU what the disks' I/O modes need.

    Raises:
        Conflict: it has no io_uring, or keeps it from this user.
    """
    if any(disk.io == "io_uring" for disk in spec.disks):
        from thinvirt.run.io_uring import io_uring_trouble

        reason = io_uring_trouble()
        if reason:
            raise Conflict(
                f"io=io_uring is not possible on this host: {reason}",
                hint="io=threads, or io=native with cache=none",
            )


def host_driver(path: Path) -> Driver:
    """Return how QEMU opens a file of the host.

    Raises:
        NotFound: it is not there.
        UsageError: it is neither a file nor a block device.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise NotFound(f"disk '{path}' cannot be used: {error.strerror}") from error
    if stat.S_ISBLK(mode):
        return "host_device"
    if not stat.S_ISREG(mode):
        raise UsageError(f"'{path}' is neither a file nor a block device")
    return "file"
