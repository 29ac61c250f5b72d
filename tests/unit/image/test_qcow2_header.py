"""Header, extensions, feature names and geometry, on bytes alone."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinvirt.errors import CorruptImage, ImageError, UnsupportedFeature, UsageError
from thinvirt.image.formats.qcow2.empty import empty_image
from thinvirt.image.formats.qcow2.extensions import (
    ExtensionKind,
    HeaderExtension,
    pack_extensions,
    unpack_extensions,
)
from thinvirt.image.formats.qcow2.features import NAMES, pack_names, unpack_names
from thinvirt.image.formats.qcow2.first_cluster import FirstCluster
from thinvirt.image.formats.qcow2.geometry import Geometry
from thinvirt.image.formats.qcow2.header import FIELD_OFFSET, Header
from thinvirt.units import GIB, KIB, MIB, TIB

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


def headers(version: int) -> st.SearchStrategy[Header]:
    fields = {
        "backing_file_offset": U64,
        "backing_file_size": U32,
        "cluster_bits": U32,
        "virtual_size": U64,
        "crypt_method": U32,
        "l1_entries": U32,
        "l1_table_offset": U64,
        "refcount_table_offset": U64,
        "refcount_table_clusters": U32,
        "snapshot_count": U32,
        "snapshots_offset": U64,
    }
    if version == 2:
        return st.builds(Header, version=st.just(2), header_length=st.just(72), **fields)
    fields |= {
        "incompatible_features": U64,
        "compatible_features": U64,
        "autoclear_features": U64,
        "refcount_order": U32,
        "compression_type": st.integers(0, 255),
    }
    return st.integers(0, 4).flatmap(
        lambda words: st.builds(
            Header,
            version=st.just(3),
            header_length=st.just(112 + 8 * words),
            unknown_fields=st.binary(min_size=8 * words, max_size=8 * words),
            **fields,
        )
    )


@given(st.one_of(headers(2), headers(3)))
def test_header_survives_a_round_trip(header: Header) -> None:
    assert Header.unpack(header.pack()) == header


@given(st.lists(st.tuples(st.integers(1, 2**32 - 1), st.binary(max_size=40)), max_size=6))
def test_extensions_survive_a_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    raw = bytes(112) + pack_extensions(HeaderExtension(kind, data) for kind, data in pairs)
    read = unpack_extensions(raw, start=112, end=len(raw))
    assert [(e.kind, e.data) for e in read] == pairs


@given(st.binary(max_size=400))
def test_any_bytes_are_a_first_cluster_or_an_image_error(raw: bytes) -> None:
    for start in (b"", b"QFI\xfb\0\0\0\2", b"QFI\xfb\0\0\0\3"):
        with suppress(ImageError):
            FirstCluster.unpack(start + raw)


def test_feature_names_survive_a_round_trip() -> None:
    assert tuple(unpack_names(pack_names())) == NAMES


def test_an_extension_longer_than_its_room_is_refused() -> None:
    raw = bytearray(pack_extensions([HeaderExtension(ExtensionKind.BACKING_FORMAT, b"qcow2")]))
    raw[4:8] = (1 << 20).to_bytes(4, "big")
    with pytest.raises(CorruptImage, match="0xe2792aca"):
        list(unpack_extensions(bytes(raw), start=0, end=len(raw)))


def test_a_later_version_is_named() -> None:
    with pytest.raises(UnsupportedFeature, match="version 4"):
        Header.unpack(b"QFI\xfb\0\0\0\4" + bytes(100))


@pytest.mark.parametrize("length", [0, 72, 103, 105, 1 << 20])
def test_impossible_header_lengths_are_refused(length: int) -> None:
    raw = bytearray(empty_image(virtual_size=GIB, geometry=Geometry.of(64 * KIB)).writes[0][1])
    at = FIELD_OFFSET["header_length"]
    raw[at : at + 4] = length.to_bytes(4, "big")
    with pytest.raises(CorruptImage, match="header length"):
        Header.unpack(bytes(raw))


@pytest.mark.parametrize(
    ("cluster_size", "extended", "virtual_size", "l1_entries"),
    [
        (64 * KIB, False, 10 * GIB, 20),
        (64 * KIB, True, 10 * GIB, 40),
        (64 * KIB, True, 8 * TIB, 32768),
        (512, False, 1, 1),
        (512, False, 32 * KIB + 1, 2),
        (2 * MIB, True, TIB, 4),
    ],
)
def test_l1_entries(cluster_size: int, extended: bool, virtual_size: int, l1_entries: int) -> None:
    assert Geometry.of(cluster_size, extended_l2=extended).l1_entries(virtual_size) == l1_entries


@pytest.mark.parametrize("cluster_size", [0, -1, 256, 513, 4 * MIB, 65535])
def test_cluster_sizes_that_cannot_be(cluster_size: int) -> None:
    with pytest.raises(UsageError):
        Geometry.of(cluster_size)


def test_small_clusters_have_no_subclusters() -> None:
    Geometry.of(16 * KIB, extended_l2=True)
    with pytest.raises(UsageError, match="extended L2"):
        Geometry.of(8 * KIB, extended_l2=True)


def test_a_disk_too_large_for_its_clusters_names_the_largest() -> None:
    with pytest.raises(UsageError, match="largest is 128 GiB"):
        empty_image(virtual_size=TIB, geometry=Geometry.of(512))


def test_small_clusters_leave_the_room_to_the_backing_name() -> None:
    name = b"b" * 300
    image = empty_image(
        virtual_size=MIB, geometry=Geometry.of(512), backing_name=name, backing_format="qcow2"
    )
    first = FirstCluster.unpack(image.writes[0][1])
    assert (first.backing_name, first.backing_format) == (name.decode(), "qcow2")
    assert first.extension(ExtensionKind.FEATURE_NAMES) is None
    with pytest.raises(UsageError, match="does not fit"):
        empty_image(virtual_size=MIB, geometry=Geometry.of(512), backing_name=b"b" * 500)
