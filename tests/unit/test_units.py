import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinvirt.errors import UsageError
from thinvirt.units import format_duration, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("512", 512), ("1k", 1024), ("1K", 1024), ("10G", 10 << 30), ("2b", 2),
        ("1.5T", 3 << 39), ("0x10", 16), ("4GiB", 4 << 30), ("4GB", 4 << 30), (" 1M ", 1 << 20),
        ("7E", 7 << 60),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1Q", "1 G", "1..5G", "8E", "0xG", "ten", "1GG"])
def test_what_is_no_size_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_size(text, what="disk size")
    assert "disk size" in str(raised.value)
    assert raised.value.hint


def test_bare_number_counts_in_the_default_suffix() -> None:
    assert parse_size("512", default_suffix="M") == 512 << 20
    assert parse_size("1G", default_suffix="M") == 1 << 30


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (512, "512 B"), (1024, "1 KiB"), (12288, "12 KiB"), (200704, "196 KiB"),
        (1 << 30, "1 GiB"), (117440512, "112 MiB"), (1048576000, "0.977 GiB"), (1 << 60, "1 EiB"),
    ],
)  # fmt: skip
def test_sizes_as_qemu_img_prints_them(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(min_value=0, max_value=7 << 60))
def test_printed_sizes_read_back_within_their_precision(size: int) -> None:
    back = parse_size(format_size(size).replace(" ", ""))
    assert back == pytest.approx(size, rel=0.006)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.42 s"), (7.31, "7.3 s"), (125.2, "2 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
