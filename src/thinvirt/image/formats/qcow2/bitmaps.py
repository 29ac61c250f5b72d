"""Persistent bitmaps: the header extension and the directory (qcow2 spec, "Bitmaps")."""

from __future__ import annotations

from struct import Struct

from thinvirt.errors import CorruptImage
from thinvirt.image.formats.qcow2.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class BitmapsExtension(Record):
    """Where the directory lies and what it holds. Sizes and offsets are bytes of the file."""

    WHAT = "the bitmaps extension"
    LAYOUT = Struct(">I4xQQ")  # 24 bytes
    __slots__ = ("count", "directory_size", "directory_offset")  # noqa: RUF023 - in file order

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
            raise CorruptImage(f"{cls.WHAT} has {len(raw)} bytes, not {cls.LAYOUT.size}", offset=at)
        return super().unpack(raw, at=at)


class BitmapEntry(Record):
    """The fixed part of a directory entry; extra data and name follow it."""

    WHAT = "a bitmap directory entry"
    LAYOUT = Struct(">QIIBBHI")  # 24 bytes
    __slots__ = (  # noqa: RUF023 - in file order
        "table_offset",
        "table_entries",
        "flags",
        "kind",
        "granularity_bits",
        "name_size",
        "extra_data_size",
    )

    table_offset: int
    table_entries: int
    flags: int
    kind: int
    granularity_bits: int
    name_size: int
    extra_data_size: int

    @property
    def entry_size(self) -> int:
        """Bytes of the whole entry, padded to 8."""
        return (self.LAYOUT.size + self.extra_data_size + self.name_size + 7) & ~7
