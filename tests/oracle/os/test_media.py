"""Discs are taken for what libosinfo takes them for."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.oracle.os.conftest import Ask

from thinvirt.service.os_knowledge import OsKnowledge, volume_ids
from thinvirt.vm.osinfo.codec import unpack_media
from thinvirt.vm.osinfo.media import DESCRIPTORS_AT, SECTOR, detect, literal_of
from thinvirt.vm.osinfo.records import Media

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(shutil.which("genisoimage") is None, reason="genisoimage is missing"),
]
NEEDS = (
    "import gi; gi.require_version('Libosinfo', '1.0'); from gi.repository import Libosinfo; "
    "Libosinfo.Media.matches"
)


def make_iso(
    target: Path, volume: str, *, system: str = "", publisher: str = "", bootable: bool = False
) -> Path:
    content = target.parent / "content"
    content.mkdir(exist_ok=True)
    (content / "readme.txt").write_text("a disc for a test\n")
    words = ["genisoimage", "-quiet", "-input-charset", "utf-8", "-J", "-V", volume]
    words += ["-sysid", system] if system else []
    words += ["-publisher", publisher] if publisher else []
    if bootable:
        (content / "boot.img").write_bytes(bytes(2048))
        words += ["-b", "boot.img", "-no-emul-boot"]
    subprocess.run([*words, "-o", target, content], check=True, capture_output=True)
    return target


@pytest.mark.parametrize(
    ("volume", "system", "publisher", "expected"),
    [
        ("Debian 11.5.0 amd64 n", "", "", "debian11"),
        ("CentOS 7 x86_64", "LINUX", "", "centos7.0"),
        ("Fedora-S-dvd-x86_64-37", "LINUX", "", "fedora37"),
        ("CCCOMA_X64FRE_EN-US_DV9", "", "MICROSOFT CORPORATION", "win11"),
        ("alpine-std 3.17.0 x86_64", "LINUX", "", "alpinelinux3.17"),
        ("Debian 13.1.0 amd64 n", "", "", "debian13"),  # ours: the database is older
    ],
)
def test_discs_that_people_have(
    tmp_path: Path, knowledge: OsKnowledge, volume: str, system: str, publisher: str, expected: str
) -> None:
    iso = make_iso(tmp_path / "disc.iso", volume, system=system, publisher=publisher)
    found = knowledge.detect(iso)
    assert expected in (found.os.short_id, *found.others)
    assert found.ids.volume == volume
    assert not found.ids.bootable


def test_a_later_respin_is_known_but_for_its_size(tmp_path: Path, knowledge: OsKnowledge) -> None:
    """osinfo-db has CentOS 7 by volume id and size; a disc of another size is of no other."""
    assert not knowledge.detect(make_iso(tmp_path / "a.iso", "CentOS 7 x86_64")).exact
    assert knowledge.detect(make_iso(tmp_path / "b.iso", "Debian 11.5.0 amd64 n")).exact


def test_the_installer_of_a_disc_is_named(tmp_path: Path, knowledge: OsKnowledge) -> None:
    found = knowledge.detect(make_iso(tmp_path / "disc.iso", "Debian 11.5.0 amd64 n"))
    assert found.os.short_id == "debian11"
    assert found.media.kernel == "install.amd/vmlinuz"
    assert found.media.initrd == "install.amd/initrd.gz"
    assert found.media.architecture == "x86_64"


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        ("Debian 10.3.0 amd64 n", "Debian 10"),
        ("alpine-virt 3.17.0 x86_64", "3.17"),
        ("Fedora-S-dvd-x86_64-37", "Fedora Server 37"),
    ],
)
def test_osinfo_detect_says_the_same(
    tmp_path: Path,
    osinfo_environment: dict[str, str],
    knowledge: OsKnowledge,
    volume: str,
    said: str,
) -> None:
    if shutil.which("osinfo-detect") is None:
        pytest.skip("libosinfo-bin is not installed")
    iso = make_iso(tmp_path / "disc.iso", volume, system="LINUX", bootable=True)
    assert volume_ids(iso).bootable
    done = subprocess.run(
        ["osinfo-detect", iso],
        env=osinfo_environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert said in done.stdout
    assert knowledge.detect(iso).os.version in said


def example(pattern: str) -> str:
    """Return a text that a regular expression of the database matches."""
    parse: Any = re._parser.parse  # type: ignore[attr-defined]
    items: list[Any] = list(parse(pattern))
    return "".join(_example(item) for item in items)


def _example(item: Any) -> str:
    name: str = str(item[0])
    value: Any = item[1]
    if name == "LITERAL":
        return chr(int(value))
    if name == "NOT_LITERAL":
        return "x" if chr(value) != "x" else "y"
    if name == "ANY":
        return "5"
    if name == "IN":
        return _of_class(value)
    if name in ("MAX_REPEAT", "MIN_REPEAT"):
        least, _, inner = value
        return "".join(_example(part) for part in inner) * int(least)
    if name == "SUBPATTERN":
        return "".join(_example(part) for part in value[3])
    if name == "BRANCH":
        return "".join(_example(part) for part in value[1][0])
    assert name in ("AT", "ASSERT", "ASSERT_NOT"), name
    return ""


def _of_class(items: list[Any]) -> str:
    name, value = str(items[0][0]), items[0][1]
    if name == "LITERAL":
        return chr(int(value))
    if name == "RANGE":
        return chr(int(value[0]))
    assert name == "CATEGORY", name
    return {"CATEGORY_DIGIT": "5", "CATEGORY_SPACE": " "}.get(str(value), "a")


def all_media(knowledge: OsKnowledge) -> list[Media]:
    return [unpack_media(packed).media for packed in knowledge._read("media")]


def test_literals_stand_in_what_patterns_match(knowledge: OsKnowledge) -> None:
    patterns = {
        pattern
        for media in all_media(knowledge)
        for pattern in (media.volume_id, media.system_id, media.publisher_id, media.application_id)
        if pattern
    }
    useful = 0
    for pattern in patterns:
        text = example(pattern)
        assert re.search(pattern, text), pattern
        assert literal_of(pattern) in text, pattern
        useful += bool(literal_of(pattern))
    assert useful > 0.8 * len(patterns)


def patched(header: bytes, media: Media) -> bytes | None:
    """Return the descriptors of a disc that an entry describes; None if they have no room."""
    raw = bytearray(header)
    volume = example(media.volume_id) if media.volume_id else "SOMETHING"
    for text, start, end in (
        (volume, 40, 72),
        (example(media.system_id), 8, 40),
        (example(media.publisher_id), 318, 446),
        (example(media.application_id), 574, 702),
    ):
        if len(text) > end - start or not volume.strip():
            return None
        raw[DESCRIPTORS_AT + start : DESCRIPTORS_AT + end] = text.encode().ljust(end - start)
    if media.volume_size:
        blocks, rest = divmod(media.volume_size, SECTOR)
        if rest:
            return None
        raw[DESCRIPTORS_AT + 80 : DESCRIPTORS_AT + 84] = blocks.to_bytes(4, "little")
    return bytes(raw)


def test_a_disc_for_every_entry(tmp_path: Path, knowledge: OsKnowledge, ask: Ask) -> None:
    base_iso = make_iso(tmp_path / "base.iso", "BASE", bootable=True)
    base = base_iso.read_bytes()[: DESCRIPTORS_AT + 3 * SECTOR]
    discs = tmp_path / "discs"
    discs.mkdir()
    contents = {patched(base, media) for media in all_media(knowledge)} - {None}
    chosen = sorted(c for c in contents if c is not None)[
        ::20
    ]  # all of them take minutes, on their side
    for number, content in enumerate(chosen):
        (discs / f"{number:04d}.iso").write_bytes(content)
    theirs = ask("ask_media.py", str(discs), needs=NEEDS)
    assert len(theirs) > 80

    entries = [unpack_media(packed) for packed in knowledge._read("media")]
    ours_only = {e.os_id for e in entries if knowledge.find(e.os_id).source != "osinfo-db"}
    differing = {}
    for name, said in theirs.items():
        found = detect(volume_ids(discs / name), entries)
        ids = sorted({entry.os_id for entry in found} - ours_only)
        if ids != said["systems"]:
            differing[said["volume_id"]] = (ids, said["systems"])
    assert not differing
