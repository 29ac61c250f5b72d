"""The look at VMDK, VDI, VHD and VHDX: ours first, then the facts from a bounded qemu-img."""

import os
from pathlib import Path

from thinvirt.errors import CorruptImage, HostileImage
from thinvirt.image.formats import foreign
from thinvirt.image.formats.details import Details
from thinvirt.image.ops.qemu_img import image_facts


def screen_foreign(path: Path, fd: int, file_size: int, image_format: str) -> tuple[int, Details]:
    """Return virtual size and details of an open foreign image, or refuse it; see `screen`."""
    _LOOKS[image_format](fd, file_size)
    facts = image_facts(path, image_format)
    if "backing-filename" in facts:  # our look should have said so
        raise HostileImage(f"the image names the backing file '{facts['backing-filename']}'")
    return int(facts["virtual-size"]), {"converted_by": "qemu-img"}


def _look_vmdk(fd: int, _file_size: int) -> None:
    foreign.check_vmdk(os.pread(fd, foreign.VMDK_DESCRIPTOR_BYTES, 0))


def _look_vdi(fd: int, _file_size: int) -> None:
    foreign.check_vdi(os.pread(fd, foreign.VDI_HEADER_BYTES, 0))


def _look_vpc(fd: int, file_size: int) -> None:
    """Look at both copies of the footer: which one QEMU takes depends on the other."""
    footers = [os.pread(fd, 512, 0), os.pread(fd, 512, max(file_size - 512, 0))]
    for footer in footers:
        if footer.startswith(b"conectix"):
            foreign.check_vpc(footer)


def _look_vhdx(fd: int, _file_size: int) -> None:
    """Look through both copies of the region table: which one QEMU takes depends on checksums."""
    found = False
    for at in foreign.VHDX_REGION_TABLES:
        region = foreign.vhdx_metadata_region(os.pread(fd, foreign.VHDX_TABLE_BYTES, at))
        if region is None or region[0] >= 1 << 62:
            continue
        found = True
        start, _ = region
        offset, length = foreign.check_vhdx_metadata(os.pread(fd, foreign.VHDX_TABLE_BYTES, start))
        foreign.check_vhdx_parameters(os.pread(fd, min(length, 8), start + offset))
    if not found:
        raise CorruptImage("the VHDX has no metadata region", offset=foreign.VHDX_REGION_TABLES[0])


_LOOKS = {"vmdk": _look_vmdk, "vdi": _look_vdi, "vpc": _look_vpc, "vhdx": _look_vhdx}
