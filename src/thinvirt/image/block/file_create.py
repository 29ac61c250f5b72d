"""Make, open and resize host files: what needs no node."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from thinvirt.image.block.errors import BlockError, NotSupported, with_reason
from thinvirt.image.block.flags import SECTOR, Permission, Preallocation
from thinvirt.image.block.locks import PermissionLocks, locks_available
from thinvirt.image.block.schema import Option, OptionList, OptionType, parse_choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.schema import Values

CREATE_OPTIONS = OptionList(
    "raw-create-opts",
    (
        Option("size", OptionType.SIZE, "Virtual disk size"),
        Option("nocow", OptionType.BOOL, "Turn off copy-on-write (valid only on btrfs)"),
        Option(
            "preallocation",
            OptionType.STRING,
            "Preallocation mode (allowed values: off, falloc, full)",
        ),
        Option(
            "extent_size_hint", OptionType.SIZE, "Extent size hint for the image file, 0 to disable"
        ),
    ),
)

_BLKROGET = 0x125E  # <linux/fs.h>
_GETFLAGS, _SETFLAGS, _NOCOW = 0x80086601, 0x40086602, 0x00800000
_GETXATTR, _SETXATTR, _EXTSIZE = 0x801C581F, 0x401C5820, 0x800  # struct fsxattr, 28 bytes
_DEFAULT_EXTENT_HINT = 1 << 20
_PAGE = 4096
_CHUNK = 1 << 20
_MODE = 0o644


def open_host_file(name: str, flags: int, *, create: bool = False) -> int:
    """Open (or create) a file and return its descriptor.

    Raises:
        BlockError: not possible, in QEMU's words.
    """
    action = "create" if create else "open"
    flags |= os.O_CLOEXEC | (os.O_CREAT if create else 0)
    try:
        return os.open(name, flags, _MODE)
    except ValueError as error:  # a zero byte within the name
        raise with_reason(f"Could not {action} '{name}'", errno.ENOENT) from error
    except OSError as error:
        number = error.errno or errno.EIO
        if number == errno.EINVAL and flags & os.O_DIRECT and _opens(name, flags & ~os.O_DIRECT):
            raise BlockError(
                f"Could not {action} '{name}': filesystem does not support O_DIRECT",
                hint="leave cache=none (cache.direct=on) out",
            ) from error
        raise with_reason(f"Could not {action} '{name}'", number) from error


def _opens(name: str, flags: int) -> bool:
    try:
        os.close(os.open(name, flags, _MODE))
    except OSError:
        return False
    return True


def check_device_writable(fd: int) -> None:
    """Refuse a block device that was set read-only: opening it for writing succeeds.

    Raises:
        BlockError: it was.
    """
    if not stat.S_ISBLK(os.fstat(fd).st_mode):
        return
    answer = fcntl.ioctl(fd, _BLKROGET, bytes(4))
    if any(answer):
        raise with_reason("The device is not writable", errno.EACCES)


def create_from_options(filename: str, values: Values, warn: Callable[[str], None]) -> None:
    """Create a file as ``-o`` options say; see `create_file`."""
    hint: int | None = None
    if "extent_size_hint" in values:
        hint = values.size("extent_size_hint")
    create_file(
        filename.removeprefix("file:"),
        -(-values.size("size") // SECTOR) * SECTOR,
        preallocation=parse_choice(
            values.text("preallocation") or Preallocation.OFF, Preallocation.ALL
        ),
        nocow=values.flag("nocow"),
        extent_size_hint=hint,
        warn=warn,
    )


def create_file(
    filename: str,
    size: int,
    *,
    preallocation: str = Preallocation.OFF,
    nocow: bool = False,
    extent_size_hint: int | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Create a file, or empty one that nobody uses, and give it its size.

    Args:
        filename: host path.
        size: bytes.
        preallocation: off, falloc or full.
        nocow: set Btrfs's flag for files that are overwritten in place; failing is no error.
        extent_size_hint: for XFS, bytes, 0 for none; None asks for 1 MiB where it is possible.
        warn: told what could not be done but is no error.

    Raises:
        ImageLocked: another process uses the file.
        BlockError: not possible, or the disk is full.
    """
    if (extent_size_hint or 0) >= 1 << 32:
        raise BlockError("Extent size hint is too large")
    fd = open_host_file(filename, os.O_RDWR, create=True)
    try:
        if locks_available(fd):
            # It will be emptied and resized, and nobody else may resize it before we are done.
            locks = PermissionLocks(fd, filename)
            perm = Permission.WRITE | Permission.RESIZE
            shared = Permission.ALL & ~Permission.RESIZE
            locks.prepare(perm, shared)
        resize_file(fd, 0, Preallocation.OFF)
        if nocow:
            _set_nocow(fd)
        number = _set_extent_hint(fd, extent_size_hint)
        if number and extent_size_hint and warn is not None:
            warn("warning: Failed to set extent size hint: " + os.strerror(number))
        resize_file(fd, size, preallocation)
    finally:
        os.close(fd)


def _set_nocow(fd: int) -> None:
    try:
        flags = int.from_bytes(fcntl.ioctl(fd, _GETFLAGS, bytes(8))[:4], "little")
        fcntl.ioctl(fd, _SETFLAGS, (flags | _NOCOW).to_bytes(8, "little"))
    except OSError:
        pass  # other file systems do not have it, and it only makes things faster


def _set_extent_hint(fd: int, size: int | None) -> int:
    """Set XFS's hint; return 0, or the errno that says why not."""
    from struct import pack_into, unpack_from

    try:
        attributes = bytearray(fcntl.ioctl(fd, _GETXATTR, bytes(28)))
        (flags,) = unpack_from("=I", attributes)
        pack_into(
            "=II", attributes, 0, flags | _EXTSIZE, _DEFAULT_EXTENT_HINT if size is None else size
        )
        fcntl.ioctl(fd, _SETXATTR, bytes(attributes))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def resize_file(fd: int, size: int, preallocation: str) -> None:
    """Change the size of an open file.

    Args:
        fd: a regular file.
        size: bytes.
        preallocation: off, falloc or full, for what is added.

    Raises:
        BlockError: not possible, or the disk is full; the file has its old size then.
    """
    if size >= 1 << 63:
        raise with_reason("Could not resize file", errno.EINVAL)
    present = os.fstat(fd).st_size
    if present > size and preallocation != Preallocation.OFF:
        raise NotSupported("Cannot use preallocation for shrinking files")
    if preallocation == Preallocation.OFF:
        _step("Could not resize file", os.ftruncate, fd, size)
        if present == 0 and size > 0:
            _write_first_block(fd, size)
        return
    if preallocation not in (Preallocation.FALLOC, Preallocation.FULL):
        raise NotSupported(f"Unsupported preallocation mode: {preallocation}")
    try:
        if preallocation == Preallocation.FULL:
            _grow_with_zeroes(fd, present, size)
        elif size != present:
            _step("Could not preallocate new data", os.posix_fallocate, fd, present, size - present)
            if present == 0:
                _write_first_block(fd, size)
    except BaseException:
        _take_back(fd, present)
        raise


def _take_back(fd: int, size: int) -> None:
    try:
        os.ftruncate(fd, size)
    except OSError:
        return  # what failed first is what matters; the file is longer than it was, with zeroes


def _step(message: str, call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except OSError as error:
        raise with_reason(message, error.errno or errno.EIO) from error


def _grow_with_zeroes(fd: int, present: int, size: int) -> None:
    _step("Could not resize file", os.ftruncate, fd, size)
    zeroes = bytes(min(_CHUNK, max(size - present, 0)))
    at = present
    try:
        while at < size:
            at += os.pwrite(fd, memoryview(zeroes)[: size - at], at)
    except OSError as error:
        number = error.errno or errno.EIO
        raise with_reason("Could not write zeros for preallocation", number) from error
    _step("Could not flush file to disk", os.fsync, fd)


def _write_first_block(fd: int, size: int) -> None:
    """Allocate the beginning of a file: a hole does not show the alignment that O_DIRECT needs."""
    length = SECTOR if size < _PAGE else _PAGE
    try:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            from thinvirt.image.block.direct_io import write_direct

            write_direct(fd, 0, bytes(length), SECTOR)
        else:
            os.pwrite(fd, bytes(length), 0)
    except OSError:
        pass  # it only helps later opens
