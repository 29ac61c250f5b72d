"""Entries of the snapshot table (qcow2 spec, "Snapshots")."""

from dataclasses import astuple, dataclass
from struct import Struct
from typing import ClassVar, Self

from thinvirt.errors import CorruptImage


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """The fixed part of an entry; extra data, id and name follow it.

    Offsets are bytes of the image file; the guest clock is in nanoseconds.
    """

    LAYOUT: ClassVar = Struct(">QIHHIIQII")  # 40 bytes

    l1_table_offset: int
    l1_entries: int
    id_size: int
    name_size: int
    date_s: int
    date_ns: int
    vm_clock_ns: int
    vm_state_size: int
    extra_data_size: int

    @classmethod
    def unpack(cls, raw: bytes, *, at: int) -> Self:
        """Read one entry's fixed part; `at` is its place in the file, for messages.

        Raises:
            CorruptImage: the table ends before.
        """
        if len(raw) < cls.LAYOUT.size:
            raise CorruptImage(
                f"a snapshot table entry needs {cls.LAYOUT.size} bytes, found {len(raw)}", offset=at
            )
        return cls(*cls.LAYOUT.unpack_from(raw))

    def pack(self) -> bytes:
        """Return the fixed part's bytes."""
        return bytes(self.LAYOUT.pack(*astuple(self)))

    @property
    def entry_size(self) -> int:
        """Bytes of the whole entry, padded to 8."""
        size = self.LAYOUT.size + self.extra_data_size + self.id_size + self.name_size
        return (size + 7) & ~7
