"""What thinvirt knows of operating systems: osinfo-db's files, our own additions, a user's.

Read like libosinfo does (osinfo_loader.c), in this order; a file in a later directory replaces the
one of the same name in an earlier one, with its ``.d`` directory:

1. ``$OSINFO_SYSTEM_DIR``, else /usr/share/osinfo: the package osinfo-db
2. ``$OSINFO_LOCAL_DIR``, else /etc/osinfo
3. ``$OSINFO_USER_DIR``, else ~/.config/osinfo

Then thinvirt's own: systems newer than the package (only where the above do not know them),
/etc/thinvirt/os.toml and ~/.config/thinvirt/os.toml.
"""

import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from thinvirt.errors import NotFound, ThinvirtError
from thinvirt.service.os_index import Damaged, OsIndex, Stamp, build, load, stamp
from thinvirt.store.layout import cache_home
from thinvirt.vm.osinfo.codec import (
    pack_media,
    pack_os,
    pack_tree,
    unpack_media,
    unpack_os,
    unpack_tree,
)
from thinvirt.vm.osinfo.media import (
    DESCRIPTORS_AT,
    DESCRIPTORS_BYTES,
    MediaEntry,
    VolumeIds,
    detect,
    detect_tree,
    parse_descriptors,
    parse_treeinfo,
)
from thinvirt.vm.osinfo.records import Device, Media, OsInfo

if TYPE_CHECKING:
    from thinvirt.vm.osinfo.fragments import OsRecord

PACKAGED: Final = Path("/usr/share/osinfo")
OURS: Final = Path(__file__).parents[1] / "data" / "os.toml"
SYSTEM_FILE: Final = Path("/etc/thinvirt/os.toml")
USER_FILE: Final = "os.toml"
MISSING_NOTE: Final = (
    "osinfo-db is not installed, so few operating systems are known: apt-get install osinfo-db"
)
_READERS: Final = Path(__file__).parents[1] / "vm" / "osinfo"  # a change in them makes all anew
_KINDS = ("os", "device")  # the folders of a database that matter here


@dataclass(frozen=True, slots=True)
class OsSummary:
    """One line of the list of systems."""

    short_id: str
    aliases: tuple[str, ...]
    name: str
    family: str
    release_date: str
    eol_date: str
    past: bool
    id: str


@dataclass(frozen=True, slots=True)
class Detected:
    """What a disc turned out to be.

    Attributes:
        os: the system; `media` the entry that fits, with the paths of kernel and initrd.
        ids: what the disc says of itself.
        exact: False if it fits but for its size: a respin that the database does not know.
        others: short ids of further systems that fit as well.
    """

    os: OsInfo
    media: Media
    ids: VolumeIds
    exact: bool
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DetectedTree:
    """What an installation tree turned out to be, with the paths of kernel and initrd in it."""

    os: OsInfo
    architecture: str
    kernel: str
    initrd: str


@dataclass(frozen=True, slots=True)
class Places:
    """Where knowledge is read from, in order."""

    databases: tuple[Path, ...]
    files: tuple[Path, ...]


def places(environment: Mapping[str, str] | None = None) -> Places:
    """Return the directories and files, those that may be missing too.

    Args:
        environment: None: the process's own.
    """
    env = os.environ if environment is None else environment
    config = env.get("XDG_CONFIG_HOME", "")
    base = Path(config) if config.startswith("/") else Path("~/.config").expanduser()
    return Places(
        databases=(
            Path(env.get("OSINFO_SYSTEM_DIR") or PACKAGED),
            Path(env.get("OSINFO_LOCAL_DIR") or "/etc/osinfo"),
            Path(env.get("OSINFO_USER_DIR") or base / "osinfo"),
        ),
        files=(OURS, SYSTEM_FILE, base / "thinvirt" / USER_FILE),
    )


class OsKnowledge:
    """Asks an index, and makes it anew where it is missing, outdated or damaged.

    Args:
        where: None: `places()`.
        cache_dir: None: thinvirt's cache directory.
    """

    def __init__(self, where: Places | None = None, *, cache_dir: Path | None = None) -> None:
        self._places = places() if where is None else where
        key = "\n".join(str(path) for path in (*self._places.databases, *self._places.files))
        name = f"os-{zlib.crc32(key.encode()):08x}.index"
        self._file = (cache_home() if cache_dir is None else cache_dir) / name
        self._index = load(self._file) or self._make()

    @property
    def notes(self) -> list[str]:
        """What people should know: the database is missing, or files in it cannot be read."""
        return self._index.notes

    def find(self, name: str) -> OsInfo:
        """Return the system of that short id or id.

        Raises:
            NotFound: there is none; the hint has the near ones.
        """
        number = self._index.names.get(name)
        if number is None:
            number = self._index.names.get(name.lower())
        if number is None:
            raise NotFound(
                f"no operating system '{name}' is known", hint=near(name, self._index.names)
            )
        return unpack_os(self._read(f"os {number}"))

    def has(self, name: str) -> bool:
        """Return whether a short id or id is known."""
        return name in self._index.names

    def summaries(self, *, today: str) -> list[OsSummary]:
        """Return all systems, sorted by short id as people count.

        Args:
            today: ISO date, to tell whose support has ended.
        """
        found = []
        for values in self._read("list"):
            short_ids, name, family, status, release, end, full_id = values
            info = OsInfo(
                id=full_id,
                short_ids=tuple(short_ids),
                name=name,
                release_date=release,
                eol_date=end,
                status=status,
            )
            found.append(
                OsSummary(
                    info.short_id,
                    info.short_ids[1:],
                    name,
                    family,
                    release,
                    end,
                    info.is_past(today),
                    full_id,
                )
            )
        from thinvirt.vm.checksums import natural_order

        return sorted(found, key=lambda summary: natural_order(summary.short_id))

    def detect(self, iso: Path) -> Detected:
        """Return what an ISO image is a disc of.

        Raises:
            NotFound: the file is not there, or no entry fits it.
            NotIso: it is no ISO 9660 image.
            ThinvirtError: it cannot be read.
        """
        ids = volume_ids(iso)
        entries = [unpack_media(packed) for packed in self._read("media")]
        found = exactly = detect(ids, entries)
        if not found:
            found = detect(ids, entries, any_size=True)
        if not found:
            raise NotFound(
                f"no known operating system has a disc with the volume id '{ids.volume}'",
                path=iso,
                hint="name the system: thinvirt advise --list",
            )
        others = dict.fromkeys(self.find(entry.os_id).short_id for entry in found[1:])
        best = self.find(found[0].os_id)
        others.pop(best.short_id, None)
        return Detected(best, found[0].media, ids, bool(exactly), tuple(others))

    def detect_tree(self, treeinfo: str) -> DetectedTree | None:
        """Return what an installation tree is of; None if no entry fits it.

        Args:
            treeinfo: the text of its ``.treeinfo``.
        """
        said = parse_treeinfo(treeinfo)
        found = detect_tree(said, (unpack_tree(packed) for packed in self._read("trees")))
        if not said or not found:
            return None
        os_id, tree = found[0]
        return DetectedTree(self.find(os_id), tree.architecture, tree.kernel, tree.initrd)

    def _read(self, section: str) -> Any:
        try:
            return self._index.read(section)
        except Damaged:
            self._index = self._make()
            return self._index.read(section)

    def _make(self) -> OsIndex:
        return _Reading(self._places).index(self._file)


def volume_ids(iso: Path) -> VolumeIds:
    """Return what the primary volume descriptor of an ISO image says.

    Raises:
        NotFound: the file is not there.
        NotIso: it is no ISO 9660 image.
        ThinvirtError: it cannot be read.
    """
    try:
        with iso.open("rb") as file:
            file.seek(DESCRIPTORS_AT)
            raw = file.read(DESCRIPTORS_BYTES)
    except FileNotFoundError:
        raise NotFound("there is no such file", path=iso) from None
    except OSError as error:
        raise ThinvirtError(f"cannot be read: {error.strerror}", path=iso) from error
    try:
        return parse_descriptors(raw)
    except ThinvirtError as error:
        error.path = iso
        raise


def near(name: str, names: Mapping[str, int]) -> str:
    """Return a hint with ids like `name`: those it begins, newest first, else those alike."""
    from difflib import get_close_matches  # only on the way to an error

    from thinvirt.vm.checksums import natural_order

    wanted = "".join(name.lower().split()).replace("-", "")
    short_ids = [known for known in names if ":" not in known]
    begun = [known for known in short_ids if known.replace("-", "").startswith(wanted)]
    begun.sort(key=natural_order, reverse=True)
    alike = begun or get_close_matches(wanted, short_ids, n=3, cutoff=0.6)
    suggestion = f"did you mean {' or '.join(alike[:3])}? " if wanted and alike else ""
    return f"{suggestion}all: thinvirt advise --list"


class _Reading:
    """One pass over all files."""

    def __init__(self, where: Places) -> None:
        self.where = where
        self.stamps: list[Stamp] = [stamp(file) for file in sorted(_READERS.glob("*.py"))]
        self.notes: list[str] = []

    def index(self, file: Path) -> OsIndex:
        """Return an index of everything, kept in `file` if possible."""
        # Pure, but slow to import: only whoever makes an index pays.
        from thinvirt.vm.osinfo.merging import merge_fragments, resolve

        devices: dict[str, Device] = {}
        records = merge_fragments(self._database_records(devices))
        from_databases = set(records)
        if not records:
            self.notes.append(MISSING_NOTE)
        user_ids = self._add_files(records)
        names: dict[str, int] = {}
        sections: dict[str, Any] = {}
        listed, media, trees = [], [], []
        for number, record in enumerate(records.values()):
            source = "osinfo-db" if record.id in from_databases else "built in"
            source = user_ids.get(record.id, source)
            info = resolve(record, records, devices, source=source)
            sections[f"os {number}"] = pack_os(info)
            for name in (info.id, *info.short_ids):
                names.setdefault(name, number)
            listed.append(
                [
                    info.short_ids or [info.id],
                    info.name,
                    info.family,
                    info.status,
                    info.release_date,
                    info.eol_date,
                    info.id,
                ]
            )
            rolling = info.status == "rolling"
            media += [
                pack_media(MediaEntry(info.id, disc, info.release_date, rolling))
                for disc in record.media
            ]
            trees += [pack_tree(info.id, info.release_date, tree) for tree in record.trees]
        sections["list"] = listed
        sections["trees"] = trees
        sections["media"] = media
        return build(
            stamps=self.stamps,
            names=names,
            sections=sections,
            notes=self.notes,
            file=file,
        )

    def _database_records(self, devices: dict[str, Device]) -> Iterator["OsRecord"]:
        from thinvirt.vm.osinfo.parse import BadFragment, parse_fragment

        for key, files in self._groups().items():
            for file in files:
                try:
                    fragment = parse_fragment(file.read_bytes())
                except OSError as error:
                    self.notes.append(f"{file} cannot be read: {error.strerror}")
                    continue
                except BadFragment as error:
                    self.notes.append(f"{file} is passed over: {error}")
                    continue
                for device in fragment.devices:
                    devices[device.id] = device
                for system in fragment.systems:
                    if place_of(system.id) == key:
                        yield system
                    else:
                        self.notes.append(
                            f"{file} is passed over: {system.id} belongs in "
                            f"{place_of(system.id)}.xml or {place_of(system.id)}.d"
                        )

    def _groups(self) -> dict[str, list[Path]]:
        """Return the files by entity, ``os/DOMAIN/NAME``: its own file, then its extensions."""
        groups: dict[str, list[Path]] = {}
        for root in self.where.databases:
            own: dict[str, list[Path]] = {}
            replaced = set()
            self.stamps.append(stamp(root))
            for kind in _KINDS:
                for file in self._files(root / kind, packaged=root == PACKAGED):
                    folder = file.parent.relative_to(root)
                    extension = folder.name.endswith(".d")
                    key = str(folder)[:-2] if extension else str(folder / file.stem)
                    if extension:
                        own.setdefault(key, []).append(file)
                    else:
                        own.setdefault(key, []).insert(0, file)
                        replaced.add(key)
            for key, files in own.items():
                groups[key] = files if key in replaced else groups.get(key, []) + files
        return groups

    def _files(self, folder: Path, *, packaged: bool) -> Iterator[Path]:
        self.stamps.append(stamp(folder))
        try:
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self.notes.append(f"{folder} cannot be read: {error.strerror}")
            return
        for entry in entries:
            if entry.is_dir():
                yield from self._files(folder / entry.name, packaged=packaged)
            elif entry.name.endswith(".xml"):
                if not packaged:
                    self.stamps.append(stamp(entry.path))
                yield folder / entry.name

    def _add_files(self, records: "dict[str, OsRecord]") -> dict[str, str]:
        """Add thinvirt's own and the users' files; return which system is from which of them."""
        from thinvirt.vm.osinfo.merging import merge_fragments
        from thinvirt.vm.osinfo.user_file import parse_user_file

        sources = {}
        for file in self.where.files:
            self.stamps.append(stamp(file))
            try:
                text = file.read_text(encoding="utf-8")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise ThinvirtError(f"cannot be read: {error}", path=file) from error
            known = {name: record.id for record in records.values() for name in record.short_ids}
            declared = parse_user_file(text, file, known)
            if file == OURS:
                # The database's own word on a system is newer than ours, or better known.
                declared = [one for one in declared if one.id not in records]
            else:
                sources.update(dict.fromkeys((one.id for one in declared), str(file)))
            records.update(merge_fragments((*records.values(), *declared)))
            if file != OURS:
                self.notes += [
                    f"{file}: os.{one.short_ids[0]} is like a system that is not known"
                    for one in declared
                    if any(relative not in records for relative in one.derives_from)
                ]
        return sources


def place_of(entity: str) -> str:
    """Return where a database keeps a system, without suffix: ``os/debian.org/debian-12``."""
    bare = entity.removeprefix("http://")
    domain, slash, rest = bare.partition("/")
    plain = "".join(c if (c.isascii() and c.isalnum()) or c in "-._" else "-" for c in rest)
    host = "".join(c if (c.isascii() and c.isalnum()) or c in "-._" else "-" for c in domain)
    return f"os/{host}{slash}{plain}"
