"""Which drivers there are. Their modules are imported when first needed."""

from __future__ import annotations

import os
import stat

from thinvirt.image.block.errors import BlockError, ForeignDriver
from thinvirt.image.block.names import has_protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.base import BaseNode

_BLOCK = "thinvirt.image.block."

# driver → module and class
_DRIVERS: dict[str, tuple[str, str]] = {
    "file": (_BLOCK + "file", "FileNode"),
    "host_device": (_BLOCK + "host_device", "HostDeviceNode"),
    "raw": (_BLOCK + "raw", "RawNode"),
    "qcow2": (_BLOCK + "qcow2", "Qcow2Node"),
    "luks": (_BLOCK + "luks", "LuksNode"),
    "null-co": (_BLOCK + "null", "NullCoNode"),
    "null-aio": (_BLOCK + "null", "NullAioNode"),
    "nbd": (_BLOCK + "nbd", "NbdNode"),
    "blkdebug": (_BLOCK + "blkdebug", "BlkdebugNode"),
    "blkverify": (_BLOCK + "blkverify", "BlkverifyNode"),
    "throttle": (_BLOCK + "throttle", "ThrottleNode"),
    "copy-on-read": (_BLOCK + "copy_on_read", "CopyOnReadNode"),
    "quorum": (_BLOCK + "quorum", "QuorumNode"),
}

# protocol prefix of a file name → driver
_PROTOCOLS = {
    "file": "file",
    "host_device": "host_device",
    "null-co": "null-co",
    "null-aio": "null-aio",
    "nbd": "nbd",
    "nbd+tcp": "nbd",
    "nbd+unix": "nbd",
    "blkdebug": "blkdebug",
    "blkverify": "blkverify",
}

# What QEMU has besides; an installed qemu-img is asked to do it.
FOREIGN_FORMATS = frozenset(
    {"bochs", "cloop", "dmg", "parallels", "qcow", "qed", "vdi", "vhdx", "vmdk", "vpc", "vvfat"}
)
FOREIGN_READ_ONLY = frozenset({"bochs", "cloop", "dmg", "vvfat"})  # nobody can create those
FOREIGN_PROTOCOLS = frozenset(
    {"ftp", "ftps", "http", "https", "iscsi", "nfs", "nvme", "rbd", "ssh", "vvfat", "fat"}
    | {"gluster", "gluster+tcp", "gluster+unix", "gluster+rdma", "iser", "sftp"}
    | {"host_cdrom", "blklogwrites", "blkreplay", "compress", "copy-before-write"}
    | {"preallocate", "snapshot-access", "replication"}
)

PROBE_BYTES = 512  # QEMU guesses from the first sector alone
_LUKS_VERSION = b"\0\1"  # there is no driver for LUKS2


def register(driver: str, module: str, class_name: str, *, protocols: tuple[str, ...] = ()) -> None:
    """Add a driver.

    Args:
        driver: its name in options.
        module: where its class is; imported when first needed.
        class_name: of the subclass of `BaseNode`.
        protocols: prefixes of file names that mean it.
    """
    _DRIVERS[driver] = (module, class_name)
    _PROTOCOLS.update(dict.fromkeys(protocols, driver))


def driver_names() -> list[str]:
    """Return all drivers, sorted."""
    return sorted(_DRIVERS)


def find_driver(name: str) -> type[BaseNode] | None:
    """Return the driver of that name, or None if nobody has such a one.

    Raises:
        ForeignDriver: QEMU has it.
    """
    entry = _DRIVERS.get(name)
    if entry is None:
        if name in FOREIGN_FORMATS or name in FOREIGN_PROTOCOLS:
            raise ForeignDriver(name)
        return None
    module, class_name = entry
    # importlib.import_module does the same, and takes longer to be imported itself.
    loaded = __import__(module, fromlist=[class_name])
    found: type[BaseNode] = getattr(loaded, class_name)
    return found


def find_protocol(filename: str, *, allow_prefix: bool = True) -> type[BaseNode]:
    """Return the protocol driver that a file name means.

    Raises:
        BlockError: the prefix is no known protocol.
        ForeignDriver: QEMU knows it.
    """
    if _is_device(filename):
        return _existing("host_device")
    if not allow_prefix or not has_protocol(filename):
        return _existing("file")
    prefix = filename.split(":", 1)[0]
    if prefix in _PROTOCOLS:
        return _existing(_PROTOCOLS[prefix])
    if prefix in FOREIGN_PROTOCOLS:
        raise ForeignDriver(prefix)
    raise BlockError(f"Unknown protocol '{prefix}'")


def _existing(name: str) -> type[BaseNode]:
    driver = find_driver(name)
    assert driver is not None
    return driver


def _is_device(filename: str) -> bool:
    try:
        mode = os.stat(filename).st_mode  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return stat.S_ISBLK(mode) or stat.S_ISCHR(mode)


def guess_format(head: bytes, filename: str | None, *, size: int) -> str:
    """Return the driver for an image by its first `PROBE_BYTES`; "raw" if nothing else fits."""
    from thinvirt.image.formats.probe import probe_format

    guess = probe_format(head, file_size=size)
    if guess == "luks" and head[6:8] != _LUKS_VERSION:
        return "raw"  # as for QEMU, so that a disk of LUKS2 can be copied as it is
    if guess in FOREIGN_FORMATS or guess in ("qcow2", "luks"):
        return guess
    if filename is not None and filename.endswith(".dmg"):
        return "dmg"
    return "raw"
