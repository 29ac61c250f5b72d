"""The raw format: the bytes of a file, or of a part of it."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import Creatable, Measurable, Measure
from thinvirt.image.block.base import BaseNode
from thinvirt.image.block.errors import BlockError, NotSupported, failed
from thinvirt.image.block.flags import MAX_LENGTH, SECTOR, Permission, Role, Status, WriteFlags
from thinvirt.image.block.node import Extent
from thinvirt.image.block.registry import PROBE_BYTES, find_protocol, guess_format
from thinvirt.image.block.schema import Option, OptionList, OptionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.node import BlockNode, Buffer, Child
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.schema import Values

RUNTIME_OPTIONS = OptionList(
    "raw",
    (
        Option("offset", OptionType.SIZE, "offset in the disk where the image starts"),
        Option("size", OptionType.SIZE, "virtual disk size"),
    ),
)

_WARNING = (
    "WARNING: Image format was not specified for '{}' and probing guessed raw.\n"
    "         Automatically detecting the format is dangerous for raw images, write operations on "
    "block 0 will be restricted.\n"
    "         Specify the 'raw' format explicitly to remove the restrictions."
)
_PASSED = WriteFlags.FUA | WriteFlags.MAY_UNMAP | WriteFlags.NO_FALLBACK


class RawNode(BaseNode, Creatable, Measurable):
    """A raw image; with ``offset`` or ``size`` a part of what lies below."""

    driver = "raw"
    is_format = True
    variable_length = True
    strong_options = ("offset", "size")
    create_options = OptionList(
        "raw-create-opts", (Option("size", OptionType.SIZE, "Virtual disk size"),)
    )
    can_write_zeroes = True
    can_discard = True
    can_report_status = True
    can_truncate = True

    offset = 0
    fixed_size: int | None = None

    @classmethod
    def create_image(cls, graph: BlockGraph, filename: str, values: Values) -> None:
        """Make what the image lies in: there is nothing else to it."""
        protocol = find_protocol(filename)
        if not issubclass(protocol, Creatable):
            raise NotSupported(f"Driver '{protocol.driver}' does not support image creation")
        protocol.create_image(graph, filename, values)

    @classmethod
    def measure_image(cls, values: Values, source: BlockNode | None) -> Measure:
        """Return the size: what is a hole counts too."""
        size = values.size("size") if source is None else source.size
        size = -(-size // SECTOR) * SECTOR
        return Measure(size, size)

    def _open(self, options: Options) -> None:
        values = RUNTIME_OPTIONS.absorb(options)
        self.offset = values.size("offset")
        self.fixed_size = values.size("size") if "size" in values else None
        # All of a file is seen as through a filter; a part of it is not.
        is_part = self.offset or self.fixed_size is not None
        role = Role.PRIMARY | (Role.DATA if is_part else Role.FILTERED)
        file = self.graph.open_child(self, options, "file", role)
        assert file is not None
        self.write_flags = WriteFlags.UNCHANGED | WriteFlags.FUA & file.write_flags
        self.zero_flags = WriteFlags.UNCHANGED | _PASSED & file.zero_flags
        self.truncate_flags = WriteFlags.ZERO & file.truncate_flags
        if self.probed and not self.read_only:
            self.graph.warn(_WARNING.format(file.filename))
        self._check_place(file.size)

    def _check_place(self, available: int) -> None:
        if self.offset > available:
            raise BlockError(
                f"Offset ({self.offset}) cannot be greater than size of the containing file "
                f"({available})"
            )
        if self.fixed_size is None:
            return
        if available - self.offset < self.fixed_size:
            raise BlockError(
                f"The sum of offset ({self.offset}) and size ({self.fixed_size}) has to be smaller "
                f"or equal to the  actual size of the containing file ({available})"
            )
        if self.fixed_size % SECTOR:
            raise BlockError(f"Specified size is not multiple of {SECTOR}")

    def _length(self) -> int:
        available = max(self.file.size - self.offset, 0)
        return available if self.fixed_size is None else min(self.fixed_size, available)

    def _refresh_limits(self) -> None:
        if self.probed:
            # Whole sectors only, so that what is written to the first can be looked at.
            self.request_alignment = SECTOR

    def _child_permissions(self, child: Child, perm: int, shared: int) -> tuple[int, int]:
        below, shared_below = super()._child_permissions(child, perm, shared)
        # Raw has nothing of its own to write.
        mine = Permission.WRITE | Permission.RESIZE
        return below & ~mine | perm & mine, shared_below

    def _place(self, offset: int, length: int, *, is_write: bool) -> int:
        if self.fixed_size is not None and offset + length > self.fixed_size:
            raise failed(errno.ENOSPC if is_write else errno.EINVAL, offset=offset)
        if offset > MAX_LENGTH - self.offset:
            raise failed(errno.EINVAL, offset=offset)
        return offset + self.offset

    def _read(self, offset: int, length: int) -> bytes:
        place = self._place(offset, length, is_write=False)
        self.file.debug_event("read_aio")
        return self.file.read(place, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read into a buffer without a copy."""
        is_odd = (offset | len(buffer)) & self.request_alignment - 1
        if self.copy_on_read or is_odd or offset + len(buffer) > self.size:
            super().read_into(offset, buffer)
        else:
            self.file.debug_event("read_aio")
            self.file.read_into(offset + self.offset, buffer)

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        if self.probed and offset < PROBE_BYTES:
            # A guest must not make a raw image look like another format, which could then name
            # any file of the host as its backing file.
            head = bytes(data[:PROBE_BYTES])
            if guess_format(head, None, size=self.size) != "raw":
                raise failed(errno.EPERM, offset=offset)
        place = self._place(offset, len(data), is_write=True)
        self.file.debug_event("write_aio")
        self.file.write(place, data, flags)

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        self.file.write_zeroes(self._place(offset, length, is_write=True), length, flags)

    def _copy_from_file(self, file: BlockNode, file_offset: int, offset: int, length: int) -> None:
        if self.probed and offset < PROBE_BYTES:
            raise NotSupported  # what goes into the first sector must be looked at
        place = self._place(offset, length, is_write=True)
        self.file.copy_from_file(file, file_offset, place, length)

    def _discard(self, offset: int, length: int) -> None:
        self.file.discard(self._place(offset, length, is_write=True), length)

    def _status(self, offset: int, length: int, *, want_zero: bool) -> Extent:
        return Extent(length, Status.RAW | Status.OFFSET_VALID, offset + self.offset, self.file)

    def _truncate(self, size: int, *, exact: bool, preallocation: str, flags: int) -> None:
        if self.fixed_size is not None:
            raise NotSupported("Cannot resize fixed-size raw disks")
        if size > MAX_LENGTH - self.offset:
            raise BlockError("Disk size too large for the chosen offset")
        self.file.truncate(
            size + self.offset, exact=exact, preallocation=preallocation, flags=flags
        )

    @property
    def cluster_size(self) -> int:
        """That of what lies below."""
        return self.file.cluster_size

    def has_zero_init(self) -> bool:
        """As what lies below."""
        return self.file.has_zero_init()
