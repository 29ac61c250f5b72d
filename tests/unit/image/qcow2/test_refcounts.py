from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinvirt.image.formats.qcow2.entries import (
    SUBCLUSTERS,
    Kind,
    compressed_entry,
    compressed_range,
    subcluster_kind,
    subcluster_run,
)
from thinvirt.image.formats.qcow2.refcounts import (
    count_zeroes,
    empty_refcounts,
    largest_refcount,
    pack_refcounts,
    unpack_refcounts,
)


@given(st.integers(0, 6), st.data())
def test_refcounts_survive_packing(order: int, data: st.DataObject) -> None:
    numbers = st.integers(0, largest_refcount(order))
    counts = empty_refcounts(64, order)
    for index, number in enumerate(data.draw(st.lists(numbers, min_size=64, max_size=64))):
        counts[index] = number
    raw = pack_refcounts(counts, order)
    assert len(raw) == 64 * (1 << order) // 8
    assert unpack_refcounts(raw, order) == counts


@pytest.mark.parametrize(
    ("order", "raw", "counts"),
    [
        (0, b"\x05", [1, 0, 1, 0, 0, 0, 0, 0]),  # the lowest bit is the first count
        (1, b"\xe4", [0, 1, 2, 3]),
        (2, b"\x21", [1, 2]),
        (3, b"\x01\x02", [1, 2]),
        (4, b"\x01\x02", [0x102]),  # wider ones are big-endian
        (6, bytes(7) + b"\x09", [9]),
    ],
)
def test_refcounts_lie_as_specified(order: int, raw: bytes, counts: list[int]) -> None:
    found = unpack_refcounts(raw, order)
    assert list(found) == counts
    assert pack_refcounts(array(found.typecode, counts), order) == raw


@given(st.sampled_from([Kind.NORMAL, Kind.UNALLOCATED]), st.integers(0, (1 << 64) - 1), st.data())
def test_a_run_of_subclusters_ends_where_the_kind_changes(
    cluster: int, bitmap: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, SUBCLUSTERS - 1))
    kind, count = subcluster_run(cluster, bitmap, first)
    assert 0 < count <= SUBCLUSTERS - first
    assert kind == subcluster_kind(cluster, bitmap, first)
    if kind != Kind.INVALID:
        run = range(first, first + count)
        assert all(subcluster_kind(cluster, bitmap, index) == kind for index in run)
        if first + count < SUBCLUSTERS:
            assert subcluster_kind(cluster, bitmap, first + count) != kind


@given(st.integers(9, 21), st.data())
def test_compressed_entries_give_the_range_back(bits: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, (1 << 62 - (bits - 8)) - (1 << bits)))
    length = data.draw(st.integers(1, (1 << bits) - 1))
    place, room = compressed_range(compressed_entry(offset, length, bits), bits)
    assert place == offset
    assert length <= room < length + 512


@given(st.integers(0, 6), st.data())
def test_zeroes_are_counted(order: int, data: st.DataObject) -> None:
    counts = empty_refcounts(20, order)
    for index in range(20):
        numbers = st.sampled_from([0, 0, 1, 256, 1 << 16, 1 << 40]) | st.integers(0, 1 << 64)
        counts[index] = min(data.draw(numbers), largest_refcount(order))
    assert count_zeroes(counts) == sum(not count for count in counts)
