"""Encrypted images: AES as of old, and LUKS with its header in clusters of the image."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, NotSupported, with_reason
from thinvirt.image.block.flags import Open
from thinvirt.image.block.luks_options import (
    NewVolume,
    NodeHeader,
    amend_slots,
    as_block_errors,
    find_passphrase,
    required_secret,
)
from thinvirt.image.block.qcow2 import header as head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from thinvirt.image.block.node import Graph
    from thinvirt.image.block.qcow2.core import Image, SectorCipher
    from thinvirt.image.block.schema import Values
    from thinvirt.image.crypto.volume import Volume

_PREFIX = "encrypt."
_AES_KEY_BYTES = 16


def open_cipher(image: Image) -> tuple[SectorCipher | None, bool]:
    """Return the cipher of an encrypted image.

    Args:
        image: with header and `encryption_options` read; `luks_volume` is set here.

    Returns:
        (cipher, or None if the image is opened without I/O; whether initial vectors are made from
        host offsets, as with LUKS, and not from guest offsets).

    Raises:
        BlockError: no key, the wrong one, or a damaged header.
    """
    options = dict(image.encryption_options)
    options.pop("format", None)
    secret = options.pop("key-secret", None)
    for name in options:
        raise BlockError(f"Parameter '{name}' is unexpected")
    passphrase = None
    if not image.open_flags & Open.NO_IO:
        passphrase = find_passphrase(image.graph, required_secret(secret, _PREFIX))
    if image.header.crypt_method == head.CRYPT_AES:
        return (None if passphrase is None else _aes_cipher(passphrase)), False
    image.luks_volume = _open_volume(image)
    if passphrase is not None:
        with as_block_errors():
            image.luks_volume.unlock(passphrase)
    return image.luks_volume.cipher, True


def _aes_cipher(passphrase: bytes) -> SectorCipher:
    """Return the cipher of format "aes": the password itself is the key (qcow2 spec)."""
    from thinvirt.image.crypto.ciphers import SectorCipher as Cipher
    from thinvirt.image.formats.luks import CipherSpec

    key = passphrase[:_AES_KEY_BYTES].ljust(_AES_KEY_BYTES, b"\0")
    with as_block_errors():
        return Cipher(CipherSpec("aes-128", "cbc", "plain64"), key)


def _open_volume(image: Image) -> Volume:
    from thinvirt.image.crypto.volume import Volume

    header = image.header
    if not header.encryption_offset:
        raise BlockError(f"Missing CRYPTO header for crypt method {header.crypt_method}")
    with as_block_errors():
        return Volume.open(
            NodeHeader(image.file, header.encryption_offset, header.encryption_length)
        )


def encryption_facts(image: Image) -> dict[str, Any] | None:
    """Return what is told of the encryption, keyed as QEMU does; None if there is none."""
    if image.header.crypt_method == head.CRYPT_NONE:
        return None
    if image.luks_volume is None:
        return {"format": "aes"}
    return {"format": "luks", **image.luks_volume.facts()}


# -------------------------------------------------------------------- making an image


class NewEncryption:
    """The encryption of an image that is to be made, its options checked.

    Attributes:
        volume: of LUKS; None for AES.
    """

    def __init__(self, graph: Graph, values: Values, method: str) -> None:
        """Read the options; `method` is "aes" or "luks".

        Raises:
            BlockError: they cannot be.
        """
        self.volume: NewVolume | None = None
        if method == "luks":
            self.volume = NewVolume(values, _PREFIX)
            self.volume.prepare(graph)
            self.volume.check_cipher()
            return
        for name in _given(values):
            if name not in ("encrypt.format", "encrypt.key-secret"):
                raise BlockError(f"Parameter '{name}' is unexpected")
        secret = required_secret(values.text("encrypt.key-secret"), _PREFIX)
        _aes_cipher(find_passphrase(graph, secret))

    def set_up(self, image: Image) -> None:
        """Make an image that has no data yet an encrypted one.

        Raises:
            BlockError: it failed.
        """
        header = image.header
        header.crypt_method = head.CRYPT_AES
        if self.volume is not None:
            header.crypt_method = head.CRYPT_LUKS
            self._write_volume(image, self.volume)
        try:
            image.update_header()
        except BlockError as error:
            raise with_reason("Could not write encryption header", error.errno) from error

    def _write_volume(self, image: Image, plan: NewVolume) -> None:
        from thinvirt.image.crypto.volume import Volume

        header, length = image.header, plan.header.payload_offset
        try:
            place = image.refcounts.allocate(length)
        except BlockError as error:
            raise with_reason(
                f"Cannot allocate cluster for LUKS header size {length}", error.errno
            ) from error
        clusters = -(-length // image.cluster_size) * image.cluster_size
        try:
            image.file.write_zeroes(place, clusters)  # only one of the key slots will be written
        except BlockError as error:
            raise with_reason("Could not zero fill encryption header", error.errno) from error
        header.encryption_offset, header.encryption_length = place, length
        with as_block_errors():
            Volume.create(
                plan.header,
                plan.passphrase,
                plan.milliseconds,
                NodeHeader(image.file, place, length),
            )


def new_encryption(graph: Graph, values: Values) -> NewEncryption | None:
    """Return the encryption that creation options ask for, or None.

    Raises:
        BlockError: the options cannot be, in QEMU's words.
    """
    method = encryption_method(values)
    return None if method is None else NewEncryption(graph, values, method)


def encryption_method(values: Values) -> str | None:
    """Return "aes", "luks" or None.

    Raises:
        BlockError: another one, or two at once.
    """
    method = values.text("encrypt.format")
    if values.flag("encryption"):
        if method is not None:
            raise BlockError(
                "'encrypt.format' and its alias 'encryption' can't be used at the same time"
            )
        method = "aes"
    if method is None:
        if _given(values):
            raise BlockError("Parameter 'encrypt.format' is missing")
        return None
    if method == "qcow":  # the name it has in QEMU's schema
        method = "aes"
    if method not in ("aes", "luks"):
        raise BlockError(f"Parameter 'format' does not accept value '{method}'")
    return method


def header_bytes(values: Values, unit: int) -> int:
    """Return what the encryption of a new image takes: whole clusters of `unit` bytes.

    Raises:
        BlockError: the options cannot be.
    """
    if values.text("encrypt.format") != "luks":
        return 0
    plan = NewVolume(values, _PREFIX)
    plan.prepare(None)
    return -(-plan.header.payload_offset // unit) * unit


def _given(values: Values) -> list[str]:
    return [name for name in values.given() if name.startswith(_PREFIX)]


# -------------------------------------------------------------------- key slots


def check_amendable(image: Image) -> None:
    """Refuse an image without key slots.

    Raises:
        BlockError: this one has none.
    """
    if image.header.crypt_method == head.CRYPT_NONE:
        raise BlockError("Can't amend encryption options - encryption not present")
    if image.luks_volume is None:
        raise NotSupported("Only LUKS encryption options can be amended")


def amend_encryption(image: Image, values: Values, *, force: bool) -> None:
    """Change key slots; see `luks_options.amend_slots`.

    Raises:
        BlockError: refused, or it failed.
    """
    assert image.luks_volume is not None
    secret = str(image.encryption_options.get("key-secret", ""))
    amend_slots(image.graph, image.luks_volume, values, secret=secret, prefix=_PREFIX, force=force)
