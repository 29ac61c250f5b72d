"""JSON as QEMU reads and prints it: quotes of both kinds, its messages, layout and order."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.options import qemu_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from thinvirt.image.block.options import Value

MAX_NESTING = 1024
_STRUCTURE = "{}[],:"
_BLANK = " \t\r\n"
_ESCAPES = {
    '"': '"', "'": "'", "\\": "\\", "/": "/",
    "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t",
}  # fmt: skip
_MORE_THAN_ONE = "Expecting at most one JSON value"
_KEYWORDS = {"true": True, "false": False, "null": None}

# ---------------------------------------------------------------- printing


def dumps(value: Value, *, pretty: bool = False) -> str:
    """Return `value` as QEMU prints it.

    Args:
        value: dicts, lists, str, int, float, bool and None. Dicts come in QEMU's order of keys.
        pretty: a line per item, four spaces a level (``--output=json``), instead of one line.
    """
    return "".join(_pieces(value, 0 if pretty else -1))


def _pieces(value: Value, level: int) -> Iterator[str]:
    if isinstance(value, dict):
        opening, closing = "{", "}"
        entries = [(f"{quote(key)}: ", inner) for key, inner in qemu_order(value)]
    elif isinstance(value, list | tuple):
        opening, closing = "[", "]"
        entries = [("", inner) for inner in value]
    else:
        yield _scalar(value)
        return
    inside = level + 1 if level >= 0 else level
    newline = "\n" + "    " * inside if level >= 0 else ""
    yield opening
    separator = newline
    for name, inner in entries:
        yield separator
        yield name
        yield from _pieces(inner, inside)
        separator = "," + (newline or " ")
    if level >= 0:
        yield "\n" + "    " * level
    yield closing


def _scalar(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.17g}"
    return quote(value)


_SHORT = {
    '"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
}  # fmt: skip


def quote(text: str) -> str:
    """Return `text` as a JSON string: ASCII only, what is no Unicode as U+FFFD."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_quoted_character, text)) + '"'


def _quoted_character(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if not _is_character(code):
        return "\\uFFFD"
    if code > 0xFFFF:
        rest = code - 0x10000
        return f"\\u{0xD800 + (rest >> 10):04X}\\u{0xDC00 + (rest & 0x3FF):04X}"
    if code < 0x20 or code >= 0x7F:
        return f"\\u{code:04X}"
    return character


def _is_character(code: int) -> bool:
    """Whether a code point stands for a character: no surrogate, no noncharacter."""
    if 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF:
        return False
    return 0 <= code <= 0x10FFFF and code & 0xFFFE != 0xFFFE


# ---------------------------------------------------------------- reading


def loads(text: str) -> Value:
    """Return the one JSON value of `text`.

    Raises:
        BlockError: it is none, in QEMU's words.
    """
    values = _values(text)
    try:
        value = next(values)
    except StopIteration:
        raise BlockError("Expecting a JSON value") from None
    try:
        next(values)
    except StopIteration:
        return value
    except BlockError as error:
        raise BlockError(_MORE_THAN_ONE) from error  # whatever is wrong with it
    raise BlockError(_MORE_THAN_ONE)


def _values(text: str) -> Iterator[Value]:
    """Yield the values of `text`; a value ends where its brackets balance."""
    group: list[str] = []
    braces = brackets = 0
    for lexeme in _lexemes(text):
        braces += (lexeme == "{") - (lexeme == "}")
        brackets += (lexeme == "[") - (lexeme == "]")
        if braces + brackets > MAX_NESTING:
            raise BlockError("JSON nesting depth limit exceeded")
        group.append(lexeme)
        if (braces > 0 or brackets > 0) and braces >= 0 and brackets >= 0:
            continue
        yield _Parser(group).value()
        group = []
        braces = brackets = 0
    if group:
        yield _Parser(group).value()


def _lexemes(text: str) -> Iterator[str]:
    """Yield the lexemes as they stand in the text."""
    at, end = 0, len(text)
    while at < end:
        first = text[at]
        if first in _BLANK:
            at += 1
            continue
        if first in _STRUCTURE:
            stop = at + 1
        elif first in "\"'":
            stop = _string_end(text, at)
        elif first in "-0123456789":
            stop = _number_end(text, at)
        elif "a" <= first <= "z":
            stop = at + 1
            while stop < end and "a" <= text[stop] <= "z":
                stop += 1
        else:
            raise _stray(text[at : at + 1])
        yield text[at:stop]
        at = stop


def _stray(text: str) -> BlockError:
    return BlockError(f"JSON parse error, stray '{text}'")


def _string_end(text: str, start: int) -> int:
    at = start + 1
    while at < len(text):
        character = text[at]
        if character < " ":
            raise _stray(text[start : at + 1])
        if character == text[start]:
            return at + 1
        if character == "\\":
            at += 1
            if at < len(text) and text[at] < " ":
                raise _stray(text[start : at + 1])
        at += 1
    raise _stray(text[start:])


def _number_end(text: str, start: int) -> int:
    at = start + (text[start] == "-")
    if text[at : at + 1] == "0":
        at += 1
        if text[at : at + 1].isdecimal():
            raise _stray(text[start : at + 1])
    else:
        at = _digits(text, start, at)
    if text[at : at + 1] == ".":
        at = _digits(text, start, at + 1)
    if text[at : at + 1] in ("e", "E") and text[start:at] != "0":
        at += 1
        if text[at : at + 1] in ("+", "-"):
            at += 1
        at = _digits(text, start, at)
    return at


def _digits(text: str, start: int, at: int) -> int:
    """Return where at least one digit from `at` on ends."""
    first = at
    while at < len(text) and text[at] in "0123456789":
        at += 1
    if at == first:
        raise _stray(text[start : at + 1])
    return at


class _Parser:
    """One value from its lexemes, without recursion: a document may be nested deeply."""

    def __init__(self, lexemes: list[str]) -> None:
        self.lexemes = lexemes
        self.at = 0

    def fail(self, message: str) -> BlockError:
        return BlockError(f"JSON parse error, {message}")

    def next(self) -> str:
        if self.at >= len(self.lexemes):
            raise self.fail("premature EOI")
        self.at += 1
        return self.lexemes[self.at - 1]

    def value(self) -> Value:
        """Return the value; containers not finished yet wait on a stack with the key they had."""
        waiting: list[tuple[Value, str | None]] = []
        while True:
            lexeme = self.next()
            result: Value
            if lexeme in ("{", "["):
                result = {} if lexeme == "{" else []
                if self.peek() != ("}" if lexeme == "{" else "]"):
                    waiting.append((result, self.key(result) if lexeme == "{" else None))
                    continue
                self.at += 1
            else:
                result = self.scalar(lexeme)
            # Put what is finished into what waits for it, as long as that is then finished too.
            while waiting:
                container, key = waiting.pop()
                if key is None:
                    container.append(result)
                else:
                    container[key] = result
                if self.goes_on(container):
                    waiting.append((container, self.key(container) if key is not None else None))
                    break
                result = container
            else:
                return result

    def peek(self) -> str:
        if self.at >= len(self.lexemes):
            raise self.fail("premature EOI")
        return self.lexemes[self.at]

    def goes_on(self, container: Value) -> bool:
        """Pass the comma or the end after an item; return whether another item follows."""
        lexeme = self.next()
        if lexeme == ("}" if isinstance(container, dict) else "]"):
            return False
        if lexeme != ",":
            kind = "dict" if isinstance(container, dict) else "list"
            raise self.fail(f"expected separator in {kind}")
        return True

    def key(self, target: dict[str, Value]) -> str:
        """Return the key of the next pair, past its colon."""
        lexeme = self.next()
        key = None if lexeme in ("{", "[") else self.scalar(lexeme)
        if not isinstance(key, str):
            raise self.fail("key is not a string in object")
        if self.next() != ":":
            raise self.fail("missing : in object pair")
        if key in target:
            raise self.fail("duplicate key")
        return key

    def scalar(self, lexeme: str) -> Value:
        first = lexeme[0]
        if first in "\"'":
            return self.string(lexeme)
        if first in "-0123456789":
            return _number(lexeme)
        if lexeme in _KEYWORDS:
            return _KEYWORDS[lexeme]
        if lexeme in _STRUCTURE:
            raise self.fail("expecting value")
        raise self.fail(f"invalid keyword '{lexeme}'")

    def string(self, lexeme: str) -> str:
        parts = []
        at, end = 1, len(lexeme) - 1
        while at < end:
            character = lexeme[at]
            if character != "\\":
                if not _is_character(ord(character)):
                    raise self.fail("invalid UTF-8 sequence in string")
                parts.append(character)
                at += 1
                continue
            kind = lexeme[at + 1]
            if kind == "u":
                text, at = self.escaped_code(lexeme, at)
                parts.append(text)
            elif kind in _ESCAPES:
                parts.append(_ESCAPES[kind])
                at += 2
            else:
                raise self.fail("invalid escape sequence in string")
        return "".join(parts)

    def escaped_code(self, lexeme: str, start: int) -> tuple[str, int]:
        code, at = _hex(lexeme, start + 2), start + 6
        if 0xD800 <= code <= 0xDBFF and lexeme[at : at + 2] == "\\u":
            trailing = _hex(lexeme, at + 2)
            if 0xDC00 <= trailing <= 0xDFFF:
                code = 0x10000 + ((code & 0x3FF) << 10 | trailing & 0x3FF)
                at += 6
        if code == 0:
            return "\udcc0\udc80", at  # QEMU's strings end at a zero: it keeps two bytes instead
        if not _is_character(code):
            raise self.fail(f"{lexeme[start:at]} is not a valid Unicode character")
        return chr(code), at


def _hex(lexeme: str, at: int) -> int:
    digits = lexeme[at : at + 4]
    if len(digits) == 4 and all(c in "0123456789abcdefABCDEF" for c in digits):
        return int(digits, 16)
    return -1


def _number(lexeme: str) -> int | float:
    is_short = lexeme.lstrip("-").isdecimal() and len(lexeme) < 25
    if is_short and -(1 << 63) <= int(lexeme) < 1 << 64:
        return int(lexeme)
    return float(lexeme)
