"""Volume descriptors, and which entries fit them."""

import re

import pytest

from thinvirt.vm.osinfo.fragments import Tree
from thinvirt.vm.osinfo.media import (
    MediaEntry,
    NotIso,
    VolumeIds,
    detect,
    literal_of,
    matches,
    parse_descriptors,
    parse_treeinfo,
    tree_matches,
)
from thinvirt.vm.osinfo.records import Media


def descriptor(volume: bytes = b"HOUSE 1", blocks: int = 2, boot: bool = False) -> bytes:
    raw = bytearray(2048)
    raw[0:7] = b"\x01CD001\x01"
    raw[8:40] = b"LINUX".ljust(32)
    raw[40:72] = volume.ljust(32)
    raw[80:84] = blocks.to_bytes(4, "little")
    raw[128:130] = (2048).to_bytes(2, "little")
    second = b"\0CD001\x01EL TORITO SPECIFICATION".ljust(2048, b"\0") if boot else b""
    return bytes(raw) + second


def test_descriptors() -> None:
    ids = parse_descriptors(descriptor(boot=True))
    assert (ids.volume, ids.system, ids.size, ids.bootable) == ("HOUSE 1", "LINUX", 4096, True)
    assert not parse_descriptors(descriptor()).bootable


@pytest.mark.parametrize("raw", [b"", bytes(2048), descriptor()[:2000], b"\x02" + descriptor()[1:]])
def test_what_is_no_iso(raw: bytes) -> None:
    with pytest.raises(NotIso):
        parse_descriptors(raw)


def test_identifiers_that_are_no_text_are_taken_as_they_come() -> None:
    assert parse_descriptors(descriptor(b"\xff\xfe\0hidden")).volume == "\ufffd\ufffd"


IDS = VolumeIds("HOUSE 1 x86_64", "LINUX", "THE HOUSE", "", 4096, True)


@pytest.mark.parametrize(
    ("media", "fits"),
    [
        (Media("x86_64", volume_id="^HOUSE 1"), True),
        (Media("x86_64", volume_id="house"), False),
        (Media("x86_64", volume_id="HOUSE", publisher_id="HOUSE$"), True),
        (Media("x86_64", volume_id="HOUSE", application_id="INSTALLER"), False),
        (Media("x86_64", volume_id="HOUSE", volume_size=4096), True),
        (Media("x86_64", volume_id="HOUSE", volume_size=4095), False),
        (Media("x86_64"), False),
        (Media("x86_64", volume_id="(HOUSE"), False),  # no regular expression
    ],
)
def test_matching(media: Media, fits: bool) -> None:
    assert matches(IDS, media) == fits


def test_size_can_be_left_out() -> None:
    assert matches(IDS, Media("x86_64", volume_id="HOUSE", volume_size=1), any_size=True)
    assert not matches(IDS, Media("x86_64", volume_size=1), any_size=True)


def test_the_most_telling_entry_comes_first() -> None:
    entries = [
        MediaEntry("old", Media("x86_64", volume_id="HOUSE"), "2001-01-01"),
        MediaEntry("new", Media("x86_64", volume_id="HOUSE"), "2020-01-01"),
        MediaEntry("long", Media("x86_64", volume_id="HOUSE 1 x"), "1999-01-01"),
        MediaEntry("rolling", Media("x86_64", volume_id="HOUSE 1 x86_64"), rolling=True),
        MediaEntry("any", Media("all", volume_id="HOUSE 1 x86_64")),
        MediaEntry("exact", Media("all", volume_id="HOUSE", volume_size=4096)),
        MediaEntry("other", Media("x86_64", volume_id="GARDEN")),
    ]
    found = [entry.os_id for entry in detect(IDS, entries)]
    assert found == ["exact", "long", "new", "old", "rolling", "any"]


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("^Debian 11.\\d+ amd64$", "Debian 11"),
        ("A|B", ""),
        ("(A|B) disc", " disc"),
        ("Dis?cs+ and", " and"),
        ("[abc]xyz", "xyz"),
        ("a{2}b", ""),
        ("(?i)disc", ""),
        (r"\x41BC", ""),
        (r"[)]abc", ""),
        (r"\[abc", ""),
        ("", ""),
    ],
)
def test_literals(pattern: str, literal: str) -> None:
    re.compile(pattern)
    assert literal_of(pattern) == literal


def test_trees() -> None:
    said = parse_treeinfo("[general]\nfamily = House\nversion = 1.2\narch = x86_64\n")
    assert said == {"family": "House", "variant": "", "version": "1.2", "arch": "x86_64"}
    assert tree_matches(said, Tree("x86_64", treeinfo_family="House", treeinfo_version="^1"))
    assert not tree_matches(said, Tree("x86_64", treeinfo_family="House", treeinfo_version="^2"))
    assert not tree_matches(said, Tree("aarch64", treeinfo_family="House"))
    assert not tree_matches(said, Tree("x86_64"))
    assert parse_treeinfo("no ini") == {}
    assert parse_treeinfo("[release]\nname = x\n") == {}
