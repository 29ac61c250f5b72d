"""Just enough of VMDK, VDI, VHD and VHDX to tell whether an image would open other files. Pure."""

import re
from struct import Struct, unpack_from

from thinvirt.errors import CorruptImage, HostileImage, UnsupportedFeature

_TRUST = "if you trust it, convert it where it comes from, or: qemu-img convert -O qcow2 FILE NEW"

# VMDK: the sparse extent's header up to the descriptor's size, and the descriptor's text.
_VMDK_SPARSE = Struct("<4sIIQQQQ")
_VMDK_EXTENT = re.compile(
    rb"^\s*(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)", re.MULTILINE | re.IGNORECASE
)
VMDK_DESCRIPTOR_BYTES = 64 << 10  # from byte 512 on; QEMU reads 10 KiB
_VMDK_DESCRIPTOR_AT = 512

# VDI: image type and the two UUIDs of a chain.
_VDI_TYPE_AT, _VDI_LINK_AT, _VDI_PARENT_AT = 76, 424, 440
_VDI_DYNAMIC, _VDI_STATIC = 1, 2
VDI_HEADER_BYTES = 512

# VHD: the footer.
_VPC_TYPE_AT = 60
_VPC_FIXED, _VPC_DYNAMIC, _VPC_DIFFERENCING = 2, 3, 4

# VHDX: the region tables and, in the metadata region, the file parameters. GUIDs are stored with
# their first three parts little-endian.
VHDX_REGION_TABLES = (192 << 10, 256 << 10)
VHDX_TABLE_BYTES = 64 << 10
_VHDX_METADATA_REGION = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
_VHDX_FILE_PARAMETERS = bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b")
_VHDX_PARENT_LOCATOR = bytes.fromhex("2d5fd3a80bb34d45abf7d3d84834ab0c")
_VHDX_HAS_PARENT = 1 << 1
_VHDX_MAX_ENTRIES = 2047


def check_vmdk(head: bytes) -> None:
    """Refuse a VMDK that names extents or a parent.

    Args:
        head: its first `VMDK_DESCRIPTOR_BYTES`.

    Raises:
        HostileImage: it names other files.
        CorruptImage: it is cut short.
    """
    if not head.startswith((b"KDMV", b"COWD")):
        raise HostileImage("the VMDK is a text that names other files as its extents", hint=_TRUST)
    if head.startswith(b"KDMV"):
        if len(head) < _VMDK_SPARSE.size:
            raise CorruptImage("the VMDK ends within its header")
        capacity = _VMDK_SPARSE.unpack_from(head)[3]
        if capacity == 0:
            raise HostileImage("the VMDK has no data of its own but names extents", hint=_TRUST)
    descriptor = head[_VMDK_DESCRIPTOR_AT:]
    if b"parentfilenamehint" in descriptor.lower():
        raise HostileImage("the VMDK names a parent image, which QEMU would open", hint=_TRUST)
    if len(_VMDK_EXTENT.findall(descriptor)) > 1:
        raise HostileImage("the VMDK names several extents", hint=_TRUST)


def check_vdi(head: bytes) -> None:
    """Refuse a VDI that is a difference to another.

    Raises:
        HostileImage: it names a parent.
        CorruptImage: it is cut short.
        UnsupportedFeature: another kind than dynamic or static.
    """
    if len(head) < VDI_HEADER_BYTES:
        raise CorruptImage("the VDI ends within its header")
    if any(head[_VDI_LINK_AT : _VDI_LINK_AT + 16]) or any(head[_VDI_PARENT_AT:][:16]):
        raise HostileImage("the VDI is a difference to a parent image", hint=_TRUST)
    (kind,) = unpack_from("<I", head, _VDI_TYPE_AT)
    if kind not in {_VDI_DYNAMIC, _VDI_STATIC}:
        raise UnsupportedFeature(f"the VDI is of type {kind}; dynamic and static are taken")


def check_vpc(footer: bytes) -> None:
    """Refuse a VHD that is a difference to another.

    Args:
        footer: 512 bytes that begin with the cookie, from the start or the end of the file.

    Raises:
        HostileImage: it names a parent.
        CorruptImage: it is cut short.
        UnsupportedFeature: another kind than fixed or dynamic.
    """
    if len(footer) < 512:
        raise CorruptImage("the VHD ends within its footer")
    (kind,) = unpack_from(">I", footer, _VPC_TYPE_AT)
    if kind == _VPC_DIFFERENCING:
        raise HostileImage("the VHD is a difference to a parent image", hint=_TRUST)
    if kind not in {_VPC_FIXED, _VPC_DYNAMIC}:
        raise UnsupportedFeature(f"the VHD is of type {kind}; fixed and dynamic are taken")


def vhdx_metadata_region(table: bytes) -> tuple[int, int] | None:
    """Return (offset, length) of the metadata region, None if `table` does not tell."""
    if table[:4] != b"regi" or len(table) < 16:
        return None
    (count,) = unpack_from("<I", table, 8)
    for index in range(min(count, _VHDX_MAX_ENTRIES)):
        at = 16 + 32 * index
        if at + 32 > len(table):
            return None
        if table[at : at + 16] == _VHDX_METADATA_REGION:
            offset, length = unpack_from("<QI", table, at + 16)
            return offset, length
    return None


def check_vhdx_metadata(table: bytes) -> tuple[int, int]:
    """Refuse a parent locator; return (offset in the region, length) of the file parameters.

    Raises:
        HostileImage: it names a parent.
        CorruptImage: there is no metadata table, or no file parameters in it.
    """
    if table[:8] != b"metadata" or len(table) < 32:
        raise CorruptImage("the VHDX has no metadata table")
    (count,) = unpack_from("<H", table, 10)
    place = None
    for index in range(min(count, _VHDX_MAX_ENTRIES)):
        at = 32 + 32 * index
        if at + 32 > len(table):
            break
        item = table[at : at + 16]
        if item == _VHDX_PARENT_LOCATOR:
            raise HostileImage("the VHDX is a difference to a parent image", hint=_TRUST)
        if item == _VHDX_FILE_PARAMETERS:
            place = unpack_from("<II", table, at + 16)
    if place is None:
        raise CorruptImage("the VHDX has no file parameters")
    return place


def check_vhdx_parameters(raw: bytes) -> None:
    """Refuse the flag that says there is a parent.

    Raises:
        HostileImage: it is set.
        CorruptImage: the parameters are cut short.
    """
    if len(raw) < 8:
        raise CorruptImage("the VHDX ends within its file parameters")
    (flags,) = unpack_from("<I", raw, 4)
    if flags & _VHDX_HAS_PARENT:
        raise HostileImage("the VHDX is a difference to a parent image", hint=_TRUST)
