"""File names: prefixes, combination, and backing names."""

import pytest

from thinvirt.image.block import names
from thinvirt.image.block.errors import BlockError


@pytest.mark.parametrize(
    ("base", "name", "combined"),
    [
        ("/a/b.qcow2", "c", "/a/c"),
        ("b.qcow2", "c", "c"),
        ("/a/b", "/c", "/c"),
        ("nbd:unix:/s/t", "c", "nbd:unix:/s/c"),
        ("fat:b", "c", "fat:c"),
        ("./x:y", "c", "./c"),
        ("http://h/d/f", "", "http://h/d/"),
    ],
)
def test_combine(base: str, name: str, combined: str) -> None:
    assert names.combine(base, name) == combined


def test_a_colon_before_the_first_slash_is_a_protocol() -> None:
    assert names.has_protocol("nbd:x")
    assert names.has_protocol("json:{/")
    assert not names.has_protocol("./a:b")
    assert not names.has_protocol("/a:b")


def test_stripping_a_prefix_uncovers_no_other() -> None:
    for name, stripped in (("file:x", "x"), ("file:a:b", "./a:b"), ("file:/a:b", "/a:b")):
        found: dict[str, str] = {}
        names.strip_protocol(name, "file:", found)
        assert found == {"filename": stripped}
    untouched: dict[str, str] = {}
    names.strip_protocol("x", "file:", untouched)
    assert not untouched


def test_backing_names() -> None:
    assert names.backing_filename("/d/top", "base") == "/d/base"
    assert names.backing_filename("/d/top", "") is None
    assert names.backing_filename("json:{}", "nbd:x") == "nbd:x"
    with pytest.raises(BlockError) as caught:
        names.backing_filename("json:{}", "base")
    assert caught.value.message == "Cannot use relative backing file names for 'json:{}'"
