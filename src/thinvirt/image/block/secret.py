"""The ``secret`` object: bytes given as text or in a file, perhaps encoded, perhaps encrypted."""

from __future__ import annotations

import errno
import os

from thinvirt.image.block.errors import BlockError, with_reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_SECRET = 65536  # bytes of a secret's file
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n"
_KEY_BYTES = 32
_BLOCK = 16


def make_secret(values: dict[str, Any], secrets: Mapping[tuple[str, str], Any]) -> bytes:
    """Return the bytes of a secret.

    Args:
        values: its properties: ``data`` or ``file``, ``format`` (raw, base64), and ``keyid`` with
            ``iv`` if it is encrypted (AES-256-CBC) with another secret.
        secrets: those there are, under ("secret", id).

    Raises:
        BlockError: not possible, in QEMU's words.
    """
    values = dict(values)
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
        secret = _read(file)
    elif data is not None:
        secret = data.encode(errors="surrogateescape")
    else:
        raise BlockError("Either 'file' or 'data' must be provided")
    if key_id is not None:
        key, vector = _key(secrets, key_id), _vector(vector)
        return _decrypt(key, vector, _decode(secret) if encoding == "base64" else secret)
    return _decode(secret) if encoding == "base64" else secret


def _read(name: str) -> bytes:
    try:
        with open(name, "rb") as stream:
            secret = stream.read(MAX_SECRET + 1)
    except OSError as error:
        number = error.errno or errno.EIO
        what = "Error reading" if number == errno.EISDIR else "Failed to open"
        raise with_reason(f"Unable to read {name}: {what} file “{name}”", number) from error
    except ValueError as error:  # a name with a NUL in it
        raise BlockError(f"Unable to read {name}: {os.strerror(errno.EINVAL)}") from error
    if len(secret) > MAX_SECRET:
        raise BlockError(
            f"the secret in '{name}' has more than {MAX_SECRET} bytes",
            hint="is it the right file?",
        )
    return secret


def _decode(text: bytes) -> bytes:
    from binascii import Error, a2b_base64

    if text.strip(_BASE64):
        raise BlockError("Base64 data contains invalid characters")
    try:
        return a2b_base64(text)
    except Error as error:
        raise BlockError(
            "Base64 data is not complete", hint="its characters come in groups of four, see base64"
        ) from error


def _key(secrets: Mapping[tuple[str, str], Any], key_id: str) -> bytes:
    key: bytes | None = secrets.get(("secret", key_id))
    if key is None:
        raise BlockError(f"No secret with id '{key_id}'")
    if len(key) != _KEY_BYTES:
        raise BlockError(f"Key should be {_KEY_BYTES} bytes in length")
    return key


def _vector(text: str | None) -> bytes:
    if text is None:
        raise BlockError("IV is required to decrypt secret")
    vector = _decode(text.encode(errors="surrogateescape"))
    if len(vector) != _BLOCK:
        raise BlockError(f"IV should be {_BLOCK} bytes in length not {len(vector)}")
    return vector


def _decrypt(key: bytes, vector: bytes, data: bytes) -> bytes:
    from thinvirt.image.block.luks_options import as_block_errors
    from thinvirt.image.crypto.ciphers import decrypt_cbc

    if len(data) % _BLOCK:
        raise BlockError(f"Length {len(data)} must be a multiple of block size {_BLOCK}")
    with as_block_errors():
        plain = decrypt_cbc(key, vector, data)
    padding = plain[-1] if plain else 0
    if not plain or padding > min(_BLOCK, len(plain)):
        raise BlockError(f"Incorrect number of padding bytes ({padding}) found on decrypted data")
    return plain[: len(plain) - padding]
