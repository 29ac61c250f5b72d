"""Option trees: QEMU's order of keys, dotted keys, and key=value texts."""

import pytest

from thinvirt.image.block import options
from thinvirt.image.block.errors import BlockError


def test_keys_come_in_the_order_of_qemus_buckets() -> None:
    # As `qemu-img info --output=json` prints the keys of an overlay.
    keys = [
        "backing-filename-format", "virtual-size", "filename", "cluster-size", "format",
        "actual-size", "format-specific", "full-backing-filename", "backing-filename", "dirty-flag",
    ]  # fmt: skip
    assert [key for key, _ in options.qemu_order(dict.fromkeys(sorted(keys)))] == keys


def test_within_a_bucket_the_newest_comes_first_and_a_copy_turns_them_round() -> None:
    by_bucket: dict[int, str] = {}
    number = 0
    while options.bucket(f"key{number}") not in by_bucket:
        by_bucket[options.bucket(f"key{number}")] = f"key{number}"
        number += 1
    older, newer = by_bucket[options.bucket(f"key{number}")], f"key{number}"
    tree = {older: 1, newer: 2}
    assert [key for key, _ in options.qemu_order(tree)] == [newer, older]
    assert [key for key, _ in options.qemu_order(options.clone(tree))] == [older, newer]
    tree[older] = 3  # a replaced value keeps its place
    assert [key for key, _ in options.qemu_order(tree)] == [newer, older]


def test_flatten_keeps_empty_objects_and_lists() -> None:
    tree = {"a": {"b": 1, "c": {}}, "l": [1, {"x": None}], "e": []}
    flat = {"a.b": 1, "a.c": {}, "l.0": 1, "l.1.x": None, "e": []}
    assert options.flatten(tree) == flat
    assert options.crumple(flat) == tree


def test_a_doubled_dot_is_a_dot_in_a_key() -> None:
    assert options.crumple({"foo..0.bar": 1}) == {"foo.0": {"bar": 1}}


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"a": 1, "a.b": 2}, "Cannot mix scalar and non-scalar keys"),
        ({"a.0": 1, "a.b": 2}, "Cannot mix list and non-list keys"),
        ({"a.0": 1, "a.2": 2}, "List indices are not contiguous"),
    ],
)
def test_crumple_refuses_contradictions(flat: dict[str, int], message: str) -> None:
    with pytest.raises(BlockError, match=message):
        options.crumple(flat)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a=1,b=2", [("a", "1", False), ("b", "2", False)]),
        ("a=1,,2,b=", [("a", "1,2", False), ("b", "", False)]),
        ("a=x=y", [("a", "x=y", False)]),
        ("lazy,nocow", [("lazy", "on", True), ("cow", "off", True)]),
        ("a=1,", [("a", "1", False)]),
        ("a=,,,", [("a", ",", False)]),
        ("", []),
    ],
)
def test_pairs(text: str, pairs: list[tuple[str, str, bool]]) -> None:
    assert list(options.split_pairs(text)) == pairs


def test_a_first_word_has_the_implied_key() -> None:
    assert options.parse_image_opts("x,,y,size=1") == {"file": "x,y", "size": "1"}
    assert options.parse_image_opts("driver=raw,file.filename=a") == {
        "driver": "raw",
        "file.filename": "a",
    }


def test_keyval_makes_objects() -> None:
    tree = options.parse_keyval("secret,id=s,a.b.c=1,a.d=2", first="qom-type")
    assert tree == {"qom-type": "secret", "id": "s", "a": {"b": {"c": "1"}, "d": "2"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1,a.b=2", "Parameters 'a.*' used inconsistently"),
        ("a.b=1,a=2", "Parameters 'a.*' used inconsistently"),
        ("a b=1", "Invalid parameter 'a b'"),
        ("a=1,b", "Expected '=' after parameter 'b'"),
    ],
)
def test_keyval_refuses(text: str, message: str) -> None:
    with pytest.raises(BlockError) as caught:
        options.parse_keyval(text)
    assert caught.value.message == message


def test_taking_a_prefix_removes_it() -> None:
    tree = {"file.driver": "file", "file": "x", "filename": "y"}
    assert options.take_prefixed(tree, "file.") == {"driver": "file"}
    assert tree == {"file": "x", "filename": "y"}
