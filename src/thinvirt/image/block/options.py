"""Trees of options: their order, their dotted form, and ``key=value,…`` texts.

A tree is a plain dict of JSON values; inside the graph it is flat, with dotted keys
(``file.filename``). QEMU keeps such trees in hash tables and prints them in the order of its
buckets, and so do ``json:`` names, ``info --output=json`` and "Format specific information":
`qemu_order` gives that order for any dict.
"""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypeAlias

    # str, int, float, bool, None, dict or list: what JSON has
    Value: TypeAlias = Any
    Options: TypeAlias = dict[str, Value]
else:  # for those who import them at run time
    Value, Options = object, dict

_BUCKETS = 512
_MASK = 0xFFFFFFFF

_bucket_cache: dict[str, int] = {}


def bucket(key: str) -> int:
    """Return the bucket QEMU's hash table (gdbm's hash, by way of tdb) puts `key` into."""
    known = _bucket_cache.get(key)
    if known is not None:
        return known
    raw = key.encode("utf-8", "surrogateescape")
    value = 0x238F13AF * len(raw)
    for i in range(min(len(raw), 24)):  # the shifts repeat after 24 bytes
        value += sum(raw[i::24]) << (i * 5 % 24)
    result = (1103515243 * (value & _MASK) + 12345 & _MASK) % _BUCKETS
    if len(_bucket_cache) < 4096:  # keys come from images too: no end to them
        _bucket_cache[key] = result
    return result


def qemu_order(tree: Mapping[str, Value]) -> list[tuple[str, Value]]:
    """Return the items in QEMU's order: by bucket, within a bucket the newest first.

    A Python dict remembers insertion as QEMU does: a replaced value keeps its place.
    """
    items = list(tree.items())
    items.reverse()
    items.sort(key=lambda item: bucket(item[0]))
    return items


def clone(tree: Mapping[str, Value]) -> Options:
    """Return a shallow copy, as QEMU makes it: keys of one bucket change places."""
    return dict(qemu_order(tree))


def join(target: Options, source: Mapping[str, Value], *, overwrite: bool = False) -> None:
    """Add what `source` has and `target` has not (or all of it)."""
    for key, value in qemu_order(source):
        if overwrite or key not in target:
            target[key] = value


def get_str(tree: Mapping[str, Value], key: str) -> str | None:
    """Return the value if it is a string; anything else counts as not there."""
    value = tree.get(key)
    return value if isinstance(value, str) else None


def take_prefixed(tree: Options, prefix: str) -> Options:
    """Take the keys that begin with `prefix` out of `tree`; return them without it."""
    taken: Options = {}
    for key, value in qemu_order(tree):
        if key.startswith(prefix):
            taken[key[len(prefix) :]] = value
            del tree[key]
    return taken


def flatten(tree: Mapping[str, Value]) -> Options:
    """Return the tree with dotted keys; empty objects and lists stay as they are."""
    flat = {k: v for k, v in tree.items() if not (isinstance(v, dict | list) and v)}
    waiting = [(k, v) for k, v in qemu_order(tree) if k not in flat]
    waiting.reverse()
    while waiting:  # no recursion: a name may be nested a thousand deep
        prefix, value = waiting.pop()
        if isinstance(value, dict) and value:
            inner = [(f"{prefix}.{k}", v) for k, v in qemu_order(value)]
        elif isinstance(value, list) and value:
            inner = [(f"{prefix}.{index}", v) for index, v in enumerate(value)]
        else:
            flat[prefix] = value
            continue
        inner.reverse()
        waiting += inner
    return flat


def crumple(flat: Mapping[str, Value]) -> Value:
    """Return the tree that dotted keys mean; ``..`` is a dot within a key.

    Raises:
        BlockError: a key is both a value and a tree, or list and object keys are mixed.
    """
    levels: Options = {}
    for key, value in qemu_order(flat):
        if isinstance(value, dict | list) and value:
            raise BlockError(f"Value {key} is not flat")
        first, rest = _split_key(key)
        inner = levels.get(first)
        if rest is None:
            if isinstance(inner, _Level):
                raise BlockError("Cannot mix scalar and non-scalar keys")
            levels[first] = value
        elif inner is None:
            levels[first] = _Level({rest: value})
        elif isinstance(inner, _Level):
            inner[rest] = value
        else:
            raise BlockError("Cannot mix scalar and non-scalar keys")
    tree = {k: crumple(v) if isinstance(v, _Level) else v for k, v in levels.items()}
    return _as_list(tree) if _is_list(tree) else tree


class _Level(dict[str, "Value"]):
    """A part of a tree that is still flat, told apart from an empty object as a value."""


def _split_key(key: str) -> tuple[str, str | None]:
    at = 0
    while True:
        at = key.find(".", at)
        if at < 0:
            return key.replace("..", "."), None
        if key[at + 1 : at + 2] != ".":
            return key[:at].replace("..", "."), key[at + 1 :]
        at += 2


def _is_list(tree: Mapping[str, Value]) -> bool:
    indices = [int(key) for key in tree if key.isdecimal() and key.isascii()]
    if not indices:
        return False
    if len(indices) != len(tree):
        raise BlockError("Cannot mix list and non-list keys")
    if len(indices) != max(indices) + 1:
        raise BlockError(
            f"List indices are not contiguous, saw {len(indices)} elements but "
            f"{max(indices)} largest index"
        )
    return True


def _as_list(tree: Mapping[str, Value]) -> list[Value]:
    return [tree[str(index)] for index in range(len(tree))]


# ---------------------------------------------------------------- key=value texts


def split_pairs(text: str, *, first: str | None = None) -> Iterable[tuple[str, str, bool]]:
    """Yield (name, value, is flag) of ``name=value,…``; a doubled comma is a comma in a value.

    Args:
        text: what stands after ``-o`` or ``--image-opts``.
        first: the name of a first value that stands alone. Anywhere else such a word is a flag:
            on, or off if it begins with "no".
    """
    at = 0
    while at < len(text):
        equals, comma = text.find("=", at), text.find(",", at)
        end = len(text) if comma < 0 else comma
        if 0 <= equals < end:
            name = text[at:equals]
            value, at = _value(text, equals + 1)
            yield name, value, False
        elif first is not None:
            value, at = _value(text, at)
            yield first, value, False
        else:
            word, at = text[at:end], end
            if word.startswith("no"):
                yield word[2:], "off", True
            else:
                yield word, "on", True
        first = None
        at += 1  # the comma


def _value(text: str, at: int) -> tuple[str, int]:
    """Return the value that begins at `at`, commas undoubled, and where it ends."""
    parts = []
    while True:
        comma = text.find(",", at)
        if comma < 0:
            parts.append(text[at:])
            return "".join(parts), len(text)
        if text[comma + 1 : comma + 2] != ",":
            parts.append(text[at:comma])
            return "".join(parts), comma
        parts.append(text[at : comma + 1])
        at = comma + 2


def double_commas(text: str) -> str:
    """Return `text` as a value within ``key=value,…``."""
    return text.replace(",", ",,")


def parse_image_opts(text: str) -> Options:
    """Return the flat options of ``--image-opts``; a node's name may stand first, without key."""
    return {name: value for name, value, _ in split_pairs(text, first="file")}


def parse_keyval(text: str, *, first: str | None = None) -> Options:
    """Return the tree of an ``--object`` text: dotted keys make objects.

    Raises:
        BlockError: a key is no name, or is both a value and an object.
    """
    tree: Options = {}
    for name, value, is_flag in split_pairs(text, first=first):
        if is_flag:
            word = name if value == "on" else f"no{name}"
            raise BlockError(f"Expected '=' after parameter '{word}'")
        fragments = name.split(".")
        if not all(_is_name(part, index) for index, part in enumerate(fragments)):
            raise BlockError(f"Invalid parameter '{name}'")
        level = tree
        for index, part in enumerate(fragments[:-1]):
            inner = level.setdefault(part, {})
            if not isinstance(inner, dict):
                path = ".".join(fragments[: index + 1])
                raise BlockError(f"Parameters '{path}.*' used inconsistently")
            level = inner
        if isinstance(level.get(fragments[-1]), dict):
            raise BlockError(f"Parameters '{name}.*' used inconsistently")
        level[fragments[-1]] = value
    return tree


def _is_name(part: str, index: int) -> bool:
    """Whether `part` is a QAPI name or, but for the first, an index."""
    if not part.isascii():
        return False
    if index and part.isdecimal():
        return True
    body = part.removeprefix("__") if part.startswith("__") else part
    return body[:1].isalpha() and all(c.isalnum() or c in "-_" for c in body)
