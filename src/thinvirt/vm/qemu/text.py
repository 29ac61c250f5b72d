"""QEMU's two grammars for options: ``key=value,…`` and JSON."""

import json

Option = tuple[str, str] | tuple[str]


def escape(value: str) -> str:
    """Return a value for QEMU's ``key=value,…`` grammar, where a comma is written twice."""
    return value.replace(",", ",,")


def as_json(value: object) -> str:
    """Return compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
