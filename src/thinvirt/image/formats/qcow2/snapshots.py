"""Entries of the snapshot table (qcow2 spec, "Snapshots")."""

from __future__ import annotations

from struct import Struct

from thinvirt.image.formats.qcow2.record import Record


class SnapshotHeader(Record):
    """The fixed part of an entry; extra data, id and name follow it.

    Offsets are bytes of the image file; the guest clock is in nanoseconds.
    """

    WHAT = "a snapshot table entry"
    LAYOUT = Struct(">QIHHIIQII")  # 40 bytes
    __slots__ = (  # noqa: RUF023 - in file order
        "l1_table_offset",
        "l1_entries",
        "id_size",
        "name_size",
        "date_s",
        "date_ns",
        "vm_clock_ns",
        "vm_state_size",
        "extra_data_size",
    )

    l1_table_offset: int
    l1_entries: int
    id_size: int
    name_size: int
    date_s: int
    date_ns: int
    vm_clock_ns: int
    vm_state_size: int
    extra_data_size: int

    @property
    def entry_size(self) -> int:
        """Bytes of the whole entry, padded to 8."""
        size = self.LAYOUT.size + self.extra_data_size + self.id_size + self.name_size
        return (size + 7) & ~7


_EXTRA = Struct(">QQQ")  # VM state size, disk size, instruction count
_NO_COUNT = (1 << 64) - 1
_EXTRA_REQUIRED = 16  # bytes: version 3 needs VM state size and disk size


class SnapshotEntry:
    """A whole entry of the snapshot table; sizes and offsets in bytes, times in nanoseconds.

    Attributes:
        extra: the extra data as it stands, empty for a new snapshot; kept as far as it is unknown.
        dropped_extra: bytes of extra data that were too many to be kept.
        disk_size: of the guest's disk; None where the entry does not say.
        icount: instructions executed, None where nothing was recorded.
    """

    def __init__(
        self, id_bytes: bytes, name: bytes, *, l1_table_offset: int, l1_entries: int
    ) -> None:
        self.id_bytes = id_bytes
        self.name = name
        self.l1_table_offset = l1_table_offset
        self.l1_entries = l1_entries
        self.date_s = self.date_ns = self.vm_clock_ns = 0
        self.vm_state_size = 0
        self.disk_size: int | None = None
        self.icount: int | None = None
        self.extra = b""
        self.dropped_extra = 0

    @classmethod
    def unpack(
        cls, header: SnapshotHeader, extra: bytes, id_bytes: bytes, name: bytes
    ) -> SnapshotEntry:
        """Return the entry that the parts of one mean."""
        entry = cls(
            id_bytes, name, l1_table_offset=header.l1_table_offset, l1_entries=header.l1_entries
        )
        entry.date_s, entry.date_ns = header.date_s, header.date_ns
        entry.vm_clock_ns, entry.vm_state_size = header.vm_clock_ns, header.vm_state_size
        entry.extra = extra
        if len(extra) >= 8:
            entry.vm_state_size = int.from_bytes(extra[:8], "big")
        if len(extra) >= _EXTRA_REQUIRED:
            entry.disk_size = int.from_bytes(extra[8:16], "big")
        if len(extra) >= _EXTRA.size:
            count = int.from_bytes(extra[16:24], "big")
            entry.icount = None if count == _NO_COUNT else count
        return entry

    @property
    def is_complete(self) -> bool:
        """Whether the entry has the extra data that version 3 requires."""
        return len(self.extra) >= _EXTRA_REQUIRED

    def pack(self, *, disk_size: int) -> bytes:
        """Return the entry as it is written now, not padded.

        Args:
            disk_size: of the image, for an entry that does not say its own.
        """
        own_size = disk_size if self.disk_size is None else self.disk_size
        count = _NO_COUNT if self.icount is None else self.icount
        extra = _EXTRA.pack(self.vm_state_size, own_size, count) + self.extra[_EXTRA.size :]
        header = SnapshotHeader(
            self.l1_table_offset,
            self.l1_entries,
            len(self.id_bytes),
            len(self.name),
            self.date_s,
            self.date_ns,
            self.vm_clock_ns,
            self.vm_state_size if self.vm_state_size <= 0xFFFFFFFF else 0,
            len(extra),
        )
        return header.pack() + extra + self.id_bytes + self.name
