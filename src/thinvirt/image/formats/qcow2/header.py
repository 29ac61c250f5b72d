"""The fixed header of versions 2 and 3 (qcow2 spec, "Header")."""

from dataclasses import dataclass
from typing import Self

from thinvirt.errors import CorruptImage, UnsupportedFeature
from thinvirt.image.formats.qcow2.features import Incompatible
from thinvirt.image.formats.qcow2.geometry import Geometry
from thinvirt.image.formats.qcow2.layout import (
    COMPRESSION,
    FIELD_OFFSET,
    MAGIC,
    V2,
    V2_FIELDS,
    V2_LENGTH,
    V3,
    V3_FIELDS,
    V3_LENGTH,
    V3_MIN_LENGTH,
)

__all__ = ["FIELD_OFFSET", "MAGIC", "V2_LENGTH", "V3_LENGTH", "V3_MIN_LENGTH", "Header"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The header's fields. Offsets and sizes are bytes of the image file unless said otherwise."""

    version: int = 3
    backing_file_offset: int = 0
    backing_file_size: int = 0
    cluster_bits: int
    virtual_size: int  # bytes of the guest's disk
    crypt_method: int = 0
    l1_entries: int
    l1_table_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    snapshot_count: int = 0
    snapshots_offset: int = 0
    incompatible_features: int = 0
    compatible_features: int = 0
    autoclear_features: int = 0
    refcount_order: int = 4
    header_length: int = V3_LENGTH
    compression_type: int = 0
    unknown_fields: bytes = b""  # what a later version of the format put after ours

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read the header from the first bytes of a file.

        Only what is needed to find the fields is checked here; see `validate` for the rest.

        Raises:
            CorruptImage: no qcow2, or the file ends within the header.
            UnsupportedFeature: a version other than 2 and 3.
        """
        if not raw.startswith(MAGIC):
            raise CorruptImage("not a qcow2 image: the magic number is missing", offset=0)
        if len(raw) < V2_LENGTH:
            raise CorruptImage(f"the file ends within the header, after {len(raw)} bytes")
        names = [name for name, _ in V2_FIELDS]
        values = dict(zip(names[1:], V2.unpack_from(raw)[1:], strict=True))
        version = values["version"]
        if version == 2:
            return cls(**values, header_length=V2_LENGTH)
        if version != 3:
            raise UnsupportedFeature(
                f"qcow2 version {version} is not known; versions 2 and 3 are",
                offset=FIELD_OFFSET["version"],
            )
        if len(raw) < V3_MIN_LENGTH:
            raise CorruptImage(f"the file ends within the header, after {len(raw)} bytes")
        names = [name for name, _ in V3_FIELDS]
        values |= dict(zip(names, V3.unpack_from(raw, V2_LENGTH), strict=True))
        length = values["header_length"]
        if length < V3_MIN_LENGTH or length % 8 or length > len(raw):
            raise CorruptImage(
                f"header length {length} is impossible: it is a multiple of 8, at least "
                f"{V3_MIN_LENGTH}, and within the first cluster",
                offset=FIELD_OFFSET["header_length"],
            )
        compression, unknown = 0, b""
        if length > V3_MIN_LENGTH:
            (compression,) = COMPRESSION.unpack_from(raw, V3_MIN_LENGTH)
            unknown = raw[V3_LENGTH:length]
        return cls(**values, compression_type=compression, unknown_fields=unknown)

    def pack(self) -> bytes:
        """Return the header's bytes: 72 for version 2, else `header_length`."""
        fields = [getattr(self, name) for name, _ in V2_FIELDS[1:]]
        raw = V2.pack(MAGIC, *fields)
        if self.version == 2:
            return raw
        raw += V3.pack(*(getattr(self, name) for name, _ in V3_FIELDS))
        if self.header_length > V3_MIN_LENGTH:
            raw += COMPRESSION.pack(self.compression_type) + self.unknown_fields
        return raw

    @property
    def geometry(self) -> Geometry:
        """The sizes that follow; meaningful once `cluster_bits` has been checked."""
        return Geometry(self.cluster_bits, self.extended_l2, self.refcount_order)

    @property
    def extended_l2(self) -> bool:
        """Whether L2 entries are 16 bytes, with 32 subclusters each."""
        return bool(self.incompatible_features & Incompatible.EXTENDED_L2)
