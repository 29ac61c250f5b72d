"""The catalogue of public cloud images: what an entry says.

Pure: texts in, values out. The data is `thinvirt/data/cloud-images.toml` and a user's own files of
the same form (docs/guide/cloud-images.md); `store.image_catalogue` reads them from disk.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

from thinvirt.errors import NotFound, UsageError
from thinvirt.vm.checksums import SUMS_KINDS, Checksum, natural_order, parse_checksum
from thinvirt.vm.names import check_template_name

ARCHITECTURES: Final = ("x86_64", "aarch64")
BUSES: Final = ("virtio", "scsi", "sata", "ide")


@dataclass(frozen=True, slots=True)
class CloudImage:
    """One public image for one architecture.

    Exactly one of `file` and `pattern` is set: a publisher either keeps one name for its newest
    build, or the newest name that fully matches `pattern` is taken from the sums or from `index`.
    """

    name: str
    architecture: str
    os: str
    release: str
    base: str
    sums: str
    login_user: str
    min_memory_mib: int
    file: str = ""
    pattern: str = ""
    sums_kind: str = "list"
    index: str = ""
    checksum: Checksum | None = None
    aliases: tuple[str, ...] = ()
    bus: str = "virtio"
    min_cpu: str = ""
    notes: tuple[str, ...] = ()
    declared_in: Path = Path()

    @property
    def url(self) -> str:
        """The image's URL, or its folder's while only a pattern is known."""
        return urljoin(self.base, self.file)

    @property
    def sums_url(self) -> str:
        """The URL of the publisher's checksums; needs `file` if the sums are named after it."""
        name = file_name_of(self.url)
        return urljoin(self.url, self.sums.replace("{file}", name))

    def with_file(self, name: str) -> "CloudImage":
        """Return the entry with its pattern resolved to `name`."""
        return replace(self, file=name, pattern="")

    def guest_facts(self) -> dict[str, str | int]:
        """Return what is known of the guest, as a template records it."""
        facts: dict[str, str | int] = {
            "os": f"{self.os} {self.release}",
            "login_user": self.login_user,
            "min_memory_mib": self.min_memory_mib,
            "architecture": self.architecture,
            "bus": self.bus,
        }
        if self.min_cpu:
            facts["min_cpu"] = self.min_cpu
        return facts


def file_name_of(url: str) -> str:
    """Return the last part of a URL's path, unquoted."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


# -- the catalogue file ----------------------------------------------------------------------


class _Entry:
    """One table of a catalogue file, whose complaints name file, entry and key."""

    def __init__(self, name: str, table: object, origin: Path) -> None:
        self.name = name
        self.origin = origin
        if not isinstance(table, dict):
            raise self.wrong("", "must be a table")
        self.table: dict[str, Any] = table
        self.used: set[str] = set()

    def wrong(self, key: str, what: str) -> UsageError:
        """Return the complaint about one key."""
        where = f"images.{self.name}" + (f".{key}" if key else "")
        return UsageError(
            f"{where} {what}", path=self.origin, hint="docs/guide/cloud-images.md has every key"
        )

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text; one without default has to be there."""
        self.used.add(key)
        value = self.table.get(key, default)
        if value is None:
            raise self.wrong(key, "is missing")
        if not isinstance(value, str) or (not value and default is None):
            raise self.wrong(key, "must be a text")
        return value

    def choice(self, key: str, among: tuple[str, ...], default: str) -> str:
        """Return a text that is one of several."""
        value = self.text(key, default)
        if value not in among:
            raise self.wrong(key, f"is '{value}': must be one of {', '.join(among)}")
        return value

    def number(self, key: str) -> int:
        """Return a whole number above zero."""
        self.used.add(key)
        value = self.table.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key, "must be a whole number above zero")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts, empty if the key is not there."""
        self.used.add(key)
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "must be a list of texts")
        return tuple(value)

    def per_architecture(self, key: str) -> dict[str, str]:
        """Return a table of texts by architecture, empty if the key is not there."""
        self.used.add(key)
        value = self.table.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "must be a table of architectures")
        for architecture, text in value.items():
            if architecture not in ARCHITECTURES:
                raise self.wrong(f"{key}.{architecture}", "is no architecture known here")
            if not isinstance(text, str) or not text:
                raise self.wrong(f"{key}.{architecture}", "must be a text")
        return value

    def address(
        self, key: str, default: str | None = None, *, schemes: tuple[str, ...] = ("https",)
    ) -> str:
        """Return a URL; only an image may come without TLS, because its checksum does not."""
        value = self.text(key, default)
        if value and _scheme(value) not in schemes:
            raise self.wrong(key, f"is '{value}': must be an {' or '.join(schemes)} URL")
        return value

    def finish(self) -> None:
        """Refuse keys that mean nothing: a typing mistake would be silent otherwise."""
        for key in self.table:
            if key not in self.used:
                raise self.wrong(key, "is no key of a catalogue entry")


def parse_catalogue(text: str, origin: Path) -> list[CloudImage]:
    """Return the images a catalogue file declares, one per name and architecture.

    Args:
        text: TOML.
        origin: the file, for messages.

    Raises:
        UsageError: with file, entry and key.
    """
    import tomllib  # start-up time: only this verb reads TOML

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not valid TOML: {error}", path=origin) from error
    tables = document.pop("images", {})
    if document:
        raise UsageError(f"'{next(iter(document))}' means nothing: only 'images' does", path=origin)
    if not isinstance(tables, dict):
        raise UsageError("'images' must be a table of entries", path=origin)
    return [
        image for name, table in tables.items() for image in _images(_Entry(name, table, origin))
    ]


def _images(entry: _Entry) -> list[CloudImage]:
    try:
        check_template_name(entry.name)
    except UsageError as error:
        raise entry.wrong("", f"cannot be a template's name ({error.hint})") from error
    files, patterns = entry.per_architecture("files"), entry.per_architecture("patterns")
    checksums = entry.per_architecture("checksums")
    if bool(files) == bool(patterns):
        raise entry.wrong("files", "or patterns must be there, and not both")
    common = CloudImage(
        name=entry.name,
        architecture="",
        os=entry.text("os"),
        release=entry.text("release"),
        base=entry.address("base", schemes=("https", "http")),
        sums=entry.text("sums"),
        sums_kind=entry.choice("sums_kind", SUMS_KINDS, "list"),
        index=entry.address("index", ""),
        login_user=entry.text("login_user"),
        min_memory_mib=entry.number("min_memory_mib"),
        min_cpu=entry.text("min_cpu", ""),
        bus=entry.choice("bus", BUSES, "virtio"),
        aliases=entry.texts("aliases"),
        notes=entry.texts("notes"),
        declared_in=entry.origin,
    )
    entry.finish()
    if not common.base.endswith("/"):
        raise entry.wrong("base", "must end with a slash")
    if patterns and not common.index and "{file}" in common.sums:
        raise entry.wrong("index", "is missing: the sums cannot be found before the file is known")
    made = []
    for architecture, value in (files or patterns).items():
        if patterns:
            _check_pattern(entry, architecture, value)
        digest = checksums.get(architecture)
        image = replace(
            common,
            architecture=architecture,
            base=common.base.replace("{arch}", architecture),
            index=common.index.replace("{arch}", architecture),
            sums=common.sums.replace("{arch}", architecture),
            min_cpu=common.min_cpu if architecture == "x86_64" else "",
            file=value if files else "",
            pattern=value if patterns else "",
            checksum=_pinned(entry, architecture, digest) if digest else None,
        )
        if not _comes_over_tls(image):
            raise entry.wrong("sums", "must be an https URL or relative to the image")
        made.append(image)
    return made


def _scheme(url: str) -> str:
    """Return a URL's scheme; empty for what is no URL at all or names no host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts.scheme if parts.hostname else ""


def _comes_over_tls(image: CloudImage) -> bool:
    try:
        return _scheme(image.sums_url) == "https"
    except ValueError:
        return False


def _check_pattern(entry: _Entry, architecture: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise entry.wrong(
            f"patterns.{architecture}", f"is no regular expression: {error}"
        ) from error


def _pinned(entry: _Entry, architecture: str, text: str) -> Checksum:
    try:
        return parse_checksum(text)
    except UsageError as error:
        raise entry.wrong(f"checksums.{architecture}", f"is no checksum: {error.hint}") from error


def merge(catalogues: Iterable[list[CloudImage]]) -> list[CloudImage]:
    """Return all entries, later files replacing those of the same name; sorted by name.

    An alias of a later file wins over the same alias, but never over another entry's name.
    """
    entries: dict[str, list[CloudImage]] = {}
    owner: dict[str, str] = {}
    for images in catalogues:
        for name in {image.name for image in images}:
            entries[name] = [image for image in images if image.name == name]
        owner.update({alias: image.name for image in images for alias in image.aliases})
    return [
        replace(
            image,
            aliases=tuple(a for a in image.aliases if owner[a] == name and a not in entries),
        )
        for name in sorted(entries, key=natural_order)
        for image in entries[name]
    ]


def find(images: Iterable[CloudImage], name: str, architecture: str) -> CloudImage:
    """Return the entry that `name` (or an alias, or ``debian:12``) means.

    Raises:
        NotFound: no such name, or not for this architecture; the hint has the near ones.
    """
    wanted = name.replace(":", "-")
    named = [image for image in images if wanted == image.name or wanted in image.aliases]
    for image in named:
        if image.architecture == architecture:
            return image
    if named:
        there = ", ".join(image.architecture for image in named)
        raise NotFound(
            f"the catalogue has no '{name}' for {architecture}", hint=f"there is: {there}"
        )
    from difflib import get_close_matches

    known = [word for image in images for word in (image.name, *image.aliases)]
    near = list(dict.fromkeys(get_close_matches(wanted, known, n=5, cutoff=0.5)))
    raise NotFound(
        f"the catalogue has no image '{name}'",
        hint=(f"did you mean {' or '.join(near[:3])}? " if near else "")
        + "all: thinvirt template pull --list",
    )
