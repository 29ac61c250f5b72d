"""``--object``: the secrets and throttle groups that images refer to by name."""

from __future__ import annotations

import os

from thinvirt.image.block.errors import BlockError, ForeignDriver, with_reason
from thinvirt.image.block.options import parse_keyval

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Only an installed qemu-img can use these.
_FOREIGN = frozenset(
    {"tls-creds-x509", "tls-creds-psk", "tls-creds-anon", "tls-cipher-suites", "secret_keyring"}
    | {"authz-list", "authz-list-file", "authz-pam", "authz-simple", "iothread"}
)
MAX_SECRET = 65536  # bytes of a secret's file


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
        made: Any = _secret(objects, values)
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


def _secret(objects: dict[tuple[str, str], Any], values: dict[str, Any]) -> bytes:
    """Return the bytes of a secret, from its text or its file, decoded and decrypted."""
    data, file = values.pop("data", None), values.pop("file", None)
    encoding = values.pop("format", "raw")
    key_id, vector = values.pop("keyid", None), values.pop("iv", None)
    values.pop("loaded", None)
    for unknown in values:
        raise BlockError(f"Parameter '{unknown}' is unexpected")
    if encoding not in ("raw", "base64"):
        raise BlockError(f"Parameter 'format' does not accept value '{encoding}'")
    if file is not None and data is not None:
        raise BlockError("'file' and 'data' are mutually exclusive")
    if file is not None:
        secret = _read_secret(file)
    elif data is not None:
        secret = data.encode(errors="surrogateescape")
    else:
        raise BlockError("Either 'file' or 'data' must be provided")
    if key_id is not None:
        return _decrypted(objects, secret, key_id, vector, encoding)
    if vector is not None:
        raise BlockError("IV should not be set if keyid is not provided")
    if encoding == "base64":
        return _from_base64(secret)
    try:
        secret.decode()
    except UnicodeDecodeError as error:
        raise BlockError("Data from secret is not valid UTF-8") from error
    return secret


def _read_secret(name: str) -> bytes:
    try:
        with open(name, "rb") as stream:
            secret = stream.read(MAX_SECRET + 1)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise with_reason(
            f"Unable to read {name}: Failed to open file “{name}”", error.errno or 0
        ) from OSError(reason)
    if len(secret) > MAX_SECRET:
        raise BlockError(
            f"the secret in '{name}' has more than {MAX_SECRET} bytes",
            hint="is it the right file?",
        )
    return secret


def _from_base64(text: bytes) -> bytes:
    from binascii import Error, a2b_base64

    try:
        return a2b_base64(text)
    except Error as error:
        raise BlockError("Base64 data 'secret' is not valid") from error


def _decrypted(
    objects: dict[tuple[str, str], Any],
    secret: bytes,
    key_id: str,
    vector: str | None,
    encoding: str,
) -> bytes:
    """Return a secret that was encrypted with another one, the master key (AES-256-CBC)."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    master = objects.get(("secret", key_id))
    if master is None:
        raise BlockError(f"No secret with id '{key_id}'")
    if len(master) != 32:
        raise BlockError(f"Master key '{key_id}' should be 32 bytes, not {len(master)}")
    if vector is None:
        raise BlockError("IV is required to decrypt secret")
    initial = _from_base64(vector.encode())
    if len(initial) != 16:
        raise BlockError(f"IV should be 16 bytes in length not {len(initial)}")
    if encoding == "base64":
        secret = _from_base64(secret)
    if len(secret) % 16:
        raise BlockError("the encrypted secret is not a whole number of blocks")
    decryptor = Cipher(algorithms.AES256(master), modes.CBC(initial)).decryptor()
    plain = decryptor.update(secret) + decryptor.finalize()
    if not plain or plain[-1] > 16:
        raise BlockError("Incorrect number of padding bytes found on decrypted data")
    return plain[: -plain[-1]]
