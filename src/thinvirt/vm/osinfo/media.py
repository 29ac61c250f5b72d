"""Which system an installation disc or tree is of.

An ISO is known by its primary volume descriptor (ECMA-119, section 8.4) alone: osinfo-db has
regular expressions for its volume, system, publisher and application identifiers, and sizes where
only these tell editions apart. Several entries may fit; the most telling one comes first.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from thinvirt.errors import ThinvirtError
from thinvirt.vm.osinfo.records import ALL_ARCHITECTURES, Media

if TYPE_CHECKING:
    from thinvirt.vm.osinfo.fragments import Tree

SECTOR: Final = 2048
DESCRIPTORS_AT: Final = 16 * SECTOR
DESCRIPTORS_BYTES: Final = 2 * SECTOR  # the primary one, and the El Torito boot record after it
_STANDARD_ID = b"CD001"
_PRIMARY, _BOOT_RECORD = 1, 0
_EL_TORITO = b"EL TORITO SPECIFICATION"
# For `literal_of`: a plain character; a simple class; what is not looked into; an atom.
_PLAIN = re.compile(r"[A-Za-z0-9 _/:&,-]")
_CLASS = re.compile(r"\[\^?[^\]\[\\()]+\]")
_UNSURE = re.compile(r"\(\?|[\[\]{]|\\[^dwsDWSbB.()*+?/-]|\\$")
_ATOM = re.compile(r"(?P<atom>\\.|.|\n)(?P<quantifier>[*+?]?)", re.DOTALL)


class NotIso(ThinvirtError):
    """The file has no ISO 9660 volume descriptor where one must be."""

    kind = "not-iso"


@dataclass(frozen=True, slots=True)
class VolumeIds:
    """What an ISO's primary volume descriptor says; `size` is that of the volume in bytes."""

    volume: str
    system: str
    publisher: str
    application: str
    size: int
    bootable: bool


@dataclass(frozen=True, slots=True)
class MediaEntry:
    """A disc of the database, with the system it is of and what ranks it among others."""

    os_id: str
    media: Media
    release_date: str = ""
    rolling: bool = False


def parse_descriptors(raw: bytes) -> VolumeIds:
    """Return what an ISO's descriptors say.

    Args:
        raw: its bytes from `DESCRIPTORS_AT`, `DESCRIPTORS_BYTES` of them; the second sector may
            be missing.

    Raises:
        NotIso: there is no primary volume descriptor.
    """
    if len(raw) < SECTOR or raw[1:6] != _STANDARD_ID or raw[0] != _PRIMARY:
        raise NotIso(
            "not an ISO 9660 image: there is no primary volume descriptor",
            hint="name the system instead of the disc: thinvirt advise --list",
        )
    blocks = int.from_bytes(raw[80:84], "little")
    block_size = int.from_bytes(raw[128:130], "little")
    boot = raw[SECTOR : 2 * SECTOR]
    return VolumeIds(
        volume=_identifier(raw[40:72]),
        system=_identifier(raw[8:40]),
        publisher=_identifier(raw[318:446]),
        application=_identifier(raw[574:702]),
        size=blocks * block_size,
        bootable=boot[1:6] == _STANDARD_ID
        and boot[0] == _BOOT_RECORD
        and boot[7:39].startswith(_EL_TORITO),
    )


def _identifier(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace").rstrip()


def matches(ids: VolumeIds, media: Media, *, any_size: bool = False) -> bool:
    """Return whether a disc is the one that an entry describes; `any_size`: size apart."""
    patterns = (
        (media.volume_id, ids.volume),
        (media.system_id, ids.system),
        (media.publisher_id, ids.publisher),
        (media.application_id, ids.application),
    )
    if not any(pattern for pattern, _ in patterns) and (any_size or not media.volume_size):
        return False
    if media.volume_size and media.volume_size != ids.size and not any_size:
        return False
    # Compiling a pattern takes a hundred times as long as finding that a text lacks its literals.
    if not all(literal_of(pattern) in text for pattern, text in patterns if pattern):
        return False
    return all(_found(pattern, text) for pattern, text in patterns if pattern)


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):
        return False  # a pattern that is none fits nothing


def literal_of(pattern: str) -> str:
    """Return a text that must stand in whatever a regular expression matches; "" if unsure.

    Only what is plain outside of groups, classes and quantifiers counts; any construct that might
    mean more than it seems to makes the answer "".
    """
    bare = _CLASS.sub("\n", pattern)
    if _UNSURE.search(bare):
        return ""
    best = current = ""
    depth = 0
    for match in _ATOM.finditer(bare):
        atom, quantifier = match["atom"], match["quantifier"]
        if atom == "|" and depth == 0:
            return ""
        depth += (atom == "(") - (atom == ")")
        plain = depth == 0 and not quantifier and _PLAIN.fullmatch(atom)
        current = current + atom if plain else ""
        if len(current) > len(best):
            best = current
    return best


def detect(
    ids: VolumeIds, entries: Iterable[MediaEntry], *, any_size: bool = False
) -> list[MediaEntry]:
    """Return the entries that fit a disc, the most telling one first.

    With `any_size`, sizes do not matter: later respins of a release have the same identifiers, and
    a database that was made before them has not their sizes.

    An exact size tells more than none, a certain architecture more than "all", a release more
    than a rolling system, a longer pattern more than a short one, and a later release more than
    an earlier one.
    """

    def rank(entry: MediaEntry) -> tuple[bool, bool, bool, int, str, str]:
        media = entry.media
        return (
            bool(media.volume_size),
            media.architecture != ALL_ARCHITECTURES,
            not entry.rolling,
            len(media.volume_id),
            entry.release_date,
            entry.os_id,
        )

    fitting = (entry for entry in entries if matches(ids, entry.media, any_size=any_size))
    return sorted(fitting, key=rank, reverse=True)


def parse_treeinfo(text: str) -> dict[str, str]:
    """Return family, variant, version and arch of a tree's ``.treeinfo``; {} if it has none."""
    import configparser  # only for installation trees

    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    if not parser.has_section("general"):
        return {}
    general = parser["general"]
    return {key: general.get(key, "") for key in ("family", "variant", "version", "arch")}


def tree_matches(treeinfo: Mapping[str, str], tree: "Tree") -> bool:
    """Return whether a tree's ``.treeinfo`` is the one that an entry describes."""
    patterns = (
        (tree.treeinfo_family, treeinfo.get("family", "")),
        (tree.treeinfo_variant, treeinfo.get("variant", "")),
        (tree.treeinfo_version, treeinfo.get("version", "")),
        (tree.treeinfo_arch, treeinfo.get("arch", "")),
    )
    if not any(pattern for pattern, _ in patterns):
        return False
    architecture = treeinfo.get("arch", "")
    if architecture and tree.architecture not in (architecture, ALL_ARCHITECTURES):
        return False
    return all(_found(pattern, text) for pattern, text in patterns if pattern)


def detect_tree(
    treeinfo: Mapping[str, str], entries: Iterable[tuple[str, str, "Tree"]]
) -> list[tuple[str, "Tree"]]:
    """Return the systems a tree may be of with their entries, the most telling first.

    Args:
        treeinfo: what `parse_treeinfo` returned.
        entries: id and release date of a system, and its entry.
    """
    fitting = [entry for entry in entries if tree_matches(treeinfo, entry[2])]
    fitting.sort(key=lambda entry: (len(entry[2].treeinfo_version), entry[1]), reverse=True)
    return [(os_id, tree) for os_id, _, tree in fitting]
