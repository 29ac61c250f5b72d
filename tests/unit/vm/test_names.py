import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinvirt.errors import UsageError
from thinvirt.vm.names import batch_names, check_template_name, check_vm_name


@pytest.mark.parametrize("name", ["a", "web-001", "A9", "x" * 63])
def test_good_vm_names(name: str) -> None:
    assert check_vm_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", "a_b", "a.b", "a b", "../x", "a/b", "x" * 64, "ünï", "12", "a\n", "web*"],
)
def test_bad_vm_names_say_what_is_allowed(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_vm_name(name)
    assert "host name" in raised.value.hint


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a@2", "-x", "x" * 64, "a b"])
def test_bad_template_names(name: str) -> None:
    with pytest.raises(UsageError):
        check_template_name(name)


def test_template_names_take_dots_and_underscores() -> None:
    assert check_template_name("debian-12.4_amd64") == "debian-12.4_amd64"


def test_a_batch_is_padded_to_three_digits() -> None:
    names = batch_names("web", 100)
    assert (names[0], names[-1], len(names)) == ("web-001", "web-100", 100)
    assert batch_names("web", None) == ["web"]
    assert batch_names("web", 1) == ["web-001"]
    assert batch_names("web", 1000)[0] == "web-0001"


@given(st.integers(min_value=1, max_value=3000))
def test_batch_names_are_distinct_sorted_and_possible(count: int) -> None:
    names = batch_names("w", count)
    assert names == sorted(set(names))
    assert all(check_vm_name(name) for name in (names[0], names[-1]))


@pytest.mark.parametrize("count", [0, -1, 100_001])
def test_counts_out_of_range(count: int) -> None:
    with pytest.raises(UsageError):
        batch_names("web", count)


def test_a_batch_whose_longest_name_is_too_long() -> None:
    with pytest.raises(UsageError):
        batch_names("x" * 60, 10)
