"""One option's value: ``first,key=value,key=value``, by a table of the keys it takes.

The grammar is virt-install's: the first word may stand without a key, a comma in a value is
written twice, a key without a value says "yes", and what is not known is refused by name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from thinvirt.errors import UsageError

LIST_KEYS = frozenset({"?", "help"})


class BadOption(UsageError):
    """A value of an option that cannot be read."""

    kind = "option"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an option.

    Attributes:
        name: as it is written.
        field: what it sets.
        read: makes a value of its text, and raises `ValueError` with what is wrong.
        help: what it does; one line.
        aliases: other spellings.
        words: what single values mean, for a listing.
    """

    name: str
    field: str
    read: Callable[[str], Any]
    help: str
    aliases: tuple[str, ...] = ()
    words: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class OptionTable:
    """What an option's value may hold.

    Attributes:
        option: the option: ``--disk``.
        summary: what it is for.
        first: the key that a first word without one means, "" if there is none.
        keys: all keys.
        foreign: keys that virt-install has and VMs of ours have not, each with the reason or the
            way out.
    """

    option: str
    summary: str
    first: str
    keys: tuple[Key, ...]
    foreign: Mapping[str, str]

    def find(self, name: str) -> Key | None:
        """Return the key of this name or alias."""
        for key in self.keys:
            if name == key.name or name in key.aliases:
                return key
        return None


def split(text: str) -> list[str]:
    """Return the parts between single commas; a doubled comma stands for one.

    Blanks around a part are dropped, and empty parts with them.
    """
    parts, part, position = [], "", 0
    while position < len(text):
        if text.startswith(",,", position):
            part += ","
            position += 2
        elif text[position] == ",":
            parts.append(part)
            part = ""
            position += 1
        else:
            part += text[position]
            position += 1
    parts.append(part)
    return [part.strip() for part in parts if part.strip()]


def parse(table: OptionTable, text: str) -> dict[str, Any]:
    """Return what the keys set, by field.

    Raises:
        BadOption: a key is not known, stands twice, or its value cannot be read. All unknown keys
            are named at once.
    """
    found: dict[str, Any] = {}
    unknown: list[str] = []
    for number, part in enumerate(split(text)):
        name, equals, value = part.partition("=")
        key = table.find(name)
        if number == 0 and table.first and not (equals and (key or _is_key(table, name))):
            key, value, equals = table.find(table.first), part, "="
        if key is None:
            unknown.append(name)
            continue
        if key.field in found:
            raise BadOption(f"{table.option}: {key.name} is given twice")
        found[key.field] = _read(table, key, value if equals else "yes")
    if unknown:
        raise _unknown(table, unknown)
    return found


def _is_key(table: OptionTable, name: str) -> bool:
    """Tell whether what stands before "=" is meant as a key: ``/a=b.img`` is a path."""
    return name in table.foreign or name.replace(".", "").isidentifier()


def _read(table: OptionTable, key: Key, text: str) -> Any:
    try:
        return key.read(text)
    except ValueError as error:
        raise BadOption(f"{table.option}: {key.name}={text} is not possible: {error}") from None


def _unknown(table: OptionTable, names: list[str]) -> BadOption:
    from difflib import get_close_matches

    foreign = [name for name in names if name in table.foreign]
    if foreign:
        return BadOption(
            f"{table.option}: {foreign[0]} is known to virt-install and not here",
            hint=table.foreign[foreign[0]],
        )
    spellings = [key.name for key in table.keys]
    near = get_close_matches(names[0], spellings, n=1)
    return BadOption(
        f"Unknown {table.option} options: {names}",
        hint=f"did you mean {near[0]}?" if near else f"{table.option} ? lists them",
    )


def listing(table: OptionTable) -> Iterator[str]:
    """Yield the lines of ``OPTION ?``: every key with what it does, and what its values mean."""
    yield f"{table.option} options: {table.summary}"
    width = max(len(key.name) for key in table.keys)
    for key in sorted(table.keys, key=lambda key: key.name):
        also = f" (also {', '.join(key.aliases)})" if key.aliases else ""
        yield f"  {key.name:<{width}}  {key.help}{also}"
        for value, meaning in (key.words or {}).items():
            yield f"  {'':<{width}}    {value}: {meaning}"
