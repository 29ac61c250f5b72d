"""Typed options and QEMU's messages about them."""

import pytest

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.schema import Option, OptionList, OptionType, size_of

LIST = OptionList(
    "test",
    [
        Option("size", OptionType.SIZE, "Virtual disk size"),
        Option("lazy", OptionType.BOOL, default="on"),
        Option("bits", OptionType.NUMBER, "Width of a reference count entry in bits", "16"),
        Option("name", OptionType.STRING, "What it is called"),
    ],
)


def test_values_are_typed_and_the_last_one_wins() -> None:
    values = LIST.parse("size=1k,name=a,,b,bits=0x10,size=1.5M")
    assert values.size("size") == 3 << 19
    assert values.text("name") == "a,b"
    assert values.get("bits") == 16
    assert values.flag("lazy")
    assert "lazy" not in values
    assert dict(values.given()) == {"name": "a,b", "bits": "0x10", "size": "1.5M"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=1", "Invalid parameter 'x'"),
        ("size=x", "Parameter 'size' expects a non-negative number below 2^64"),
        ("size=16E", "Value '16E' is out of range for parameter 'size'"),
        ("lazy=maybe", "Parameter 'lazy' expects 'on' or 'off'"),
        ("bits=1k", "Parameter 'bits' expects a number"),
        (
            "bits=18446744073709551616",
            "Value '18446744073709551616' is too large for parameter 'bits'",
        ),
    ],
)
def test_messages(text: str, message: str) -> None:
    with pytest.raises(BlockError) as caught:
        LIST.parse(text)
    assert caught.value.message == message


def test_absorb_takes_what_it_knows_and_leaves_the_rest() -> None:
    tree = {"size": 512, "lazy": False, "other": 1, "name": None}
    values = LIST.absorb(tree)
    assert tree == {"other": 1}
    assert (values.size("size"), values.flag("lazy")) == (512, False)
    assert "name" not in values


def test_help_is_sorted_and_aligned() -> None:
    assert LIST.help_lines() == [
        "  bits=<num>             - Width of a reference count entry in bits",
        "  lazy=<bool (on/off)>",
        "  name=<str>             - What it is called",
        "  size=<size>            - Virtual disk size",
    ]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1), ("1b", 1), ("1k", 1024), ("1.5K", 1536), ("1.k", 1024), ("0x10", 16),
        ("0x10k", 16384), (" 5", 5), ("+5", 5), ("15E", 15 << 60), ("0.5b", None), ("1.5", None),
        (".5k", None), ("-1", None), ("1e3", None), ("1.5e3k", None), ("0x", None), ("", None),
        ("1kk", None), ("1.0", 1), ("00x1", None), ("9" * 100, 1 << 64),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int | None) -> None:
    assert size_of(text) == size
