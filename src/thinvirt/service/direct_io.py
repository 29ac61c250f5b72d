"""Whether files can be opened past the host's page cache, as cache modes none and directsync do.

Some file systems refuse O_DIRECT (open(2)): older tmpfs, some FUSE ones, encrypting layers. QEMU
would fail with EINVAL and not say why.
"""

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from thinvirt.errors import Conflict
from thinvirt.vm.cache_modes import cache_flags
from thinvirt.vm.qemu import DiskLayer
from thinvirt.vm.spec import DiskSpec


def takes_direct(path: Path) -> bool:
    """Return whether a file can be opened with O_DIRECT; what else is wrong with it, others say."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        return error.errno != errno.EINVAL
    os.close(fd)
    return True


def require_direct(disks: Sequence[DiskSpec], chains: Iterable[Sequence[DiskLayer]]) -> None:
    """Return if every file of every disk can be opened as its cache mode wants it.

    Args:
        disks: the drives.
        chains: for each the files below it that are there, itself first.

    Raises:
        Conflict: one cannot; it and the mode are named.
    """
    for disk, layers in zip(disks, chains, strict=True):
        _, direct, _ = cache_flags(disk.cache)
        for layer in layers if direct else ():
            if not takes_direct(Path(layer.path)):
                raise Conflict(
                    f"cache mode {disk.cache} needs O_DIRECT, and the file system of "
                    f"'{layer.path}' does not have it",
                    hint="cache=writeback loses no more on a power cut than none does; "
                    "writethrough no more than directsync",
                )
