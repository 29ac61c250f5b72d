"""The JSON Schema (2020-12) of files that describe VMs, from the declarations of `vm.spec`.

It says what the types of fields say; what fields mean to each other only the reader checks.
"""

import re
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from thinvirt.vm.file.entries import Heading
from thinvirt.vm.spec import DiskSpec, VmSpec
from thinvirt.vm.spec.facts import field_types, to_facts

_PLAIN: Final = {int: "integer", str: "string", bool: "boolean", float: "number"}
_ATTRIBUTE: Final = re.compile(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", re.MULTILINE)
_SIZE: Final = {"type": ["integer", "string", "null"]}
_SIZES: Final = {(DiskSpec, "size"), (VmSpec, "memory_mib")}


def file_schema() -> dict[str, Any]:
    """Return the schema: one VM, or ``vms`` and a list of them."""
    known: dict[str, Any] = {}
    vm = _properties(Heading, known) | _properties(VmSpec, known)
    vm["memory"] = _SIZE | {"description": "memory: MiB, or a size such as 512M"}
    known["vm"] = {
        "type": "object",
        "properties": vm,
        "required": ["name"],
        "additionalProperties": False,
    }
    vms = {"type": "array", "items": {"$ref": "#/$defs/vm"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "VMs for thinvirt apply",
        "if": {"type": "object", "required": ["vms"]},
        "then": {"properties": {"vms": vms}, "additionalProperties": False},
        "else": {"$ref": "#/$defs/vm"},
        "$defs": known,
    }


def _properties(cls: Any, known: dict[str, Any]) -> dict[str, Any]:
    texts = {name: " ".join(t.split()) for name, t in _ATTRIBUTE.findall(cls.__doc__ or "")}
    types = field_types(cls)
    found = {}
    for field in fields(cls):
        sized = (cls, field.name) in _SIZES
        schema: dict[str, Any] = dict(_SIZE) if sized else _schema(types[field.name], known)
        if field.name in texts:
            schema["description"] = texts[field.name]
        if field.default is not MISSING:
            schema["default"] = _plain(field.default)
        found[field.name] = schema
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return to_facts(value) if is_dataclass(value) else value


def _schema(declared: Any, known: dict[str, Any]) -> dict[str, Any]:
    origin = get_origin(declared)
    if origin in (Union, UnionType):
        (inner,) = (choice for choice in get_args(declared) if choice is not NoneType)
        return {"anyOf": [_schema(inner, known), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(get_args(declared))}
    if origin is tuple:
        return {"type": "array", "items": _schema(get_args(declared)[0], known)}
    if is_dataclass(declared):
        name = getattr(declared, "__name__", "")
        if name not in known:
            properties = _properties(declared, known)
            required = [f.name for f in fields(declared) if f.default is MISSING]
            known[name] = {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{name}"}
    return {"type": _PLAIN[declared]}
