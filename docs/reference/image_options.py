"""The part of the compatibility table that is about options of formats and protocols."""

from collections.abc import Iterable
from importlib import import_module

from thinvirt.image.block.abilities import Amendable
from thinvirt.image.block.file_create import CREATE_OPTIONS as FILE_OPTIONS
from thinvirt.image.block.registry import (
    FOREIGN_FORMATS,
    FOREIGN_READ_ONLY,
    driver_names,
    find_driver,
)
from thinvirt.image.block.schema import Option, OptionList
from thinvirt.image.ops.create import creation_options, find_creatable

FORMATS = ("raw", "qcow2", "luks")

# What of an option is answered otherwise than by QEMU; every other option is taken as QEMU does.
DIFFERS = {
    "aio": "accepted",
    "aio-max-batch": "accepted",
    "cache-clean-interval": "accepted",
    "drop-cache": "accepted",
    "pr-manager": "differs: there are none",
    "tls-creds": "handed on",
    "tls-hostname": "handed on",
    "x-check-cache-dropped": "accepted",
}
_CIPHERS = "differs: AES here, other ciphers by an installed qemu-img"


def format_options() -> str:
    """Return the section: what ``-o`` takes, and what an image can be opened with."""
    parts = [
        "## Options of formats\n\n"
        "What `-o` takes when an image is made (create, convert, measure) or changed (amend). "
        "Every one is taken as by qemu-img\nunless the line says otherwise.\n"
    ]
    for name in FORMATS:
        parts.append(_creation_table(name))
    formats = ", ".join(f"`{name}`" for name in sorted(FOREIGN_FORMATS - FOREIGN_READ_ONLY))
    only_read = ", ".join(f"`{name}`" for name in sorted(FOREIGN_READ_ONLY))
    parts.append(
        f"New images of {formats} are handed on, with all their options; {only_read} can only be "
        "read, by qemu-img too.\n\n"
        "## Options of nodes\n\n"
        "What `--image-opts`, `json:` and dotted keys take for each driver, besides those of "
        "every node: `driver`, `node-name`,\n`read-only`, `auto-read-only`, `cache.direct`, "
        "`cache.no-flush`, `discard`, `detect-zeroes`, `force-share`, and a node's children.\n"
    )
    for name in driver_names():
        options = _runtime_options(name)
        rows = _rows(options) if options is not None else ""
        parts.append(f"### {name}\n\n" + (_table(rows) if rows else "No options of its own.\n"))
    return "\n".join(parts)


def _creation_table(name: str) -> str:
    driver = find_creatable(name)
    made = [o for o in creation_options(driver, None) if o.name != "size"]
    changed = list(driver.amend_options) if issubclass(driver, Amendable) else []
    present = {option.name for option in made}
    more = [option for option in changed if option.name not in present]
    file = [o for o in FILE_OPTIONS if o.name not in present and o.name != "size"]
    both = {option.name for option in changed}
    rows = "".join(
        f"| `{o.name}` | {o.type} | {'' if o.default is None else o.default} "
        f"| {'yes' if o.name in present else ''} | {'yes' if o.name in both else ''} "
        f"| {_support(o)} | {o.help} |\n"
        for o in (*made, *more)
    )
    rows += "".join(f"| `{o.name}` | {o.type} | | of the file | | yes | {o.help} |\n" for o in file)
    head = "| option | type | default | new | amend | support | what it is |\n"
    return f"### -f {name}\n\n{head}|---|---|---|---|---|---|---|\n{rows}"


def _runtime_options(driver: str) -> OptionList | None:
    found = find_driver(driver)
    assert found is not None
    for base in found.__mro__:
        for module in (base.__module__, f"{base.__module__.rpartition('.')[0]}.options"):
            if ".block." in module:
                options = getattr(import_module(module), "RUNTIME_OPTIONS", None)
                if isinstance(options, OptionList):
                    return options
    return None


def _rows(options: Iterable[Option]) -> str:
    return "".join(f"| `{o.name}` | {o.type} | {_support(o)} | {o.help} |\n" for o in options)


def _table(rows: str) -> str:
    return f"| option | type | support | what it is |\n|---|---|---|---|\n{rows}"


def _support(option: Option) -> str:
    if option.name.endswith("cipher-alg"):
        return _CIPHERS
    return DIFFERS.get(option.name, "yes")
