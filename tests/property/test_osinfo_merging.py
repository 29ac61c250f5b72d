"""Merging and inheritance against a plain model, packing there and back, and hostile input."""

from contextlib import suppress
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from thinvirt.errors import UsageError
from thinvirt.service.os_knowledge import OURS
from thinvirt.vm.osinfo.codec import pack_media, pack_os, unpack_media, unpack_os
from thinvirt.vm.osinfo.fragments import DeviceLink, OsRecord
from thinvirt.vm.osinfo.media import MediaEntry, NotIso, literal_of, matches, parse_descriptors
from thinvirt.vm.osinfo.merging import lineage, merge_fragments, resolve
from thinvirt.vm.osinfo.parse import BadFragment, parse_fragment
from thinvirt.vm.osinfo.records import Firmware, Media, OsInfo, Resources
from thinvirt.vm.osinfo.user_file import parse_user_file

IDS = st.sampled_from("abcdef")
WORD = st.text("xyz", max_size=3)
SIZE = st.none() | st.integers(1, 9)
RECORD = st.builds(
    OsRecord,
    id=IDS,
    short_ids=st.lists(WORD, max_size=2, unique=True).map(tuple),
    name=WORD,
    derives_from=st.lists(IDS, max_size=2).map(tuple),
    clones=st.lists(IDS, max_size=1).map(tuple),
    devices=st.lists(st.builds(DeviceLink, st.sampled_from("123"), st.booleans()), max_size=3).map(
        tuple
    ),
    firmware=st.lists(
        st.builds(Firmware, st.just("x86_64"), st.sampled_from(("bios", "efi")), st.booleans()),
        max_size=2,
    ).map(tuple),
    resources=st.lists(
        st.builds(
            Resources,
            st.sampled_from(("all", "x86_64")),
            st.sampled_from(("minimum", "recommended")),
            st.booleans(),
            cpus=SIZE,
            memory_bytes=SIZE,
        ),
        max_size=2,
    ).map(tuple),
)


def everything(records: list[OsRecord]) -> dict[str, OsInfo]:
    merged = merge_fragments(records)
    return {name: resolve(record, merged, {}) for name, record in merged.items()}


@given(st.lists(RECORD, max_size=8))
def test_fragments_add_up(records: list[OsRecord]) -> None:
    merged = merge_fragments(records)
    assert list(merged) == list(dict.fromkeys(record.id for record in records))
    for name, record in merged.items():
        own = [part for part in records if part.id == name]
        assert record.devices == tuple(link for part in own for link in part.devices)
        assert record.name == next((part.name for part in reversed(own) if part.name), "")
        assert set(record.short_ids) == {word for part in own for word in part.short_ids}


@given(st.lists(RECORD, max_size=8))
def test_the_nearest_statement_counts_and_circles_end(records: list[OsRecord]) -> None:
    merged = merge_fragments(records)
    for name, info in everything(records).items():
        family = list(lineage(merged[name], merged))
        assert family[0].id == name
        assert len({member.id for member in family}) == len(family)
        for device in "123":
            said = [
                [link.supported for link in member.devices if link.device == device]
                for member in family
            ]
            nearest = next((links[-1] for links in said if links), False)
            assert (device in {known.id for known in info.devices}) == nearest
        for kind in ("bios", "efi"):
            statements = [f.supported for m in family for f in m.firmware if f.kind == kind]
            assert info.starts_from(kind, "x86_64") == (statements[0] if statements else None)


@given(st.lists(RECORD, max_size=8))
def test_resources_come_down_only_where_asked_for(records: list[OsRecord]) -> None:
    merged = merge_fragments(records)
    for name, info in everything(records).items():
        for own, found in zip(merged[name].resources, info.resources, strict=True):
            if not own.inherit:
                assert found == own
            if own.cpus is not None:
                assert found.cpus == own.cpus


@given(st.lists(RECORD, max_size=8))
def test_an_unrelated_system_changes_nothing(records: list[OsRecord]) -> None:
    other = OsRecord(id="other", devices=(DeviceLink("1"), DeviceLink("2", False)))
    with_other = everything([*records, other])
    del with_other["other"]
    assert with_other == everything(records)


@given(st.lists(RECORD, min_size=1, max_size=8))
def test_packing_there_and_back(records: list[OsRecord]) -> None:
    for info in everything(records).values():
        assert unpack_os(pack_os(info)) == info


@given(st.builds(Media, WORD, WORD, volume_size=SIZE, live=st.booleans()), WORD, st.booleans())
def test_packing_discs(media: Media, date: str, rolling: bool) -> None:
    entry = MediaEntry("a", replace(media, variants=("v",)), date, rolling)
    assert unpack_media(pack_media(entry)) == entry


# A little grammar of patterns, each with a text that it matches.
ATOM = st.one_of(
    st.text("AB1 ", min_size=1, max_size=3).map(lambda t: (t, t)),
    st.sampled_from([(".", "q"), (r"\d", "7"), (r"\.", "."), ("[ab]", "b"), ("[^A-C]", "D")]),
    st.sampled_from([("(A|BC)", "BC"), ("(x1)?", ""), ("B*", ""), ("1+", "11"), ("A{2}", "AA")]),
    st.sampled_from([("^", ""), ("(A(B|1)2)", "A12"), (r"\(", "("), ("[(]", "("), (r"[\]A]", "]")]),
)


@given(st.lists(ATOM, max_size=6))
def test_literals_stand_in_every_match(atoms: list[tuple[str, str]]) -> None:
    pattern, text = "".join(p for p, _ in atoms), "".join(t for _, t in atoms)
    assert literal_of(pattern) in text


FRAGMENT = b"""<?xml version="1.0"?>
<libosinfo version="0.0.1"><os id="http://example.org/house/1"><short-id>house1</short-id>
<name>House</name><derives-from id="x"/><devices><device id="d" supported="false"/></devices>
<resources arch="all" inherit="true"><minimum><ram>1024</ram></minimum></resources>
<media arch="x86_64"><iso><volume-id>^H</volume-id></iso></media></os></libosinfo>"""


@given(st.integers(0, len(FRAGMENT)), st.integers(0, 40), st.binary(max_size=20))
def test_damaged_fragments_give_planned_errors_only(at: int, cut: int, inserted: bytes) -> None:
    with suppress(BadFragment):
        parse_fragment(FRAGMENT[:at] + inserted + FRAGMENT[at + cut :])


@given(st.binary(max_size=200))
def test_any_bytes_give_planned_errors_only(raw: bytes) -> None:
    with suppress(BadFragment):
        parse_fragment(raw)


OUR_LINES = OURS.read_text().splitlines()[:75]


@given(st.integers(0, len(OUR_LINES) - 1), st.text(max_size=20), st.integers(0, 40))
def test_damaged_user_files_give_planned_errors_only(line: int, inserted: str, at: int) -> None:
    damaged = OUR_LINES.copy()
    damaged[line] = damaged[line][:at] + inserted + damaged[line][at:]
    with suppress(UsageError):
        parse_user_file("\n".join(damaged), OURS, {})


@given(st.binary(max_size=4096), st.integers(0, 900))
def test_any_descriptor(raw: bytes, at: int) -> None:
    whole = bytearray(b"\x01CD001".ljust(4096, b" "))
    whole[at : at + len(raw)] = raw
    with suppress(NotIso):
        ids = parse_descriptors(bytes(whole[:4096]))
        matches(ids, Media("all", volume_id="."))
