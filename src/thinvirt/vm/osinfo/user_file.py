"""Systems declared in TOML: ours that are newer than a database, and a user's own.

One table per system, ``[os.NAME]``; docs/guide/operating-systems.md has every key. A name that a
database knows adds to that system, as a fragment would.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from thinvirt.errors import UsageError
from thinvirt.units import parse_size
from thinvirt.vm.osinfo.fragments import DeviceLink, OsRecord
from thinvirt.vm.osinfo.records import (
    ALL_ARCHITECTURES,
    DEVICE_IDS,
    Firmware,
    Media,
    ResourceKind,
    Resources,
)

GUIDE: Final = "docs/guide/operating-systems.md has every key"
ID_PREFIX: Final = "urn:thinvirt:os:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_BUSES = ("virtio", "scsi", "sata", "ide", "usb")
_TEXTS = {"name", "vendor", "version", "family", "distro", "codename", "login_user", "id"}
_LISTS = {"aliases", "like", "devices", "no_devices", "firmware", "no_firmware"} | {
    "good_buses",
    "bad_buses",
}
_SIZES = ("memory", "min_memory", "disk", "min_disk")
_NUMBERS = ("cpus", "min_cpus")
_DATES = ("release_date", "eol_date")
_KNOWN = {*_TEXTS, *_LISTS, *_SIZES, *_NUMBERS, *_DATES, "rolling", "media"}


def parse_user_file(text: str, origin: Path, known: Mapping[str, str]) -> list[OsRecord]:
    """Return the systems a file declares.

    Args:
        text: TOML.
        origin: the file, for messages.
        known: short id to id, of the systems there are already; ``like`` may name these and those
            declared above in the same file.

    Raises:
        UsageError: with file, entry and key.
    """
    import tomllib  # start-up time: an index spares most commands this

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not valid TOML: {error}", path=origin) from error
    tables = document.pop("os", {})
    if document:
        raise UsageError(f"'{next(iter(document))}' means nothing: only 'os' does", path=origin)
    if not isinstance(tables, dict):
        raise UsageError("'os' must be a table of systems", path=origin, hint=GUIDE)
    names = dict(known)
    records = []
    for name, table in tables.items():
        record = _Entry(name, table, origin, names).record()
        names.update(dict.fromkeys(record.short_ids, record.id))
        records.append(record)
    return records


class _Entry:
    """One table, whose complaints name file, entry and key."""

    def __init__(self, name: str, table: object, origin: Path, known: Mapping[str, str]) -> None:
        self.name = name
        self.origin = origin
        self.known = known
        if not _NAME.fullmatch(name):
            raise self.wrong("", "cannot be a name: letters, digits and . _ + - are possible")
        if not isinstance(table, dict):
            raise self.wrong("", "must be a table")
        self.table: dict[str, Any] = table
        for key in table:
            if key not in _KNOWN:
                raise self.wrong(key, "is no key of a system")

    def wrong(self, key: str, what: str) -> UsageError:
        where = f"os.{self.name}" + (f".{key}" if key else "")
        return UsageError(f"{where} {what}", path=self.origin, hint=GUIDE)

    def record(self) -> OsRecord:
        """Return what the table declares."""
        own_id = self.known.get(self.name, "")
        return OsRecord(
            id=own_id or self.text("id") or ID_PREFIX + self.name,
            short_ids=(self.name, *self.texts("aliases")),
            name=self.text("name"),
            vendor=self.text("vendor"),
            version=self.text("version"),
            family=self.text("family"),
            distro=self.text("distro"),
            codename=self.text("codename"),
            release_date=self.date("release_date"),
            eol_date=self.date("eol_date"),
            status="rolling" if self.flag("rolling") else "",
            derives_from=tuple(self.relative(name) for name in self.texts("like")),
            devices=tuple(self.devices()),
            firmware=tuple(self.firmware()),
            resources=tuple(self.resources()),
            media=tuple(self.media()),
            cloud_image_username=self.text("login_user"),
            good_buses=self.among("good_buses", _BUSES),
            bad_buses=self.among("bad_buses", _BUSES),
        )

    def text(self, key: str) -> str:
        value = self.table.get(key, "")
        if not isinstance(value, str) or not value.isprintable():
            raise self.wrong(key, "must be a text of one line")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.table.get(key, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise self.wrong(key, "must be a list of texts")
        return tuple(value)

    def among(self, key: str, words: tuple[str, ...]) -> tuple[str, ...]:
        values = self.texts(key)
        for value in values:
            if value not in words:
                raise self.wrong(key, f"has '{value}': must be of {', '.join(words)}")
        return values

    def flag(self, key: str) -> bool:
        value = self.table.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def date(self, key: str) -> str:
        value = self.table.get(key, "")
        text = str(value)  # TOML has dates of its own: these too are written like that
        if text and not _DATE.fullmatch(text):
            raise self.wrong(key, "must be a date such as 2025-08-09")
        return text

    def relative(self, name: str) -> str:
        """Return the id of a system that ``like`` names; one that is not there is kept as named."""
        if name == self.name:
            raise self.wrong("like", "names the system itself")
        return self.known.get(name, ID_PREFIX + name)

    def devices(self) -> list[DeviceLink]:
        words = tuple(DEVICE_IDS)
        return [
            DeviceLink(device, supported)
            for key, supported in (("devices", True), ("no_devices", False))
            for name in self.among(key, words)
            for device in DEVICE_IDS[name]
        ]

    def firmware(self) -> list[Firmware]:
        return [
            Firmware("x86_64", kind, supported)
            for key, supported in (("firmware", True), ("no_firmware", False))
            for kind in self.among(key, ("bios", "efi"))
        ]

    def resources(self) -> list[Resources]:
        """Return the figures, also of x86_64 by name: that goes before what is said for all."""
        kinds: tuple[tuple[ResourceKind, str], ...] = (("minimum", "min_"), ("recommended", ""))
        found = []
        for kind, prefix in kinds:
            cpus = self.number(f"{prefix}cpus")
            memory, disk = self.size(f"{prefix}memory"), self.size(f"{prefix}disk")
            if (cpus, memory, disk) == (None, None, None) and not self.texts("like"):
                continue
            for architecture in (ALL_ARCHITECTURES, "x86_64"):
                figures = Resources(architecture, kind, inherit=True)
                found.append(replace(figures, cpus=cpus, memory_bytes=memory, disk_bytes=disk))
        return found

    def number(self, key: str) -> int | None:
        value = self.table.get(key)
        if value is not None and (type(value) is not int or not 0 < value < 1 << 16):
            raise self.wrong(key, "must be a whole number above zero")
        return value

    def size(self, key: str) -> int | None:
        value = self.table.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong(key, 'must be a size as a text, such as "512M" or "10G"')
        try:
            return parse_size(value, what=key)
        except UsageError as error:
            raise self.wrong(key, f"is '{value}': must be a size such as 512M or 10G") from error

    def media(self) -> list[Media]:
        tables = self.table.get("media", [])
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            raise self.wrong("media", "must be a list of tables")
        found = []
        for table in tables:
            for key, value in table.items():
                if key not in ("arch", "volume_id", "publisher_id", "kernel", "initrd", "live"):
                    raise self.wrong(f"media.{key}", "is no key of a disc")
                if isinstance(value, bool) != (key == "live") or not isinstance(value, str | bool):
                    raise self.wrong(f"media.{key}", "must be a text (live: true or false)")
            for key in ("volume_id", "publisher_id"):
                try:
                    re.compile(table.get(key, ""))
                except re.error as error:
                    what = f"is no regular expression: {error}"
                    raise self.wrong(f"media.{key}", what) from error
            found.append(
                Media(
                    architecture=table.get("arch", "x86_64"),
                    volume_id=table.get("volume_id", ""),
                    publisher_id=table.get("publisher_id", ""),
                    kernel=table.get("kernel", ""),
                    initrd=table.get("initrd", ""),
                    live=table.get("live", False),
                )
            )
        return found
