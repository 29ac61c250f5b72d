"""Host files and devices: the protocol node at the bottom of most graphs."""

from __future__ import annotations

import errno
import os
import stat

from thinvirt.image.block.abilities import Creatable
from thinvirt.image.block.base import BaseNode
from thinvirt.image.block.errors import (
    BlockError,
    NotSupported,
    failed,
    with_reason,
)
from thinvirt.image.block.file_create import (
    CREATE_OPTIONS,
    check_device_writable,
    create_from_options,
    open_host_file,
    resize_file,
)
from thinvirt.image.block.flags import Open, Permission, Status, WriteFlags
from thinvirt.image.block.locks import PermissionLocks, locks_available
from thinvirt.image.block.names import strip_protocol
from thinvirt.image.block.node import Extent
from thinvirt.image.block.schema import Option, OptionList, OptionType, parse_choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.node import BlockNode, Buffer
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.schema import Values

RUNTIME_OPTIONS = OptionList(
    "raw",
    (
        Option("filename", OptionType.STRING, "name of the file"),
        Option("aio", OptionType.STRING, "how the host does asynchronous I/O; accepted, not used"),
        Option("aio-max-batch", OptionType.NUMBER, "accepted, not used"),
        Option("locking", OptionType.STRING, "whether to take locks (on, off, auto)"),
        Option("pr-manager", OptionType.STRING, "persistent reservations; not available"),
        Option("drop-cache", OptionType.BOOL, "accepted, not used"),
        Option("x-check-cache-dropped", OptionType.BOOL, "accepted, not used"),
    ),
)

_WRITERS = Permission.WRITE | Permission.WRITE_UNCHANGED | Permission.RESIZE
# What a file system, or a kernel older than the call, answers when it cannot do something.
CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.ENOTTY})


class FileNode(BaseNode, Creatable):
    """A regular file.

    Attributes:
        fd: the descriptor; it may change when permissions do.
    """

    driver = "file"
    is_protocol = True
    needs_filename = True
    create_options = CREATE_OPTIONS
    can_write_zeroes = True
    can_discard = True
    can_report_status = True
    can_truncate = True
    parses_filename = True
    wants_device: ClassVar[bool] = False

    fd = -1
    _locks: PermissionLocks | None = None
    _new_fd = -1
    _new_locks: PermissionLocks | None = None
    _mode = 0  # the flags the descriptor was opened with
    _direct = False
    _data_start = _data_end = 0  # a run of data seen last, not asked for again
    _can_zero = _can_punch = _can_reserve = True

    @classmethod
    def parse_filename(cls, filename: str, options: Options) -> None:
        """Put what a file name says into the options."""
        strip_protocol(filename, cls.driver + ":", options)

    @classmethod
    def create_image(cls, graph: BlockGraph, filename: str, values: Values) -> None:
        """Make a file, or empty one that nobody uses."""
        create_from_options(filename, values, graph.warn)

    # ---------------------------------------------------------------- open and close

    def _open(self, options: Options) -> None:
        values = RUNTIME_OPTIONS.absorb(options)
        name = values.text("filename") or ""
        aio = values.choice("aio", ("threads", "native", "io_uring"), "threads")
        locking = parse_choice(values.text("locking") or "auto", ("auto", "on", "off"))
        manager = values.text("pr-manager")
        if manager is not None:
            raise BlockError(f"No persistent reservation manager with id '{manager}'")
        self._mode = self._open_mode(self.open_flags, has_writers=False)
        self.fd = open_host_file(name, self._mode)
        try:
            self._set_up(aio, lock=locking != "off")
        except BaseException:
            self._close()
            raise

    def _set_up(self, aio: str, *, lock: bool) -> None:
        if self._mode & os.O_RDWR:
            check_device_writable(self.fd)
        if aio == "native" and not self._mode & os.O_DIRECT:
            raise BlockError(
                "aio=native was specified, but it requires cache.direct=on, which was not "
                "specified."
            )
        kind = os.fstat(self.fd).st_mode
        if self.wants_device:
            if not (stat.S_ISCHR(kind) or stat.S_ISBLK(kind)):
                raise BlockError(
                    f"'{self.driver}' driver requires '{self.filename}' to be either a character "
                    "or block device"
                )
        elif not stat.S_ISREG(kind):
            raise BlockError(
                f"'{self.driver}' driver requires '{self.filename}' to be a regular file"
            )
        self._direct = bool(self.open_flags & Open.NOCACHE)
        self.zero_flags = WriteFlags.MAY_UNMAP | WriteFlags.NO_FALLBACK
        if stat.S_ISREG(kind):
            self.truncate_flags = WriteFlags.ZERO  # what is added to a file is zeroes
        if lock and locks_available(self.fd):
            self._locks = PermissionLocks(self.fd, self.filename)

    @classmethod
    def _open_mode(cls, flags: int, *, has_writers: bool) -> int:
        writable = has_writers if flags & Open.AUTO_RDONLY else flags & Open.RDWR
        direct = os.O_DIRECT if flags & Open.NOCACHE else 0
        # A pipe in place of a file would hold us here until somebody writes to it.
        patience = 0 if cls.wants_device else os.O_NONBLOCK
        return (os.O_RDWR if writable else os.O_RDONLY) | direct | patience

    def _close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)  # and with it its locks

    def _length(self) -> int:
        try:
            return os.lseek(self.fd, 0, os.SEEK_END)
        except OSError as error:  # some files of /proc have no end
            number = error.errno or errno.EIO
            raise with_reason("Could not refresh total sector count", number) from error

    def _refresh_limits(self) -> None:
        if self._direct:
            from thinvirt.image.block.direct_io import probe_alignment

            self.request_alignment = probe_alignment(self.fd)

    # ---------------------------------------------------------------- permissions

    def _check_permissions(self, perm: int, shared: int) -> None:
        mode = self._open_mode(self.open_flags, has_writers=bool(perm & _WRITERS))
        if mode != self._mode:
            self._new_fd = open_host_file(self.filename, mode)
        try:
            if self._new_fd >= 0 and mode & os.O_RDWR:
                check_device_writable(self._new_fd)
            if self._locks is not None:
                self._locks.prepare(perm, shared)
                if self._new_fd >= 0:
                    self._new_locks = self._locks.taken_on(self._new_fd, perm, shared)
        except BaseException:
            self._drop_new()
            raise

    def _set_permissions(self, perm: int, shared: int) -> None:
        if self._new_fd >= 0:
            os.close(self.fd)
            self.fd, self._new_fd = self._new_fd, -1
            self._mode = self._open_mode(self.open_flags, has_writers=bool(perm & _WRITERS))
            self._locks, self._new_locks = self._new_locks, None
        if self._locks is not None:
            self._locks.commit(perm, shared)

    def _abort_permissions(self) -> None:
        self._drop_new()
        if self._locks is not None:
            self._locks.abort()

    def _drop_new(self) -> None:
        if self._new_fd >= 0:
            os.close(self._new_fd)
        self._new_fd, self._new_locks = -1, None

    # ---------------------------------------------------------------- requests

    def _read(self, offset: int, length: int) -> bytes:
        try:
            if self._direct:
                from thinvirt.image.block.direct_io import read_direct

                return read_direct(self.fd, offset, length, self.request_alignment)
            data = os.pread(self.fd, length, offset)
            if len(data) == length:
                return data
            return self._read_on(data, offset, length)
        except OSError as error:
            raise failed(error.errno or errno.EIO, offset=offset) from error

    def _read_on(self, data: bytes, offset: int, length: int) -> bytes:
        """Go on after a short read; zeroes follow the end of the file."""
        parts, have = [data], len(data)
        while data and have < length:
            data = os.pread(self.fd, length - have, offset + have)
            parts.append(data)
            have += len(data)
        parts.append(bytes(length - have))
        return b"".join(parts)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read into a buffer, without a copy where that is possible."""
        if self._direct or offset + len(buffer) > self.size:
            super().read_into(offset, buffer)
            return
        try:
            done = os.preadv(self.fd, [buffer], offset)
        except OSError as error:
            raise failed(error.errno or errno.EIO, offset=offset) from error
        if done < len(buffer):
            buffer[done:] = self._read(offset + done, len(buffer) - done)

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        try:
            if self._direct:
                from thinvirt.image.block.direct_io import write_direct

                write_direct(self.fd, offset, data, self.request_alignment)
                return
            done = os.pwrite(self.fd, data, offset)
            length = len(data)
            while done < length:
                step = os.pwrite(self.fd, memoryview(data)[done:], offset + done)
                if not step:
                    raise failed(errno.EINVAL, offset=offset + done)
                done += step
        except OSError as error:
            raise failed(error.errno or errno.EIO, offset=offset) from error

    def _copy_from_file(self, file: BlockNode, file_offset: int, offset: int, length: int) -> None:
        if not isinstance(file, FileNode):
            raise NotSupported
        end = offset + length
        while offset < end:
            try:
                done = os.copy_file_range(
                    file.fd, self.fd, end - offset, offset_src=file_offset, offset_dst=offset
                )
            except OSError as error:
                if error.errno in CANNOT or error.errno in (errno.EINVAL, errno.EXDEV):
                    raise NotSupported from error
                raise failed(error.errno or errno.EIO, offset=offset) from error
            if not done:
                raise NotSupported  # past the end of that file there is nothing to copy
            offset += done
            file_offset += done

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        from thinvirt.image.block import fallocate

        self._forget_data(offset, length)
        if flags & WriteFlags.MAY_UNMAP and self._try(
            fallocate.punch_hole, offset, length, also={errno.EINVAL, errno.EBUSY}
        ):
            return
        if self._can_zero:
            self._can_zero = self._try(fallocate.zero_range, offset, length, also={errno.EINVAL})
            if self._can_zero:
                return
        if self._can_punch and self._can_reserve:
            self._can_punch = self._try(fallocate.punch_hole, offset, length)
            if self._can_punch:
                self._can_reserve = self._try(fallocate.reserve, offset, length)
                if self._can_reserve:
                    return
        if self._can_reserve and offset >= self._length():
            self._can_reserve = self._try(fallocate.reserve, offset, length)
            if self._can_reserve:
                return
        raise NotSupported

    def _try(self, call: _Call, offset: int, length: int, *, also: set[int] | None = None) -> bool:
        """Return whether the file system could do it; other failures are raised."""
        try:
            call(self.fd, offset, length)
        except OSError as error:
            if error.errno in CANNOT or (also and error.errno in also):
                return False
            raise failed(error.errno or errno.EIO, offset=offset) from error
        return True

    def _discard(self, offset: int, length: int) -> None:
        from thinvirt.image.block import fallocate

        self._forget_data(offset, length)
        if self._can_punch:
            self._can_punch = self._try(fallocate.punch_hole, offset, length)
        if not self._can_punch:
            raise NotSupported

    def _forget_data(self, offset: int, length: int) -> None:
        if offset < self._data_end and offset + length > self._data_start:
            self._data_start = self._data_end = 0

    def _status(self, offset: int, length: int, *, want_zero: bool) -> Extent:
        valid = Status.OFFSET_VALID
        if not want_zero:
            return Extent(length, Status.DATA | valid, offset, self)
        if self._data_start <= offset < self._data_end:
            return Extent(self._data_end - offset, Status.DATA | valid, offset, self)
        try:
            data = os.lseek(self.fd, offset, os.SEEK_DATA)
            if data > offset:
                return Extent(data - offset, Status.ZERO | valid, offset, self)
            hole = os.lseek(self.fd, offset, os.SEEK_HOLE)
        except OSError as error:
            # ENXIO: a hole up to the end. Anything else: nothing is known, so no holes.
            kind = Status.ZERO if error.errno == errno.ENXIO else Status.DATA
            return Extent(length, kind | valid, offset, self)
        if hole <= offset:  # somebody dug a hole just now
            return Extent(length, Status.DATA | valid, offset, self)
        hole = -(-hole // self.request_alignment) * self.request_alignment
        self._data_start, self._data_end = offset, hole
        return Extent(hole - offset, Status.DATA | valid, offset, self)

    def _flush_to_disk(self) -> None:
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            raise failed(error.errno or errno.EIO) from error

    def _truncate(self, size: int, *, exact: bool, preallocation: str, flags: int) -> None:
        self._data_start = self._data_end = 0
        resize_file(self.fd, size, preallocation)

    # ---------------------------------------------------------------- facts

    def has_zero_init(self) -> bool:
        """A new file reads as zeroes."""
        return True

    def identity(self) -> tuple[int, int] | None:
        """Return device and inode."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def allocated_size(self) -> int:
        """Return what the file takes on disk."""
        return os.fstat(self.fd).st_blocks * 512


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    _Call: TypeAlias = Callable[[int, int, int], None]


def delete_file(node: FileNode) -> None:
    """Remove the file of a node.

    Raises:
        BlockError: it is not there, no regular file, or may not be removed.
    """
    name = node.filename
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # noqa: PTH116
            raise with_reason(f"{name} is not a regular file", errno.ENOENT)
        os.unlink(name)  # noqa: PTH108
    except OSError as error:
        number = error.errno or errno.EIO
        raise with_reason(f"Error when deleting file {name}", number) from error
