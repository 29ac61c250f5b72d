"""``--object``: the secrets and throttle groups that images refer to by name."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, ForeignDriver
from thinvirt.image.block.options import parse_keyval, split_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_OWN = ("secret", "throttle-group")
# Only an installed qemu-img can use these.
_FOREIGN = frozenset(
    {"tls-creds-x509", "tls-creds-psk", "tls-creds-anon", "tls-cipher-suites", "secret_keyring"}
    | {"authz-list", "authz-list-file", "authz-simple"}
    | {"main-loop", "pr-manager-helper", "thread-context"}
)
# Known to QEMU, but not to qemu-img.
_ELSEWHERE = frozenset(
    {"authz-listfile", "authz-pam", "can-bus", "can-host-socketcan", "colo-compare"}
    | {"cryptodev-backend", "cryptodev-backend-builtin", "cryptodev-backend-lkcf"}
    | {"cryptodev-vhost-user", "dbus-vmstate", "filter-buffer", "filter-dump", "filter-mirror"}
    | {"filter-redirector", "filter-replay", "filter-rewriter", "input-barrier", "input-linux"}
    | {"iothread", "memory-backend-epc", "memory-backend-file", "memory-backend-memfd"}
    | {"memory-backend-ram", "pef-guest", "qtest", "rng-builtin", "rng-egd", "rng-random"}
    | {"s390-pv-guest", "sev-guest", "x-remote-object"}
)
_SECRET_OPTIONS = {
    "data": "string",
    "file": "string",
    "format": "QCryptoSecretFormat",
    "iv": "string",
    "keyid": "string",
}
_HELP = ("help", "?")
_ID_HINT = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n"


def make_object(objects: dict[tuple[str, str], Any], text: str) -> None:
    """Make an object and put it under (type, id).

    Args:
        objects: those made so far.
        text: ``TYPE,id=ID,…``, or a JSON object.

    Raises:
        BlockError: it cannot be made, in QEMU's words.
        Exit: help was asked for, and shown.
    """
    is_json = text.startswith("{")
    values = _parse_json(text) if is_json else _parse(text)
    kind, name = _text(values, "qom-type"), _text(values, "id")
    if kind is None:
        raise BlockError("Parameter 'qom-type' is missing")
    if kind not in _FOREIGN and kind not in _ELSEWHERE and kind not in _OWN:
        raise BlockError(f"Parameter 'qom-type' does not accept value '{kind}'")
    if name is None:
        raise BlockError("Parameter 'id' is missing")
    if kind == "throttle-group":
        _check_rates(values, is_json=is_json)
    elif kind == "secret":
        _check_secret(values)
    if not _is_identifier(name):
        raise BlockError("Parameter 'id' expects an identifier", qemu_hint=_ID_HINT)
    if kind in _ELSEWHERE:
        raise BlockError(f"invalid object type: {kind}")
    if any(known == name for _, known in objects):
        raise BlockError(f"attempt to add duplicate property '{name}' to object (type 'container')")
    if kind == "secret":
        from thinvirt.image.block.secret import make_secret

        made: Any = make_secret(values, objects)
    elif kind == "throttle-group":
        from thinvirt.image.block.throttle_group import ThrottleGroup

        made = ThrottleGroup(values)
    else:
        raise ForeignDriver(kind)
    objects[kind, name] = made


def _parse_json(text: str) -> dict[str, Any]:
    from thinvirt.image.block.qemu_json import loads

    tree = loads(text)
    assert isinstance(tree, dict)
    return tree


def _parse(text: str) -> dict[str, Any]:
    pairs = list(split_pairs(text, first="qom-type"))
    flags = [name for name, value, is_flag in pairs if is_flag and value == "on"]
    first = pairs[0][1] if pairs else ""
    if (first in _HELP or set(flags) & set(_HELP)) and set(flags) <= set(_HELP):
        _show_help(first)
    return parse_keyval(text, first="qom-type")


def _show_help(kind: str) -> NoReturn:
    from thinvirt.image.qemu_img.report import Exit, console

    if kind in _FOREIGN:
        raise ForeignDriver(kind)
    if kind not in _OWN:
        console.line("List of user creatable objects:")
        for name in sorted(_FOREIGN | set(_OWN)):
            console.line(f"  {name}")
        raise Exit(0)
    options = _SECRET_OPTIONS
    if kind == "throttle-group":
        from thinvirt.image.block.throttle_group import LIMITS

        options = {"limits": "ThrottleLimits"}
        options.update((f"x-{option.name}", "int") for option in LIMITS)
    console.line(f"{kind} options:")
    for line in sorted(f"  {name}=<{type_}>" for name, type_ in options.items()):
        console.line(line)
    raise Exit(0)


def _text(values: dict[str, Any], name: str) -> str | None:
    """Take a text out of the properties; None if it is not there."""
    value = values.pop(name, None)
    if value is not None and not isinstance(value, str):
        raise BlockError(f"Invalid parameter type for '{name}', expected: string")
    return value


def _check_secret(values: dict[str, Any]) -> None:
    for name in _SECRET_OPTIONS:
        if not isinstance(values.get(name, ""), str):
            raise BlockError(f"Invalid parameter type for '{name}', expected: string")


def _check_rates(values: dict[str, Any], *, is_json: bool) -> None:
    """Refuse rates that are no integers, and properties there are not."""
    from thinvirt.image.block.options import flatten
    from thinvirt.image.block.schema import parse_number
    from thinvirt.image.block.throttle_group import LIMITS

    if not isinstance(values.get("limits", {}), dict):
        raise BlockError("Invalid parameter type for 'limits', expected: object")
    flat = flatten(values)
    rates = {
        f"{prefix}{option.name}": option.name for prefix in ("limits.", "x-") for option in LIMITS
    }
    for name in rates:
        value = flat.get(name, 0)
        if is_json and (not isinstance(value, int) or isinstance(value, bool)):
            raise BlockError(f"Invalid parameter type for '{name}', expected: integer")
        try:
            number = parse_number(name, str(value))
        except BlockError as error:
            raise BlockError(f"Parameter '{name}' expects integer") from error
        if number >= 1 << 63 and not str(value).lstrip().startswith("-"):
            raise BlockError(f"Parameter '{name}' expects integer")
    for name in flat:
        if name not in rates and name != "limits":
            raise BlockError(f"Parameter '{name}' is unexpected")


def _is_identifier(name: str) -> bool:
    return name.isascii() and name[:1].isalpha() and all(c.isalnum() or c in "-._" for c in name)
