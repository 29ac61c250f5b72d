"""Fragments of osinfo-db: what is read, and what is refused."""

import pytest

from thinvirt.vm.osinfo.fragments import DeviceLink, OsRecord
from thinvirt.vm.osinfo.parse import MAX_FRAGMENT_BYTES, BadFragment, parse_fragment
from thinvirt.vm.osinfo.records import Device, Firmware

ID = "http://example.org/house/1"


def system(body: str) -> OsRecord:
    raw = f'<libosinfo version="0.0.1"><os id="{ID}">{body}</os></libosinfo>'.encode()
    (found,) = parse_fragment(raw).systems
    return found


def test_texts_are_those_in_no_particular_language() -> None:
    found = system(
        '<short-id>house1</short-id><short-id>houseone</short-id><name xml:lang="de">Haus</name>'
        "<name>House 1</name><release-date>2020-02-29</release-date>"
    )
    assert (found.id, found.name, found.short_ids) == (ID, "House 1", ("house1", "houseone"))
    assert found.release_date == "2020-02-29"


def test_devices_may_be_said_to_be_unsupported() -> None:
    found = system(
        '<devices><device id="a"/><device id="b" supported="false"/>'
        '<device id="c" removed="true"/><device id="d" supported="true"/></devices>'
        '<firmware arch="x86_64" type="bios" supported="false"/>'
    )
    assert found.devices == (
        DeviceLink("a"), DeviceLink("b", False), DeviceLink("c", False), DeviceLink("d"),
    )  # fmt: skip
    assert found.firmware == (Firmware("x86_64", "bios", False),)


def test_resources_are_parted_by_kind_and_architecture() -> None:
    found = system(
        '<resources arch="all"><minimum><ram>536870912</ram><n-cpus>1</n-cpus></minimum>'
        "<recommended><storage>10737418240</storage></recommended></resources>"
        '<resources arch="x86_64" inherit="true"/>'
    )
    figures = [(r.architecture, r.kind, r.inherit, r.memory_bytes) for r in found.resources]
    assert figures[:2] == [
        ("all", "minimum", False, 512 << 20),
        ("all", "recommended", False, None),
    ]
    assert [f[1] for f in figures[2:]] == ["minimum", "recommended", "maximum", "network-install"]
    assert all(inherit for _, _, inherit, _ in figures[2:])


def test_numbers_and_dates_that_are_none_count_as_not_said() -> None:
    found = system(
        "<eol-date>soon</eol-date><resources arch='all'><minimum><ram>much</ram>"
        f"<storage>{'9' * 40}</storage><n-cpus>-1</n-cpus></minimum></resources>"
    )
    (minimum,) = found.resources
    assert found.eol_date == ""
    assert (minimum.memory_bytes, minimum.disk_bytes, minimum.cpus) == (None, None, None)


def test_a_disc_names_its_installer() -> None:
    (media,) = system(
        '<media arch="x86_64" live="true" installer-reboots="2"><iso><volume-id>^H1$</volume-id>'
        "<volume-size>4096</volume-size></iso><kernel>boot/k</kernel><initrd>boot/i</initrd></media>"
    ).media
    assert (media.kernel, media.initrd, media.volume_size) == ("boot/k", "boot/i", 4096)
    assert (media.live, media.installer, media.reboots) == (True, True, 2)


def test_devices_have_a_class() -> None:
    raw = b'<libosinfo><device id="x"><name>e1</name><class>net</class></device></libosinfo>'
    assert parse_fragment(raw).devices == (Device("x", "e1", "net"),)


ENTITIES = """<!DOCTYPE libosinfo [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">]>
<libosinfo><os id="x"><name>&b;</name></os></libosinfo>"""
EXTERNAL = """<!DOCTYPE l [<!ENTITY f SYSTEM "file:///etc/passwd">]><libosinfo/>"""


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (ENTITIES.encode(), "document type"),
        (EXTERNAL.encode(), "document type"),
        (ENTITIES.encode("utf-16"), "UTF-8"),
        (b"<libosinfo><os id='x'></libosinfo>", "well-formed"),
        (b"", "well-formed"),
        (b"<libosinfo>\0</libosinfo>", "well-formed"),
        (b"<libvirt/>", "root element"),
        (b"<libosinfo><os/></libosinfo>", "no id"),
        (b" " * (MAX_FRAGMENT_BYTES + 1), "too many"),
    ],
)
def test_what_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(BadFragment, match=message):
        parse_fragment(raw)


def test_deep_nesting_does_no_harm() -> None:
    raw = b"<libosinfo>" + b"<a>" * 20_000 + b"</a>" * 20_000 + b"</libosinfo>"
    assert parse_fragment(raw).systems == ()
