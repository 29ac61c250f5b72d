"""Merging and inheritance against a plain model, and packing there and back."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from thinvirt.vm.osinfo.codec import pack_media, pack_os, unpack_media, unpack_os
from thinvirt.vm.osinfo.media import MediaEntry, literal_of
from thinvirt.vm.osinfo.merging import lineage, merge_fragments, resolve
from thinvirt.vm.osinfo.records import (
    DeviceLink,
    Firmware,
    Media,
    OsInfo,
    OsRecord,
    Resources,
)

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
