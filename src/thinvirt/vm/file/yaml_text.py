"""YAML to plain values, each with its line and column.

Scalars mean what YAML 1.2's core schema says: ``on`` and ``yes`` are text, and so is
``52:54:00:12:34:56``, which YAML 1.1 takes for a number of base 60. Values are built from the
parser's events without recursion, and what aliases add up to is counted: neither depth nor
expansion can exhaust memory. Tags that would make objects are refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from thinvirt.vm.file.document import (
    MAX_DEPTH,
    MAX_TEXT,
    MAX_VALUES,
    BadText,
    Document,
    Mark,
    inner,
)

_TAG: Final = "tag:yaml.org,2002:"
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS: Final = {
    word: truth
    for truth in (True, False)
    for word in (str(truth).lower(), str(truth), str(truth).upper())
}
_MERGE: Final = "<<"
_MAX_DIGITS: Final = 20  # more than 64 bits are no number of ours


@dataclass(slots=True)
class _Node:
    """A value with its own places, relative to itself, and how many values it holds."""

    value: Any
    mark: Mark
    marks: dict[str, Mark] = field(default_factory=dict)
    weight: int = 1


@dataclass(slots=True)
class _Open:
    """A container whose end has not come yet; `merged` are the keys it has from ``<<`` only."""

    node: _Node
    anchor: str | None
    key: _Node | None = None
    merged: set[str] = field(default_factory=set)


def read_yaml(text: str) -> Document:
    """Return what a YAML document says.

    Raises:
        BadText: it is none, it is not one document, or it means too much.
        ModuleNotFoundError: PyYAML is not installed.
    """
    import yaml

    if len(text) > MAX_TEXT:
        raise BadText(f"the file has more than {MAX_TEXT >> 20} MiB")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    reader = _Reader()
    try:
        node = reader.read(iter(yaml.parse(text, Loader=loader)))
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = None if at is None else Mark(at.line + 1, at.column + 1)
        context = f", {error.context}" if error.context else ""
        raise BadText(f"not YAML: {error.problem}{context}", mark) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise BadText(f"not YAML: {error.reason}", Mark(line, column)) from None
    if node is None:
        return Document(None)
    return Document(node.value, {"": node.mark, **node.marks})


class _Reader:
    """Builds nodes from events; containers that are open are on a stack."""

    def __init__(self) -> None:
        self._anchors: dict[str, _Node] = {}

    def read(self, events: Iterator[Any]) -> _Node | None:
        """Return the one document's node, None for an empty text."""
        found: _Node | None = None
        documents = 0
        for event in events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                documents += 1
                if documents > 1:
                    raise BadText(
                        "a second document begins",
                        _mark(event),
                        hint="one document a file: put all VMs in one list, vms:",
                    )
                self._anchors.clear()
            elif kind not in ("StreamStartEvent", "StreamEndEvent", "DocumentEndEvent"):
                found = self._node(event, events)
        return found

    def _node(self, first: Any, events: Iterator[Any]) -> _Node:
        """Return the node that begins with an event."""
        stack: list[_Open] = []
        event = first
        while True:
            kind = type(event).__name__
            done: _Node | None = None
            if kind in ("MappingStartEvent", "SequenceStartEvent"):
                if len(stack) >= MAX_DEPTH:
                    raise BadText(f"nested deeper than {MAX_DEPTH} levels", _mark(event))
                _refuse_tag(event, "map" if kind[0] == "M" else "seq")
                node = _Node({} if kind[0] == "M" else [], _mark(event))
                stack.append(_Open(node, event.anchor))
            elif kind in ("MappingEndEvent", "SequenceEndEvent"):
                opened = stack.pop()
                done = opened.node
                self._remember(opened.anchor, done)
            elif kind == "AliasEvent":
                done = self._aliased(event)
            else:
                done = _scalar(event)
                self._remember(event.anchor, done)
            if done is not None:
                if not stack:
                    return done
                self._add(stack[-1], done)
            event = next(events)

    def _remember(self, anchor: str | None, node: _Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _aliased(self, event: Any) -> _Node:
        known = self._anchors.get(event.anchor)
        if known is None:
            raise BadText(f"nothing before this is called '&{event.anchor}'", _mark(event))
        return _Node(known.value, known.mark, known.marks, known.weight)

    def _add(self, opened: "_Open", done: _Node) -> None:
        """Put a finished node into the container it stands in."""
        holder = opened.node
        holder.weight += done.weight
        if holder.weight > MAX_VALUES:
            raise BadText(f"it means more than {MAX_VALUES} values", done.mark)
        if isinstance(holder.value, list):
            _place(holder, inner("", len(holder.value)), done)
            holder.value.append(done.value)
        elif opened.key is None:
            opened.key = _key(done)
        else:
            self._add_pair(opened, opened.key, done)
            opened.key = None

    def _add_pair(self, opened: "_Open", key: _Node, done: _Node) -> None:
        holder, name = opened.node, key.value
        if name == _MERGE:
            self._merge(opened, done)
            return
        if name in holder.value and name not in opened.merged:
            line = holder.marks[name].line
            raise BadText(
                f"key '{name}' stands twice here (first in line {line})",
                key.mark,
                hint="remove one of them",
            )
        opened.merged.discard(name)
        _forget(holder, name)
        holder.value[name] = done.value
        _place(holder, name, done)

    def _merge(self, opened: "_Open", done: _Node) -> None:
        """Take over what ``<<`` names, where the group itself does not say otherwise."""
        if not isinstance(done.value, dict):
            raise BadText("'<<' takes one group of keys, *ANCHOR", done.mark)
        holder = opened.node
        for name, value in done.value.items():
            if name in holder.value:
                continue
            holder.value[name] = value
            opened.merged.add(name)
            holder.marks |= {
                place: mark for place, mark in done.marks.items() if _belongs(place, name)
            }


def _belongs(place: str, name: str) -> bool:
    return place == name or place.startswith((f"{name}.", f"{name}["))


def _forget(holder: _Node, name: str) -> None:
    for place in [place for place in holder.marks if _belongs(place, name)]:
        del holder.marks[place]


def _place(holder: _Node, at: str, done: _Node) -> None:
    """Note where a value and what is in it stand, relative to its holder."""
    holder.marks[at] = done.mark
    for place, mark in done.marks.items():
        holder.marks[at + place if place.startswith("[") else f"{at}.{place}"] = mark


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _refuse_tag(event: Any, *allowed: str) -> None:
    if event.tag is not None and event.tag not in {"!", *(f"{_TAG}{name}" for name in allowed)}:
        raise BadText(f"tag '{event.tag}' is not possible here", _mark(event), hint="plain values")


def _scalar(event: Any) -> _Node:
    """Return the value of a scalar: quoted ones are text."""
    _refuse_tag(event, "str")
    text, mark = event.value, _mark(event)
    if not event.implicit[0] or event.style in ("'", '"', "|", ">"):
        return _Node(text, mark)
    if text in _NULLS:
        return _Node(None, mark)
    if text in _TRUTHS:
        return _Node(_TRUTHS[text], mark)
    if _INTEGER.fullmatch(text) and len(text) <= _MAX_DIGITS:
        return _Node(int(text, 16 if text[:2] == "0x" else 10), mark)
    if _FLOAT.fullmatch(text):
        return _Node(float(text), mark)
    return _Node(text, mark)


def _key(node: _Node) -> _Node:
    if not isinstance(node.value, str):
        raise BadText("a key has to be text", node.mark)
    return node
