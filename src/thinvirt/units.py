"""Sizes as people write them, by qemu-img's suffix rules: powers of 1024, ``10G``, ``1.5T``."""

import re
from decimal import Decimal

from thinvirt.errors import UsageError

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
SECTOR = 512

_SUFFIXES = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?|0[xX][0-9a-fA-F]+)(?P<suffix>[a-zA-Z]?)(?:i?[bB])?")


def parse_size(text: str, *, default_suffix: str = "", what: str = "size") -> int:
    """Return the number of bytes that `text` means.

    Args:
        text: a number with an optional suffix ``b k K M G T P E`` (1024-based, any case);
            fractions and hexadecimal are taken as qemu-img takes them, and ``GiB``/``GB`` too.
        default_suffix: what a bare number is counted in (virt-install counts memory in ``M``).
        what: the name of the value, for the message.

    Raises:
        UsageError: `text` is no size, is negative, or does not fit in 63 bits.
    """
    match = _SIZE.fullmatch(text.strip())
    suffix = (match["suffix"] or default_suffix).lower() if match else ""
    if match is None or suffix not in _SUFFIXES:
        raise UsageError(
            f"invalid {what} '{text}'",
            hint="a number with an optional suffix k, M, G, T, P or E, such as 10G or 1.5T",
        )
    number = match["number"]
    if number[:2] in ("0x", "0X"):
        value = int(number, 16) << _SUFFIXES[suffix]
    else:
        value = int(Decimal(number) * (1 << _SUFFIXES[suffix]))
    if value >= 1 << 63:
        raise UsageError(f"{what} '{text}' is too large", hint="the largest is just below 8E")
    return value


def format_size(size_bytes: int) -> str:
    """Return `size_bytes` as ``qemu-img info`` prints it: three significant digits, KiB to EiB."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    value, unit = size_bytes / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}"


def format_duration(seconds: float) -> str:
    """Return a time span for people: ``0.42 s``, ``7.3 s``, ``2 min 05 s``."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
