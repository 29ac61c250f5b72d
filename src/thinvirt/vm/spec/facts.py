"""Specifications to and from plain JSON-ready values, by the types their fields declare.

One reader serves the catalogue, YAML files and the API: whatever is wrong is collected, each thing
with its place (``disks[1].cache``), and nothing is guessed.
"""

from collections.abc import Hashable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from thinvirt.vm.spec.problems import Problem

T = TypeVar("T")
_WORDS = {int: "a whole number", str: "text", bool: "true or false", float: "a number"}
_WRONG = object()  # stands for a value that a problem was noted for


def to_facts(value: Any) -> dict[str, Any]:
    """Return what differs from the defaults; fields without a default are always there.

    Args:
        value: a dataclass instance of `thinvirt.vm.spec`.
    """
    facts = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if field.default is MISSING or item != field.default:
            facts[field.name] = _plain(item, says_itself=field.name in _ALWAYS)
    return facts


_ALWAYS = frozenset({"networks"})


def _plain(item: Any, *, says_itself: bool = False) -> Any:
    if isinstance(item, tuple):
        return [_plain(each, says_itself=says_itself) for each in item]
    if not is_dataclass(item):
        return item
    facts = to_facts(item)
    if says_itself:  # {"kind": "user"} is easier to read than {}
        first = fields(item)[0].name
        return {first: getattr(item, first)} | facts
    return facts


@cache
def _field_types(cls: Hashable) -> dict[str, Any]:
    assert isinstance(cls, type)
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def field_types(cls: type) -> dict[str, Any]:
    """Return the declared type of every field of a dataclass, by name."""
    return _field_types(cls)


def read_facts(cls: type[T], facts: Any, problems: list[Problem], place: str = "") -> T:
    """Return the value that `facts` describe.

    Args:
        cls: a dataclass of `thinvirt.vm.spec`.
        facts: plain values, as JSON or YAML gives them.
        problems: whatever is wrong is added here; if anything was, the result is of no use.
        place: where the facts stand.
    """
    if not isinstance(facts, Mapping):
        problems.append(Problem(place, f"{_place(place)} is {_found(facts)}, not a group of keys"))
        facts = {}
    types = field_types(cls)
    for key in facts:
        if key not in types:
            problems.append(_unknown(str(key), list(types), place))
    values = {}
    for field in fields(cls):  # type: ignore[arg-type]  # `cls` is a dataclass
        where = f"{place}.{field.name}" if place else field.name
        if field.name in facts:
            value = _read(types[field.name], facts[field.name], problems, where)
            if value is not _WRONG:
                values[field.name] = value
        elif _required(field):
            problems.append(Problem(where, f"{_place(where)} is missing"))
    for field in fields(cls):  # type: ignore[arg-type]
        if _required(field) and field.name not in values:
            values[field.name] = None  # a problem was noted
    return cls(**values)


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _read(declared: Any, value: Any, problems: list[Problem], place: str) -> Any:
    origin = get_origin(declared)
    if origin in (Union, UnionType):
        (declared,) = (choice for choice in get_args(declared) if choice is not NoneType)
        return None if value is None else _read(declared, value, problems, place)
    if origin is Literal:
        return _read_word(get_args(declared), value, problems, place)
    if origin is tuple:
        return _read_list(get_args(declared)[0], value, problems, place)
    if is_dataclass(declared):
        return read_facts(declared, value, problems, place)  # type: ignore[arg-type]
    return _read_plain(declared, value, problems, place)


def _read_plain(declared: type, value: Any, problems: list[Problem], place: str) -> Any:
    if type(value) is declared:  # a bool is an int to Python, and not to people
        return value
    wanted = _WORDS.get(declared, str(declared))
    problems.append(Problem(place, f"{_place(place)} is {_found(value)}, not {wanted}"))
    return _WRONG


def _read_word(words: tuple[str, ...], value: Any, problems: list[Problem], place: str) -> Any:
    if value in words and isinstance(value, str):
        return value
    message = f"unknown {_place(place)} {_shown(value)}"
    problems.append(Problem(place, message, f"known: {', '.join(words)}"))
    return _WRONG


def _read_list(declared: Any, value: Any, problems: list[Problem], place: str) -> Any:
    if not isinstance(value, list | tuple):
        problems.append(Problem(place, f"{_place(place)} is {_found(value)}, not a list"))
        return _WRONG
    return tuple(
        _read(declared, item, problems, f"{place}[{number}]") for number, item in enumerate(value)
    )


def _unknown(key: str, known: list[str], place: str) -> Problem:
    from difflib import get_close_matches

    near = get_close_matches(key, known, n=1)
    where = f"{place}.{key}" if place else key
    fix = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    return Problem(where, f"there is no key '{key}' in {_place(place)}", fix)


def _place(place: str) -> str:
    return place or "the specification"


def _found(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a group of keys"
    if isinstance(value, list | tuple):
        return "a list"
    return _shown(value)


def _shown(value: Any) -> str:
    text = "true" if value is True else "false" if value is False else str(value)
    return f"'{text[:40]}'"
