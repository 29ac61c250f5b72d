"""An index over the files that describe operating systems, so that none is read twice.

osinfo-db is a thousand small files, and reading them takes a third of a second. Their meaning is
kept in one file below the cache directory: a header that says what was read and where in the file
each system stands, then one JSON text per system, the list of all, and all discs. A command reads
the header and the one system it asks for.

The index counts as long as what it was made of is unchanged: of directories the time of their last
change, which a package's upgrade moves, and of files outside of packages their own time and size
too, because people edit those in place; thinvirt's own code that reads them is among the files. An
index that is damaged or of another form is made anew and replaced by rename; where nothing can be
written, it is made in memory each time.
"""

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from typing import Any, Final

FORMAT: Final = 1  # raise it whenever the meaning of an index changes
_MAGIC = "thinvirt-os-index"
_MAX_FIRST_LINE = 100

Stamp = tuple[str, int, int, int]  # path, mtime in ns, size (0 for a directory), inode


@dataclass(frozen=True, slots=True)
class Section:
    """Where one JSON text stands, counted from the header's end."""

    offset: int
    length: int
    checksum: int


class Damaged(Exception):
    """The index is not what was written; it never leaves this room."""


class OsIndex:
    """An index in memory: its header, and its sections from a file or as bytes."""

    def __init__(self, header: dict[str, Any], body: bytes | None, file: Path, base: int) -> None:
        self._header = header
        self._body = body
        self._file = file
        self._base = base

    @property
    def names(self) -> dict[str, int]:
        """Every short id and id, with the number of its system."""
        names: dict[str, int] = self._header["names"]
        return names

    @property
    def notes(self) -> list[str]:
        """What people should know of how it was made."""
        notes: list[str] = self._header["notes"]
        return notes

    def read(self, name: str) -> Any:
        """Return the value of a section.

        Raises:
            Damaged: it is not what was written.
        """
        try:
            section = Section(*self._header["sections"][name])
        except (KeyError, TypeError) as error:
            raise Damaged(name) from error
        if self._body is not None:
            raw = self._body[section.offset : section.offset + section.length]
        else:
            try:
                with self._file.open("rb") as file:
                    file.seek(self._base + section.offset)
                    raw = file.read(section.length)
            except OSError as error:
                raise Damaged(str(error)) from error
        if len(raw) != section.length or zlib.crc32(raw) != section.checksum:
            raise Damaged(name)
        return json.loads(raw)


def stamp(path: Path | str) -> Stamp:
    """Return what tells whether a file or directory has changed; -1 if it is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116 (a hundred of them, and a Path costs as much again)
    except OSError:
        return (str(path), -1, -1, -1)
    directory = (found.st_mode & 0o170000) == 0o040000
    size = 0 if directory else found.st_size
    return (str(path), found.st_mtime_ns, size, found.st_ino)


def build(
    *,
    stamps: Iterable[Stamp],
    names: dict[str, int],
    sections: dict[str, Any],
    notes: Sequence[str],
    file: Path,
) -> OsIndex:
    """Return an index of `sections`, and keep it in `file` if that can be written."""
    parts = []
    places = {}
    offset = 0
    for name, value in sections.items():
        raw = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        places[name] = (offset, len(raw), zlib.crc32(raw))
        parts.append(raw)
        offset += len(raw)
    header = {
        "stamps": [list(one) for one in stamps],
        "names": names,
        "sections": places,
        "notes": list(notes),
    }
    body = b"".join(parts)
    _keep(file, header, body)
    return OsIndex(header, body, file, 0)


def _keep(file: Path, header: dict[str, Any], body: bytes) -> None:
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    first = f"{_MAGIC} {FORMAT} {len(raw)} {zlib.crc32(raw)}\n".encode()
    draft = file.with_name(f"{file.name}.{os.getpid()}-{get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(first + raw + body)
        draft.rename(file)
    except OSError:
        with suppress(OSError):  # no place to keep it: the next command makes it anew
            draft.unlink(missing_ok=True)


def load(file: Path) -> OsIndex | None:
    """Return the index kept in `file`; None if there is none that still counts."""
    try:
        with file.open("rb") as source:
            first = source.readline(_MAX_FIRST_LINE).decode("ascii").split()
            magic, written, length, checksum = first
            if (magic, written) != (_MAGIC, str(FORMAT)):
                return None
            raw = source.read(int(length))
            base = source.tell()
        if len(raw) != int(length) or zlib.crc32(raw) != int(checksum):
            return None
        header = json.loads(raw)
    except (OSError, ValueError):
        return None
    unchanged = all(list(stamp(kept[0])) == kept for kept in header["stamps"])
    return OsIndex(header, None, file, base) if unchanged else None
