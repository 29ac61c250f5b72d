"""Look at an image file of unknown origin before anything else opens it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from thinvirt.errors import CorruptImage, ImageError, UnsupportedFeature
from thinvirt.image.block.hostfile import (
    allocated_bytes,
    naming,
    opened_for_reading,
    os_errors,
    read_exactly,
)
from thinvirt.image.formats.details import Details
from thinvirt.image.formats.probe import (
    ARCHIVES,
    COMPRESSED,
    HEAD_BYTES,
    TAIL_BYTES,
    probe_format,
)
from thinvirt.image.formats.qcow2.geometry import align_up
from thinvirt.units import SECTOR

QCOW2_MAGIC = b"QFI\xfb"
BOOT_SIGNATURE = b"\x55\xaa"  # ends the first sector of every partitioned or bootable PC disk
FOREIGN = frozenset({"vmdk", "vdi", "vpc", "vhdx"})  # what an installed qemu-img converts for us

_UNPACK = {"gzip": "gunzip", "xz": "unxz", "zstd": "unzstd", "bzip2": "bunzip2", "lz4": "unlz4"}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a screened image is.

    Attributes:
        path: the file.
        format: "raw", "qcow2", "vmdk", "vdi", "vpc" or "vhdx": what to tell QEMU explicitly.
        virtual_size: bytes of the guest's disk.
        file_size: bytes of the file.
        allocated_bytes: bytes it occupies on disk.
        details: what else is known, by format; JSON-ready.
    """

    path: Path
    format: str
    virtual_size: int
    file_size: int
    allocated_bytes: int
    details: Details = field(default_factory=dict)


def screen(path: Path, *, allow_backing: bool = False) -> ImageFacts:
    """Return what the image is, or refuse it with the reason.

    Nothing outside the file is opened, and neither time nor memory grows with what its header
    claims. The file may be changed after the look: screen the copy you own, then keep it read-only.

    Args:
        path: a regular file of any origin and name.
        allow_backing: accept a qcow2 that names a backing file (one of our own overlays); the name
            is then among the details, and is not followed.

    Raises:
        HostileImage: it names another file that QEMU would open, such as a backing file.
        CorruptImage: its structures cannot be; the offset tells where.
        UnsupportedFeature: it needs a key, an unknown feature, or is no disk image but an archive.
        ImageError: it cannot be read, or is no regular file.
        NotFound: it is not there.
    """
    with opened_for_reading(path) as fd, os_errors(path, "read"), naming(path):
        status = os.fstat(fd)
        size = status.st_size
        if size == 0:
            raise CorruptImage("the file is empty")
        head = read_exactly(fd, min(size, HEAD_BYTES), 0)
        tail = read_exactly(fd, min(size, TAIL_BYTES), max(size - TAIL_BYTES, 0))
        name = probe_format(head, file_size=size, tail=tail)
        virtual_size, details = _look(name, path, fd, size, allow_backing)
    image_format = "raw" if name == "iso" else name  # to QEMU a disc is bytes like any other
    return ImageFacts(path, image_format, virtual_size, size, allocated_bytes(status), details)


def _look(name: str, path: Path, fd: int, size: int, allow_backing: bool) -> tuple[int, Details]:
    """Return virtual size and details of an open file of format `name`."""
    if name == "raw":
        first = read_exactly(fd, min(size, SECTOR), 0)
        if first.startswith(QCOW2_MAGIC):  # QEMU takes it for raw; nobody means it so
            raise CorruptImage("a qcow2 of version 0, which there is not: its header is damaged")
        return align_up(size, SECTOR), {"boot_record": first.endswith(BOOT_SIGNATURE)}
    if name == "iso":
        return align_up(size, SECTOR), {"content": "iso9660"}
    if name == "qcow2":
        from thinvirt.image.ops.screen_qcow2 import screen_qcow2

        return screen_qcow2(fd, size, allow_backing=allow_backing)
    if name in FOREIGN:
        from thinvirt.image.ops.screen_foreign import screen_foreign

        return screen_foreign(path, fd, size, name)
    raise _refusal(name)


def _refusal(name: str) -> ImageError:
    """Return why a file of this format is no use."""
    if name in COMPRESSED:
        return UnsupportedFeature(
            f"the file is compressed with {name}", hint=f"decompress it first: {_UNPACK[name]} FILE"
        )
    if name in ARCHIVES:
        return UnsupportedFeature(
            f"the file is a {name} archive, not a disk image",
            hint="unpack it first, then take the disk image in it",
        )
    if name == "luks":
        return UnsupportedFeature(
            "the image is encrypted (LUKS) and would need its key",
            hint="decrypt it first, with qemu-img convert and the key",
        )
    return UnsupportedFeature(
        f"images of format {name} are not taken",
        hint=f"if you trust it: qemu-img convert -f {name} -O qcow2 FILE NEW.qcow2",
    )
