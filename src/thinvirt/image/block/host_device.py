"""Devices of the host."""

from __future__ import annotations

import errno
import fcntl
from struct import pack

from thinvirt.image.block.errors import BlockError, NotSupported, failed
from thinvirt.image.block.existing import SIMPLE_OPTIONS, take_existing
from thinvirt.image.block.file import CANNOT, FileNode
from thinvirt.image.block.flags import Preallocation, WriteFlags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.schema import Values

_BLKZEROOUT, _BLKDISCARD = 0x127F, 0x1277  # <linux/fs.h>


class HostDeviceNode(FileNode):
    """A block or character device of the host."""

    driver = "host_device"
    variable_length = True
    can_report_status = False
    wants_device = True
    create_options = SIMPLE_OPTIONS

    @classmethod
    def create_image(cls, graph: BlockGraph, filename: str, values: Values) -> None:
        """Take an existing device, as long as it is large enough."""
        take_existing(graph, cls.driver, filename, values)

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        # Discarded and zeroed blocks may be stale in the page cache: only without it.
        if not self._direct or flags & WriteFlags.NO_FALLBACK or not self._can_zero:
            raise NotSupported
        self._can_zero = self._device_range(_BLKZEROOUT, offset, length)
        if not self._can_zero:
            raise NotSupported

    def _discard(self, offset: int, length: int) -> None:
        if self._can_punch:
            self._can_punch = self._device_range(_BLKDISCARD, offset, length)
        if not self._can_punch:
            raise NotSupported

    def _device_range(self, request: int, offset: int, length: int) -> bool:
        try:
            fcntl.ioctl(self.fd, request, pack("=QQ", offset, length))
        except OSError as error:
            if error.errno in CANNOT:
                return False
            raise failed(error.errno or errno.EIO, offset=offset) from error
        return True

    def _truncate(self, size: int, *, exact: bool, preallocation: str, flags: int) -> None:
        if preallocation != Preallocation.OFF:
            raise NotSupported(
                f"Preallocation mode '{preallocation}' unsupported for this non-regular file"
            )
        present = self._length()
        if size != present and exact:
            raise NotSupported("Cannot resize device files")
        if size > present:
            raise BlockError("Cannot grow device files")

    def has_zero_init(self) -> bool:
        """A device holds what it held."""
        return False
