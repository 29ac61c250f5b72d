"""JSON in QEMU's dialect."""

import pytest

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.qemu_json import dumps, loads


def test_compact_and_pretty() -> None:
    value = {"file": {"driver": "file", "n": [1, True, None, 1.5]}, "e": {}, "l": []}
    assert (
        dumps(value)
        == ('{"l": [], "e": {}, "file": {"n": [1, true, null, 1.5], "driver": "file"}}')
        or loads(dumps(value)) == value
    )
    assert (
        dumps({"a": [1, {}]}, pretty=True)
        == '{\n    "a": [\n        1,\n        {\n        }\n    ]\n}'
    )


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ('a"b\\c', r'"a\"b\\c"'),
        ("\b\f\n\r\t\x01\x7f", r'"\b\f\n\r\t\u0001\u007F"'),
        ("é😀", r'"\u00E9\uD83D\uDE00"'),
        ("\udcff", r'"\uFFFD"'),  # a byte that is no UTF-8
        ("it's", '"it\'s"'),
    ],
)
def test_strings_are_printed_as_ascii(text: str, printed: str) -> None:
    assert dumps(text) == printed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 'b'}", {"a": "b"}),
        (r"""'it\'s "so" \u00e9 \ud83d\ude00 \/'""", 'it\'s "so" é 😀 /'),
        ("-0.5e3", -500.0),
        ("18446744073709551615", (1 << 64) - 1),
        ("18446744073709551616", 18446744073709551616.0),
        ("-9223372036854775808", -(1 << 63)),
        ("[]", []),
        (" [1,[2,{}],{'x':[]}] ", [1, [2, {}], {"x": []}]),
        ("null", None),
    ],
)
def test_reading(text: str, value: object) -> None:
    assert loads(text) == value


def test_deep_nesting_is_bounded_and_needs_no_recursion() -> None:
    deep = 1024
    value = loads("[" * deep + "]" * deep)
    for _ in range(deep - 1):
        value = value[0]
    assert value == []
    with pytest.raises(BlockError, match="nesting depth limit"):
        loads("[" * 1025)


def test_a_zero_character_does_not_end_a_name() -> None:
    assert loads(r"'a\u0000b'") == "a\udcc0\udc80b"
