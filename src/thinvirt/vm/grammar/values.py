"""Readers of values: each takes a text and gives a value, or raises `ValueError` saying why not."""

import re
from collections.abc import Callable
from typing import Any, TypeVar, get_args

from thinvirt.errors import UsageError
from thinvirt.units import GIB, MIB, parse_size

_YES = frozenset({"yes", "on", "true", "1"})
_NO = frozenset({"no", "off", "false", "0"})
T = TypeVar("T")


def text(value: str) -> str:
    """Return the text, which may not be empty."""
    if not value:
        raise ValueError("it is empty")
    return value


def yes_no(value: str) -> bool:
    """Return what yes, on, true, 1 and their opposites mean."""
    if value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    raise ValueError("yes or no")


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from `low` to `high`."""

    def read(value: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", value) or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return read


def word(declared: Any, **also: str) -> Callable[[str], Any]:
    """Return a reader of one of the words of a Literal type.

    Args:
        declared: the type.
        also: other spellings, and the words they stand for.
    """
    words = get_args(declared)

    def read(value: str) -> Any:
        found = also.get(value.replace("-", "_"), value)
        if found not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return found

    return read


def gibibytes(value: str) -> int:
    """Return bytes: a bare number counts GiB, as virt-install has it; a suffix says otherwise."""
    try:
        size = parse_size(value, default_suffix="G")
    except UsageError as error:
        raise ValueError(f"{error}; such as 20 for 20 GiB, or 512M") from None
    if size <= 0:
        raise ValueError("more than nothing, such as 20 for 20 GiB")
    return -(-size // 512) * 512 if size < 1 << 63 else _too_much()


def _too_much() -> int:
    raise ValueError(f"no disk has more than {(1 << 63) // GIB} GiB")


def mac(value: str) -> str:
    """Return a hardware address in small letters."""
    if not re.fullmatch(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", value):
        raise ValueError("six bytes in hexadecimal, such as 52:54:00:12:34:56")
    return value.lower()


def mebibytes(value: str) -> int:
    """Return MiB: a bare number counts MiB, as virt-install has it; a suffix says otherwise."""
    try:
        size = parse_size(value, default_suffix="M", what="memory size")
    except UsageError as error:
        raise ValueError(f"{error}; such as 2048, 512M or 2G") from None
    if size <= 0 or size % MIB:
        raise ValueError("a memory size is a whole number of MiB, above 0")
    return size // MIB
