"""``--object``: the secrets and throttle groups that images refer to by name."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, ForeignDriver
from thinvirt.image.block.options import parse_keyval

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Only an installed qemu-img can use these.
_FOREIGN = frozenset(
    {"tls-creds-x509", "tls-creds-psk", "tls-creds-anon", "tls-cipher-suites", "secret_keyring"}
    | {"authz-list", "authz-list-file", "authz-pam", "authz-simple", "iothread"}
)


def make_object(objects: dict[tuple[str, str], Any], text: str) -> None:
    """Make an object and put it under (type, id).

    Args:
        objects: those made so far.
        text: ``TYPE,id=ID,…``, or a JSON object.

    Raises:
        BlockError: it cannot be made, in QEMU's words.
    """
    values = _parse(text)
    kind = values.pop("qom-type", None)
    if kind is None:
        raise BlockError("Parameter 'qom-type' is missing")
    if kind not in _FOREIGN and kind not in ("secret", "throttle-group"):
        raise BlockError(f"Parameter 'qom-type' does not accept value '{kind}'")
    name = values.pop("id", None)
    if name is None:
        raise BlockError("Parameter 'id' is missing")
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


def _parse(text: str) -> dict[str, Any]:
    if text.startswith("{"):
        from thinvirt.image.block.qemu_json import loads

        tree = loads(text)
        assert isinstance(tree, dict)
        return tree
    return parse_keyval(text, first="qom-type")
