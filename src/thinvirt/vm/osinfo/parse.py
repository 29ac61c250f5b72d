"""Fragments of osinfo-db (XML) as records.

The format is that of osinfo-db's own schema, ``schema/osinfo.rng``. A fragment may come from
anywhere: document types, and with them entities, are refused, sizes are bounded, and a number or
a date that is none counts as not said, so that one wrong line does not take the rest away.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from thinvirt.errors import ThinvirtError
from thinvirt.vm.osinfo.fragments import DeviceLink, OsRecord, Tree
from thinvirt.vm.osinfo.records import (
    RESOURCE_KINDS,
    Device,
    Firmware,
    Media,
    PublishedImage,
    Resources,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_FRAGMENT_BYTES: Final = 4 << 20  # the largest of osinfo-db's has 90 KiB
MAX_NUMBER_DIGITS: Final = 18  # what fits 64 bits with a sign
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_DOCUMENT_TYPE = re.compile(r"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


class BadFragment(ThinvirtError):
    """A fragment that cannot be read; the others still count."""

    kind = "osinfo"


@dataclass(frozen=True, slots=True)
class Fragment:
    """What one file says."""

    systems: tuple[OsRecord, ...] = ()
    devices: tuple[Device, ...] = ()


def parse_fragment(raw: bytes) -> Fragment:
    """Return what a fragment says of systems and devices; other elements are passed over.

    Args:
        raw: the file's bytes, UTF-8.

    Raises:
        BadFragment: it is no XML, no UTF-8, too large, declares a document type, or lacks an id.
    """
    from xml.etree import ElementTree  # start-up time: an index spares most commands all parsing

    if len(raw) > MAX_FRAGMENT_BYTES:
        raise BadFragment(f"{len(raw)} bytes are too many (up to {MAX_FRAGMENT_BYTES})")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFragment(f"not UTF-8: {error}") from error
    if _DOCUMENT_TYPE.search(text):
        raise BadFragment("it declares a document type or an entity, which is not read")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 (no document type, so no entities)
    except (ElementTree.ParseError, ValueError) as error:
        raise BadFragment(f"not well-formed XML: {error}") from error
    if root.tag != "libosinfo":
        raise BadFragment(f"the root element is '{root.tag[:40]}' and not 'libosinfo'")
    return Fragment(
        systems=tuple(_system(element) for element in root.iterfind("os")),
        devices=tuple(_device(element) for element in root.iterfind("device")),
    )


def _id(element: "Element") -> str:
    value = element.get("id", "")
    if not value:
        raise BadFragment(f"an element '{element.tag}' has no id")
    return value


def _device(element: "Element") -> Device:
    return Device(_id(element), _text(element, "name"), _text(element, "class"))


def _system(element: "Element") -> OsRecord:
    return OsRecord(
        id=_id(element),
        short_ids=tuple(text for e in element.iterfind("short-id") if (text := _own_text(e))),
        name=_text(element, "name"),
        vendor=_text(element, "vendor"),
        version=_text(element, "version"),
        family=_text(element, "family"),
        distro=_text(element, "distro"),
        codename=_text(element, "codename"),
        release_date=_date(element, "release-date"),
        eol_date=_date(element, "eol-date"),
        status=_text(element, "release-status"),
        derives_from=tuple(_id(e) for e in element.iterfind("derives-from")),
        clones=tuple(_id(e) for e in element.iterfind("clones")),
        upgrades=tuple(_id(e) for e in element.iterfind("upgrades")),
        devices=tuple(_device_link(e) for e in element.iterfind("devices/device")),
        firmware=tuple(
            Firmware(e.get("arch", ""), e.get("type", ""), _flag(e, "supported", default=True))
            for e in element.iterfind("firmware")
        ),
        resources=tuple(found for e in element.iterfind("resources") for found in _resources(e)),
        media=tuple(_media(e) for e in element.iterfind("media")),
        trees=tuple(_tree(e) for e in element.iterfind("tree")),
        images=tuple(
            PublishedImage(
                e.get("arch", ""),
                e.get("format", ""),
                _text(e, "url"),
                _flag(e, "cloud-init", default=False),
                _variants(e),
            )
            for e in element.iterfind("image")
        ),
        kernel_url_argument=_text(element, "kernel-url-argument"),
        cloud_image_username=_text(element, "cloud-image-username"),
    )


def _device_link(element: "Element") -> DeviceLink:
    # ``removed`` is what early databases called it.
    unsupported = element.get("supported") == "false" or element.get("removed") == "true"
    return DeviceLink(_id(element), not unsupported)


def _resources(element: "Element") -> Iterator[Resources]:
    inherit = element.get("inherit") == "true"
    for kind in RESOURCE_KINDS:
        part = element.find(kind)
        if part is None:
            if inherit:
                yield Resources(element.get("arch", ""), kind, inherit=True)
            continue
        yield Resources(
            element.get("arch", ""),
            kind,
            inherit,
            _number(part, "n-cpus"),
            _number(part, "cpu"),
            _number(part, "ram"),
            _number(part, "storage"),
        )


def _media(element: "Element") -> Media:
    return Media(
        architecture=element.get("arch", ""),
        volume_id=_text(element, "iso/volume-id"),
        system_id=_text(element, "iso/system-id"),
        publisher_id=_text(element, "iso/publisher-id"),
        application_id=_text(element, "iso/application-id"),
        volume_size=_number(element, "iso/volume-size"),
        kernel=_text(element, "kernel"),
        initrd=_text(element, "initrd"),
        live=_flag(element, "live", default=False),
        installer=_flag(element, "installer", default=True),
        reboots=_whole(element.get("installer-reboots", "")) or 1,
        eject=_flag(element, "eject-after-install", default=True),
        script=_flag(element, "installer-script", default=True),
        url=_text(element, "url"),
        variants=_variants(element),
    )


def _tree(element: "Element") -> Tree:
    return Tree(
        architecture=element.get("arch", ""),
        url=_text(element, "url"),
        kernel=_text(element, "kernel"),
        initrd=_text(element, "initrd"),
        boot_iso=_text(element, "boot-iso"),
        treeinfo_family=_text(element, "treeinfo/family"),
        treeinfo_variant=_text(element, "treeinfo/variant"),
        treeinfo_version=_text(element, "treeinfo/version"),
        treeinfo_arch=_text(element, "treeinfo/arch"),
        variants=_variants(element),
    )


def _variants(element: "Element") -> tuple[str, ...]:
    return tuple(e.get("id", "") for e in element.iterfind("variant"))


def _own_text(element: "Element") -> str:
    return (element.text or "").strip()


def _text(element: "Element", path: str) -> str:
    """Return the text of the first child at `path` that is in no particular language, or ""."""
    for child in element.iterfind(path):
        if child.get(_LANGUAGE) is None:
            return _own_text(child)
    return ""


def _flag(element: "Element", name: str, *, default: bool) -> bool:
    value = element.get(name)
    return default if value is None else value == "true"


def _date(element: "Element", path: str) -> str:
    text = _text(element, path)
    return text if _DATE.fullmatch(text) else ""


def _number(element: "Element", path: str) -> int | None:
    return _whole(_text(element, path))


def _whole(text: str) -> int | None:
    digits = text.isascii() and text.isdigit() and len(text) <= MAX_NUMBER_DIGITS
    return int(text) if digits else None
