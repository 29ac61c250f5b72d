"""Options declared once: name, type and help; read with QEMU's rules and QEMU's messages.

A driver declares what it takes when an image is opened and what when one is created; ``-o help``,
the reading of ``-o`` and of ``--image-opts``, and the compatibility table come from that.
"""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.options import qemu_order, split_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Final

    from thinvirt.image.block.options import Options, Value


class OptionType:
    """What a value is, in the words of the help."""

    STRING: Final = "str"
    BOOL: Final = "bool (on/off)"
    NUMBER: Final = "num"
    SIZE: Final = "size"


class Option:
    """One option: `default` is text as it would be given, None if there is none."""

    __slots__ = ("default", "help", "name", "type")

    def __init__(self, name: str, type: str, help: str = "", default: str | None = None) -> None:  # noqa: A002
        self.name = name
        self.type = type
        self.help = help
        self.default = default


class OptionList:
    """The options of a driver for one purpose, in the order it declares them."""

    def __init__(self, name: str, options: Iterable[Option]) -> None:
        self.name = name
        self.options = tuple(options)
        self._by_name = {option.name: option for option in self.options}

    def __iter__(self) -> Iterator[Option]:
        return iter(self.options)

    def find(self, name: str) -> Option | None:
        """Return the option of that name."""
        return self._by_name.get(name)

    def joined(self, other: OptionList) -> OptionList:
        """Return these options and, behind them, those of `other` with other names."""
        more = [option for option in other if option.name not in self._by_name]
        return OptionList(self.name, (*self.options, *more))

    def absorb(self, tree: Options) -> Values:
        """Take the options that are declared here out of a flat tree.

        Raises:
            BlockError: a value is not of its type.
        """
        values = Values(self)
        for key, value in qemu_order(tree):
            if key in self._by_name:
                if isinstance(value, bool):
                    values.set(key, "on" if value else "off")
                elif isinstance(value, str | int | float):
                    values.set(key, str(value))
                del tree[key]
        return values

    def parse(self, text: str) -> Values:
        """Return what an ``-o`` text says.

        Raises:
            BlockError: an option is not known, or its value is not of its type.
        """
        values = Values(self)
        values.parse(text)
        return values

    def help_lines(self) -> list[str]:
        """Return the lines of ``-o help``, sorted."""
        lines = []
        for option in self.options:
            line = f"  {option.name}=<{option.type}>"
            if option.help:
                line = f"{line:<24} - {option.help}"
            lines.append(line)
        return sorted(lines)


class OptionsIn:
    """An attribute of a driver's class: the options declared in another module.

    That is imported when they are asked for, which opening an image does not.

    Args:
        module: its full name.
        name: of the `OptionList` in it.
    """

    __slots__ = ("_module", "_name")

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def __get__(self, node: object, owner: type) -> OptionList:
        """Return the options."""
        options: OptionList = getattr(__import__(self._module, fromlist=[self._name]), self._name)
        return options


class Values:
    """Values given for an `OptionList`; what was not given has its default, or the caller's."""

    def __init__(self, declared: OptionList) -> None:
        self.declared = declared
        self._given: dict[str, tuple[str, Value]] = {}  # as text, and as its type

    def __contains__(self, name: str) -> bool:
        """Whether it was given, whatever its default."""
        return name in self._given

    def parse(self, text: str) -> None:
        """Add what an ``-o`` text says; later values win."""
        for name, value, _ in split_pairs(text):
            if name != "id":
                self.set(name, value)

    def set(self, name: str, text: str) -> None:
        """Set one option from its text.

        Raises:
            BlockError: it is not known, or the value is not of its type.
        """
        option = self.declared.find(name)
        if option is None:
            raise BlockError(f"Invalid parameter '{name}'")
        value = parse_typed(option, text)
        # The one given last is printed last: QEMU keeps all and reads them from the end.
        self._given.pop(name, None)
        self._given[name] = (text, value)

    def drop(self, name: str) -> None:
        """Forget a value."""
        self._given.pop(name, None)

    def text(self, name: str) -> str | None:
        """Return the text given, or the declared default, or None."""
        if name in self._given:
            return self._given[name][0]
        option = self.declared.find(name)
        return option.default if option else None

    def get(self, name: str, default: Value = None) -> Value:
        """Return the typed value, or the declared default, or `default`."""
        if name in self._given:
            return self._given[name][1]
        option = self.declared.find(name)
        if option is not None and option.default is not None:
            return parse_typed(option, option.default)
        return default

    def size(self, name: str, default: int = 0) -> int:
        """Return a size or number."""
        return int(self.get(name, default))

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a bool."""
        return bool(self.get(name, default))

    def choice(self, name: str, allowed: Iterable[str], default: str) -> str:
        """Return a text that is one of a few.

        Raises:
            BlockError: it is none of them.
        """
        text = self.text(name)
        return default if text is None else parse_choice(text, allowed)

    def given(self) -> Mapping[str, str]:
        """Return what was given, as text, in order."""
        return {name: text for name, (text, _) in self._given.items()}


def parse_typed(option: Option, text: str) -> Value:
    """Return the value that `text` is for `option`.

    Raises:
        BlockError: it is none of that type.
    """
    if option.type == OptionType.BOOL:
        return parse_bool(option.name, text)
    if option.type == OptionType.NUMBER:
        return parse_number(option.name, text)
    if option.type == OptionType.SIZE:
        return parse_size(option.name, text)
    return text


def parse_choice(text: str, allowed: Iterable[str]) -> str:
    """Return `text` if it is one of those allowed.

    Raises:
        BlockError: it is not.
    """
    if text not in allowed:
        raise BlockError(f"invalid parameter value: {text}")
    return text


def parse_bool(name: str, text: str) -> bool:
    """Return what ``on``, ``off`` and their like mean.

    Raises:
        BlockError: none of them.
    """
    if text in ("on", "yes", "true", "y"):
        return True
    if text in ("off", "no", "false", "n"):
        return False
    raise BlockError(f"Parameter '{name}' expects 'on' or 'off'")


def parse_number(name: str, text: str) -> int:
    """Return a number below 2^64: decimal, 0x… or 0… for octal; a minus sign wraps, as in C.

    Raises:
        BlockError: no number, or too large.
    """
    value = _c_integer(text)
    if value is None:
        raise BlockError(f"Parameter '{name}' expects a number")
    if not -(1 << 64) < value < 1 << 64:
        raise BlockError(f"Value '{text}' is too large for parameter '{name}'")
    return value & 0xFFFFFFFFFFFFFFFF


def _c_integer(text: str) -> int | None:
    """Return what C's strtoull with base 0 makes of all of `text`."""
    digits = text.lstrip(" \t\n\v\f\r")
    sign = -1 if digits.startswith("-") else 1
    if digits[:1] in ("+", "-"):
        digits = digits[1:]
    base, allowed = 10, "0123456789"
    if digits[:2] in ("0x", "0X"):
        base, allowed, digits = 16, "0123456789abcdefABCDEF", digits[2:]
    elif digits[:1] == "0":
        base, allowed = 8, "01234567"
    if not digits or any(c not in allowed for c in digits):
        return None
    if len(digits) > 64:  # far too large whatever the base: do not compute it
        return sign << 65
    return sign * int(digits, base)


_SIZE_HINT = (
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
    "and exabytes, respectively.\n"
)


def parse_size(name: str, text: str) -> int:
    """Return a size in bytes: a number, perhaps with a fraction, and a suffix.

    Raises:
        BlockError: no size, or 2^64 and more.
    """
    value = size_of(text)
    if value is None:
        raise BlockError(
            f"Parameter '{name}' expects a non-negative number below 2^64", qemu_hint=_SIZE_HINT
        )
    if value >= 1 << 64:
        raise BlockError(f"Value '{text}' is out of range for parameter '{name}'")
    return value


_POWERS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}


def size_of(text: str, *, default_suffix: str = "b") -> int | None:
    """Return the bytes that `text` means, 2^64 for all that is more, or None if it is no size.

    Args:
        text: decimal with an optional fraction, or hexadecimal; an optional suffix b k M G T P E.
        default_suffix: what a bare number is counted in.
    """
    rest = text.lstrip(" \t\n\v\f\r").removeprefix("+")
    whole, rest = _leading(rest, "0123456789")
    fraction = ""
    if rest[:1] in ("x", "X") and whole == "0":
        whole, rest = _leading(rest[1:], "0123456789abcdefABCDEF")
        value = int(whole[:64] or "0", 16)
    else:
        value = int(whole[:64] or "0")
        if rest.startswith("."):
            fraction, rest = _leading(rest[1:], "0123456789")
    power = _POWERS.get(rest.lower()) if rest else _POWERS[default_suffix.lower()]
    # An exponent, a point after hexadecimal digits and half a byte are no sizes.
    if not whole or power is None or (fraction.strip("0") and not power):
        return None
    if value >= 1 << 64:
        return 1 << 64
    return min(_scaled(value, fraction, power), 1 << 64)


def _scaled(value: int, fraction: str, power: int) -> int:
    """Return `value.fraction` times 2^power, a half rounded up."""
    if not fraction:
        return value << power
    fixed = int(float(f"0.{fraction}") * 2.0**64)  # as exact as QEMU's
    return (value << power) + ((fixed << power) + (1 << 63) >> 64)


def _leading(text: str, allowed: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end] in allowed:
        end += 1
    return text[:end], text[end:]
