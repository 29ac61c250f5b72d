"""On-disk structures of a fixed layout, declared once: what they are called, fields, encoding.

A dataclass would say the same, and take longer to be imported than an image to be read.
"""

from __future__ import annotations

from thinvirt.errors import CorruptImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct
    from typing import ClassVar, Self


class Record:
    """A structure in an image; a subclass names its fields, in their order, as its slots.

    Args:
        values: of all fields, in that order.
    """

    __slots__: tuple[str, ...] = ()
    WHAT: ClassVar[str]  # for messages
    LAYOUT: ClassVar[Struct]

    def __init__(self, *values: int) -> None:
        for name, value in zip(self.__slots__, values, strict=True):
            setattr(self, name, value)

    @classmethod
    def unpack(cls, raw: bytes, *, at: int) -> Self:
        """Read it from its bytes, which more may follow; `at` is its place in the file.

        Raises:
            CorruptImage: they are too few.
        """
        if len(raw) < cls.LAYOUT.size:
            raise CorruptImage(
                f"{cls.WHAT} needs {cls.LAYOUT.size} bytes, found {len(raw)}", offset=at
            )
        return cls(*cls.LAYOUT.unpack_from(raw))

    def pack(self) -> bytes:
        """Return its bytes."""
        return bytes(self.LAYOUT.pack(*(getattr(self, name) for name in self.__slots__)))

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self) and isinstance(other, Record) and other.pack() == self.pack()
        )

    __hash__ = None  # type: ignore[assignment]
