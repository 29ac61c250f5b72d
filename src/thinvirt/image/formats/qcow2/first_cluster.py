"""The first cluster: header, header extensions, and the backing file's name behind them."""

from dataclasses import dataclass
from typing import Self

from thinvirt.errors import CorruptImage
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.extensions import (
    ExtensionKind,
    HeaderExtension,
    unpack_extensions,
)
from thinvirt.image.formats.qcow2.header import FIELD_OFFSET, Header
from thinvirt.image.formats.qcow2.validate import check_cluster_bits
from thinvirt.image.formats.text import name_of


@dataclass(frozen=True, slots=True)
class FirstCluster:
    """What can be known of an image without reading a table.

    Attributes:
        header: the fixed fields.
        extensions: in file order, unknown ones included.
        backing_name: as stored; empty for none.
    """

    header: Header
    extensions: tuple[HeaderExtension, ...]
    backing_name: str

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the first cluster from the first bytes of a file.

        Args:
            raw: the file's beginning: `limits.MAX_HEADER_READ` bytes, or the whole file if shorter.

        Raises:
            CorruptImage: lengths and places that cannot be, or an extension that stands twice.
            UnsupportedFeature: an unknown version.
        """
        header = Header.unpack(raw)
        check_cluster_bits(header)
        raw = raw[: header.geometry.cluster_size]
        name = _backing_name(header, raw)
        end = header.backing_file_offset or len(raw)
        extensions = tuple(unpack_extensions(raw, start=header.header_length, end=end))
        known = [e for e in extensions if e.kind in ExtensionKind.__members__.values()]
        for extension in known:
            if sum(other.kind == extension.kind for other in known) > 1:
                raise CorruptImage(
                    f"header extension 0x{extension.kind:08x} stands twice", offset=extension.offset
                )
        return cls(header, extensions, name)

    def extension(self, kind: ExtensionKind) -> HeaderExtension | None:
        """Return the extension of this kind, None if there is none."""
        return next((e for e in self.extensions if e.kind == kind), None)

    @property
    def backing_format(self) -> str:
        """The backing file's recorded format; empty if it is not recorded."""
        extension = self.extension(ExtensionKind.BACKING_FORMAT)
        return name_of(extension.data) if extension else ""


def _backing_name(header: Header, raw: bytes) -> str:
    offset, size = header.backing_file_offset, header.backing_file_size
    if offset == 0:
        return ""
    room = len(raw) - offset
    if not 0 < size <= min(room, limits.MAX_BACKING_NAME) or offset < header.header_length:
        raise CorruptImage(
            f"a backing file name of {size} bytes at byte {offset} cannot be: it follows the "
            f"header, within the first cluster, and has at most {limits.MAX_BACKING_NAME} bytes",
            offset=FIELD_OFFSET["backing_file_offset"],
        )
    return name_of(raw[offset : offset + size])
