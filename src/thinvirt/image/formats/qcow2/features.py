"""Feature bits of a version 3 header, and their names (qcow2 spec, "Feature name table")."""

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

from thinvirt.image.formats.qcow2.layout import FEATURE_NAMES, FEATURE_ROW
from thinvirt.image.formats.text import printable


class Incompatible(IntFlag):
    """Who does not know one of these must not open the image."""

    DIRTY = 1 << 0  # refcounts may be stale (lazy refcounts, and no clean close)
    CORRUPT = 1 << 1
    EXTERNAL_DATA = 1 << 2  # guest data lies in another file
    COMPRESSION_TYPE = 1 << 3  # compressed with something other than deflate
    EXTENDED_L2 = 1 << 4  # L2 entries of 16 bytes: allocation by subclusters


class Compatible(IntFlag):
    """Who does not know one of these can ignore it."""

    LAZY_REFCOUNTS = 1 << 0


class Autoclear(IntFlag):
    """Who does not know one of these must clear it when writing."""

    BITMAPS = 1 << 0  # the bitmaps extension is consistent
    RAW_EXTERNAL_DATA = 1 << 1


KNOWN_INCOMPATIBLE = int(~Incompatible(0))


class FeatureKind(IntEnum):
    """Which of the three bit fields a name belongs to."""

    INCOMPATIBLE = 0
    COMPATIBLE = 1
    AUTOCLEAR = 2


class Feature(NamedTuple):
    """One row of the feature name table."""

    kind: int
    bit: int
    name: str


NAMES = tuple(Feature(*row) for row in FEATURE_NAMES)


def pack_names(names: tuple[Feature, ...] = NAMES) -> bytes:
    """Return the feature name table's bytes."""
    return b"".join(FEATURE_ROW.pack(kind, bit, name.encode()) for kind, bit, name in names)


def unpack_names(raw: bytes) -> Iterator[Feature]:
    """Yield the rows of a feature name table; a part of a row at the end is ignored, as by QEMU."""
    for kind, bit, name in FEATURE_ROW.iter_unpack(raw[: len(raw) - len(raw) % FEATURE_ROW.size]):
        text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
        yield Feature(kind, bit, printable(text))


def unknown_incompatible(bits: int, name_table: bytes) -> list[str]:
    """Name, by the image's own table, the incompatible features that are not known here."""
    names = {
        feature.bit: feature.name
        for feature in unpack_names(name_table)
        if feature.kind == FeatureKind.INCOMPATIBLE and feature.name
    }
    unknown = bits & ~KNOWN_INCOMPATIBLE
    return [
        f"'{names[bit]}'" if bit in names else f"incompatible feature bit {bit}"
        for bit in range(unknown.bit_length())
        if unknown >> bit & 1
    ]
