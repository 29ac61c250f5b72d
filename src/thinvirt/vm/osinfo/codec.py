"""Systems and discs as JSON-ready lists and back, for an index that is read in a millisecond."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from thinvirt.vm.osinfo.media import MediaEntry
from thinvirt.vm.osinfo.records import (
    Device,
    Firmware,
    Kin,
    Media,
    OsInfo,
    PublishedImage,
    Resources,
)

if TYPE_CHECKING:
    from thinvirt.vm.osinfo.fragments import Tree

_Record = TypeVar("_Record", Device, Firmware, Kin, Media, PublishedImage, Resources, "Tree")
_PARTS: dict[str, type] = {
    "kin": Kin,
    "devices": Device,
    "firmware": Firmware,
    "resources": Resources,
    "images": PublishedImage,
}


def pack_os(info: OsInfo) -> dict[str, Any]:
    """Return what differs from the defaults, JSON-ready; nested records as lists of values."""
    packed = {}
    for field in fields(OsInfo):
        value = getattr(info, field.name)
        if value != field.default:
            packed[field.name] = [_pack(part) for part in value] if field.name in _PARTS else value
    return packed


def unpack_os(packed: dict[str, Any]) -> OsInfo:
    """Return the system that `pack_os` described.

    Raises:
        TypeError, ValueError: it is not of that form.
    """
    values: dict[str, Any] = {}
    for name, value in packed.items():
        if name in _PARTS:
            values[name] = tuple(_unpack(_PARTS[name], part) for part in value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return OsInfo(**values)


def pack_media(entry: MediaEntry) -> list[Any]:
    """Return a disc and what ranks it as a list, JSON-ready."""
    return [entry.os_id, entry.release_date, entry.rolling, *_pack(entry.media)]


def unpack_media(packed: list[Any]) -> MediaEntry:
    """Return the disc that `pack_media` described.

    Raises:
        TypeError, ValueError: it is not of that form.
    """
    os_id, release_date, rolling, *values = packed
    return MediaEntry(os_id, _unpack(Media, values), release_date, rolling)


def pack_tree(os_id: str, release_date: str, tree: "Tree") -> list[Any]:
    """Return an installation tree and what ranks it as a list, JSON-ready."""
    return [os_id, release_date, *_pack(tree)]


def unpack_tree(packed: list[Any]) -> tuple[str, str, "Tree"]:
    """Return the tree that `pack_tree` described: id and release date of its system, and it.

    Raises:
        TypeError, ValueError: it is not of that form.
    """
    from thinvirt.vm.osinfo.fragments import Tree

    os_id, release_date, *values = packed
    return os_id, release_date, _unpack(Tree, values)


def _pack(record: _Record) -> list[Any]:
    return [getattr(record, field.name) for field in fields(record)]


def _unpack(kind: type[_Record], values: list[Any]) -> _Record:
    parts: list[Any] = [tuple(value) if isinstance(value, list) else value for value in values]
    return kind(*parts)
