"""Header extensions: what follows the header in the first cluster (qcow2 spec)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from thinvirt.errors import CorruptImage
from thinvirt.image.formats.qcow2.geometry import align_up

_HEAD = Struct(">II")  # kind, length of the data
_ALIGNMENT = 8


class ExtensionKind(IntEnum):
    """The extensions of the specification; any other is kept byte for byte."""

    END = 0
    BACKING_FORMAT = 0xE2792ACA
    FEATURE_NAMES = 0x6803F857
    BITMAPS = 0x23852875
    ENCRYPTION = 0x0537BE77
    DATA_FILE = 0x44415441


@dataclass(frozen=True, slots=True)
class HeaderExtension:
    """One extension: its kind, its data, and where in the file its data begins."""

    kind: int
    data: bytes
    offset: int = 0

    def pack(self) -> bytes:
        """Return head, data and padding to 8 bytes."""
        padding = -len(self.data) % _ALIGNMENT
        return _HEAD.pack(self.kind, len(self.data)) + self.data + bytes(padding)


def pack_extensions(extensions: Iterable[HeaderExtension]) -> bytes:
    """Return the extension area with its end mark."""
    return b"".join(e.pack() for e in extensions) + _HEAD.pack(ExtensionKind.END, 0)


def unpack_extensions(raw: bytes, *, start: int, end: int) -> Iterator[HeaderExtension]:
    """Yield the extensions that lie between `start` and `end` in the first bytes of a file.

    Args:
        raw: the file from its first byte to `end` at least, or to its end.
        start: where the fixed header ends.
        end: where the area ends: at the backing file's name, else with the first cluster.

    Raises:
        CorruptImage: an extension reaches over the end of the area.
    """
    at, end = start, min(end, len(raw))
    while at + _HEAD.size <= end:
        kind, length = _HEAD.unpack_from(raw, at)
        if kind == ExtensionKind.END:
            return
        data = at + _HEAD.size
        if length > end - data:
            raise CorruptImage(
                f"header extension 0x{kind:08x} says {length} bytes, room is for {end - data}",
                offset=at,
            )
        yield HeaderExtension(kind, raw[data : data + length], data)
        at = data + align_up(length, _ALIGNMENT)
