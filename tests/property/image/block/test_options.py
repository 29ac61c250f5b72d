"""Option trees and their texts survive the way there and back."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.options import (
    crumple,
    double_commas,
    flatten,
    parse_keyval,
    qemu_order,
    split_pairs,
)
from thinvirt.image.block.qemu_json import dumps, loads
from thinvirt.image.block.schema import size_of

NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,6}", fullmatch=True)
SCALARS = (
    st.text(max_size=8).filter(lambda text: "\0" not in text and text.isprintable())
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.booleans()
    | st.none()
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)
OBJECTS = st.dictionaries(NAMES, TREES, max_size=6)


@given(OBJECTS)
def test_json_there_and_back(tree: dict[str, object]) -> None:
    for pretty in (False, True):
        assert loads(dumps(tree, pretty=pretty)) == tree


@given(OBJECTS)
def test_flat_there_and_back(tree: dict[str, object]) -> None:
    flat = flatten(tree)
    assert not any(isinstance(value, dict | list) and value for value in flat.values())
    assert crumple(flat) == tree


@given(st.dictionaries(NAMES, st.integers(), max_size=30))
def test_order_loses_nothing(tree: dict[str, int]) -> None:
    assert dict(qemu_order(tree)) == tree


@given(st.dictionaries(NAMES, st.text(max_size=10), max_size=6))
def test_pairs_there_and_back(pairs: dict[str, str]) -> None:
    text = ",".join(f"{name}={double_commas(value)}" for name, value in pairs.items())
    assert {name: value for name, value, _ in split_pairs(text)} == pairs
    assert parse_keyval(text) == pairs


@given(st.text(max_size=60) | st.text("{}[]'\":,0123456789.eE-\\utrlsfan ", max_size=40))
def test_any_text_is_json_or_an_error(text: str) -> None:
    with contextlib.suppress(BlockError):
        loads(text)


@given(st.text("0123456789.xXeEkKmMgGtTpP+- ", max_size=12))
def test_any_text_is_a_size_or_none(text: str) -> None:
    size = size_of(text)
    assert size is None or 0 <= size <= 1 << 64
