"""Persistent bitmaps: the header extension and the directory (qcow2 spec, "Bitmaps")."""

from dataclasses import astuple, dataclass
from struct import Struct
from typing import ClassVar, Self

from thinvirt.errors import CorruptImage


@dataclass(frozen=True, slots=True)
class BitmapsExtension:
    """Where the directory lies and what it holds. Sizes and offsets are bytes of the file."""

    LAYOUT: ClassVar = Struct(">I4xQQ")  # 24 bytes

    count: int
    directory_size: int
    directory_offset: int

    @classmethod
    def unpack(cls, raw: bytes, *, at: int) -> Self:
        """Read the extension's data; `at` is its place in the file, for messages.

        Raises:
            CorruptImage: it has another length.
        """
        if len(raw) != cls.LAYOUT.size:
            raise CorruptImage(
                f"the bitmaps extension has {len(raw)} bytes, not {cls.LAYOUT.size}", offset=at
            )
        return cls(*cls.LAYOUT.unpack(raw))

    def pack(self) -> bytes:
        """Return the extension's data."""
        return bytes(self.LAYOUT.pack(*astuple(self)))


@dataclass(frozen=True, slots=True)
class BitmapEntry:
    """The fixed part of a directory entry; extra data and name follow it."""

    LAYOUT: ClassVar = Struct(">QIIBBHI")  # 24 bytes

    table_offset: int
    table_entries: int
    flags: int
    kind: int
    granularity_bits: int
    name_size: int
    extra_data_size: int

    @classmethod
    def unpack(cls, raw: bytes, *, at: int) -> Self:
        """Read one entry's fixed part; `at` is its place in the file, for messages.

        Raises:
            CorruptImage: the directory ends before.
        """
        if len(raw) < cls.LAYOUT.size:
            raise CorruptImage(
                f"a bitmap directory entry needs {cls.LAYOUT.size} bytes, found {len(raw)}",
                offset=at,
            )
        return cls(*cls.LAYOUT.unpack_from(raw))

    def pack(self) -> bytes:
        """Return the fixed part's bytes."""
        return bytes(self.LAYOUT.pack(*astuple(self)))

    @property
    def entry_size(self) -> int:
        """Bytes of the whole entry, padded to 8."""
        return (self.LAYOUT.size + self.extra_data_size + self.name_size + 7) & ~7
