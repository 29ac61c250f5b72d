"""JSON to plain values, each with its line and column; needs no package."""

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # JSON's own, with positions
from typing import Any, Final

from thinvirt.vm.file.document import MAX_DEPTH, MAX_TEXT, BadText, Document, Mark, inner

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_PLAIN: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null")
_MAX_DIGITS: Final = 40


def read_json(text: str) -> Document:
    """Return what a JSON text says.

    Raises:
        BadText: it is none, a key stands twice, or it is more than anybody writes.
    """
    if len(text) > MAX_TEXT:
        raise BadText(f"the file has more than {MAX_TEXT >> 20} MiB")
    reader = _Reader(text)
    value = reader.value("", 0)
    reader.end()
    return Document(value, reader.marks)


class _Reader:
    def __init__(self, text: str) -> None:
        self.marks: dict[str, Mark] = {}
        self._text = text
        self._at = 0
        self._line, self._counted = 1, 0

    def value(self, place: str, depth: int) -> Any:
        """Return the value that begins here."""
        self._skip()
        self.marks[place] = self._mark()
        if depth > MAX_DEPTH:
            raise BadText(f"nested deeper than {MAX_DEPTH} levels", self._mark())
        match self._text[self._at : self._at + 1]:
            case "{":
                return self._group(place, depth)
            case "[":
                return self._list(place, depth)
            case '"':
                return self._string()
        found = _PLAIN.match(self._text, self._at)
        if found is None or len(found[0]) > _MAX_DIGITS:
            raise BadText("not JSON: a value is expected here", self._mark())
        self._at = found.end()
        return json.loads(found[0])

    def end(self) -> None:
        """Insist on the end of the text."""
        self._skip()
        if self._at != len(self._text):
            raise BadText("not JSON: something follows the end", self._mark())

    def _group(self, place: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._at += 1
        if self._takes("}"):
            return found
        while True:
            self._skip()
            mark = self._mark()
            if self._text[self._at : self._at + 1] != '"':
                raise BadText("not JSON: a key in double quotes is expected here", mark)
            key = self._string()
            if key in found:
                line = self.marks[inner(place, key)].line
                raise BadText(f"key '{key}' stands twice here (first in line {line})", mark)
            self._expect(":")
            found[key] = self.value(inner(place, key), depth + 1)
            if self._takes("}"):
                return found
            self._expect(",")

    def _list(self, place: str, depth: int) -> list[Any]:
        found: list[Any] = []
        self._at += 1
        if self._takes("]"):
            return found
        while True:
            found.append(self.value(inner(place, len(found)), depth + 1))
            if self._takes("]"):
                return found
            self._expect(",")

    def _string(self) -> str:
        try:
            text, self._at = scanstring(self._text, self._at + 1, True)
        except json.JSONDecodeError as error:
            raise BadText(f"not JSON: {error.msg}", Mark(error.lineno, error.colno)) from None
        return str(text)

    def _skip(self) -> None:
        blank = _BLANK.match(self._text, self._at)
        self._at = blank.end() if blank else self._at

    def _takes(self, character: str) -> bool:
        self._skip()
        if self._text[self._at : self._at + 1] != character:
            return False
        self._at += 1
        return True

    def _expect(self, character: str) -> None:
        if not self._takes(character):
            raise BadText(f"not JSON: '{character}' is expected here", self._mark())

    def _mark(self) -> Mark:
        """Return where we are; lines are counted on from the last mark."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return Mark(self._line, self._at - self._text.rfind("\n", 0, self._at))
