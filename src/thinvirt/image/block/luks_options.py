"""What LUKS as a format of its own and LUKS inside qcow2 share: options, secrets, key slots.

The names of options may have a prefix (``encrypt.``); messages name them as QEMU's do.
"""

from __future__ import annotations

import errno

from thinvirt.errors import CorruptImage, ImageError, ThinvirtError, UnsupportedFeature
from thinvirt.image.block.errors import BlockError, ForeignDriver, with_reason
from thinvirt.image.block.schema import Option, OptionType
from thinvirt.image.crypto.errors import CipherMissing
from thinvirt.image.crypto.volume import HeaderFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from thinvirt.image.block.node import BlockNode, Graph
    from thinvirt.image.block.schema import Values
    from thinvirt.image.crypto.volume import Volume
    from thinvirt.image.formats.luks import LuksHeader

_ALGORITHMS = (
    "aes-128", "aes-192", "aes-256", "des", "3des", "cast5-128", "serpent-128", "serpent-192",
    "serpent-256", "twofish-128", "twofish-192", "twofish-256",
)  # fmt: skip
_MODES = ("ecb", "cbc", "xts", "ctr")
_VECTORS = ("plain", "plain64", "essiv")
_HASHES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160")
_SLOTS = 8
_ACTIVE, _INACTIVE = "active", "inactive"
_MAX_MILLISECONDS = (1 << 63) - 1

KEY_SECRET = Option(
    "key-secret", OptionType.STRING, "ID of the secret that provides the keyslot passphrase"
)
_ITER_TIME = Option("iter-time", OptionType.NUMBER, "Time to spend in PBKDF in milliseconds")
CREATE_OPTIONS = (
    KEY_SECRET,
    Option("cipher-alg", OptionType.STRING, "Name of encryption cipher algorithm"),
    Option("cipher-mode", OptionType.STRING, "Name of encryption cipher mode"),
    Option("ivgen-alg", OptionType.STRING, "Name of IV generator algorithm"),
    Option("ivgen-hash-alg", OptionType.STRING, "Name of IV generator hash algorithm"),
    Option("hash-alg", OptionType.STRING, "Name of encryption hash algorithm"),
    _ITER_TIME,
)
AMEND_OPTIONS = (
    Option("state", OptionType.STRING, "Select new state of affected keyslots (active/inactive)"),
    Option("keyslot", OptionType.NUMBER, "Select a single keyslot to modify explicitly"),
    Option("old-secret", OptionType.STRING, "Select all keyslots that match this password"),
    Option(
        "new-secret",
        OptionType.STRING,
        "New secret to set in the matching keyslots. Empty string to erase",
    ),
    _ITER_TIME,
)


class DamagedHeader(BlockError, CorruptImage):
    """The encryption header contradicts itself."""

    kind = CorruptImage.kind


class ForeignCipher(ForeignDriver, UnsupportedFeature):
    """A cipher that QEMU may have and we have not; an installed qemu-img can do it."""

    kind = UnsupportedFeature.kind

    def __init__(self, name: str, message: str, hint: str = "") -> None:
        BlockError.__init__(self, message, number=errno.ENOTSUP, hint=hint)
        self.driver = name


class UnknownCipher(BlockError, UnsupportedFeature):
    """A cipher, or a combination, that nobody has."""

    kind = UnsupportedFeature.kind


class as_block_errors:  # noqa: N801 - used as a statement, as `errors.prefixed` is
    """Turn what the `crypto` package raises in the block into errors of the graph."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Nothing is set up."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raise the graph's error for the one met, keeping its words."""
        if not isinstance(error, ThinvirtError) or isinstance(error, BlockError):
            return
        if isinstance(error, CipherMissing):
            raise ForeignCipher(error.name, error.message, error.hint) from error
        if isinstance(error, UnsupportedFeature):
            raise UnknownCipher(error.message, number=errno.EIO, hint=error.hint) from error
        if isinstance(error, CorruptImage):
            raise DamagedHeader(error.message, number=errno.EIO, hint=error.hint) from error
        number = errno.EIO if isinstance(error, ImageError) else errno.EINVAL
        raise BlockError(error.message, number=number, hint=error.hint) from error


class NodeHeader(HeaderFile):
    """A volume's header in a node, from an offset on."""

    def __init__(self, node: BlockNode, offset: int = 0, length: int | None = None) -> None:
        """Note the place; without `length` there is no end."""
        self._node = node
        self._offset = offset
        self._length = length

    def read(self, offset: int, length: int) -> bytes:
        """Return so many bytes, zeroes past the end."""
        self._check(offset, length)
        try:
            return self._node.read(self._offset + offset, length)
        except BlockError as error:
            raise with_reason("Could not read encryption header", error.errno) from error

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes."""
        self._check(offset, len(data))
        try:
            self._node.write(self._offset + offset, data)
        except BlockError as error:
            raise with_reason("Could not write encryption header", error.errno) from error

    def flush(self) -> None:
        """Make durable what was written."""
        self._node.flush()

    def _check(self, offset: int, length: int) -> None:
        if self._length is not None and offset + length > self._length:
            raise BlockError("Request for data outside of extension header")


def find_passphrase(graph: Graph, secret: str) -> bytes:
    """Return the passphrase that ``--object secret`` provides.

    Raises:
        BlockError: there is no such secret, or it is no text.
    """
    data = graph.find_object("secret", secret)
    if data is None:
        if graph.find_object("throttle-group", secret) is not None:
            raise BlockError(f"Object with id '{secret}' is not a secret")
        raise BlockError(
            f"No secret with id '{secret}'", hint=f"name it: --object secret,id={secret},file=…"
        )
    found: bytes = data
    try:
        found.decode()
        is_text = b"\0" not in found
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise BlockError(f"Data from secret {secret} is not valid UTF-8")
    return found


def required_secret(secret: object, prefix: str) -> str:
    """Return the name of a secret that must have been given.

    Raises:
        BlockError: it was not.
    """
    if not secret:
        raise BlockError(f"Parameter '{prefix}key-secret' is required for cipher")
    return str(secret)


class NewVolume:
    """A LUKS volume that is to be made, its options read.

    Attributes:
        milliseconds: that checking a passphrase shall take.
        header: laid out by `prepare`.
        passphrase: of the first key slot, found by `prepare`.
    """

    header: LuksHeader
    passphrase: bytes

    def __init__(self, values: Values, prefix: str = "") -> None:
        """Read the options.

        Args:
            values: the options given.
            prefix: of their names.

        Raises:
            BlockError: they cannot be, in QEMU's words.
        """
        self._algorithm = _choice(values, prefix, "cipher-alg", _ALGORITHMS, "aes-256")
        self._mode = _choice(values, prefix, "cipher-mode", _MODES, "xts")
        self._vector = _choice(values, prefix, "ivgen-alg", _VECTORS, "plain64")
        self._vector_hash = _choice(values, prefix, "ivgen-hash-alg", _HASHES, "")
        self._hash = _choice(values, prefix, "hash-alg", _HASHES, "sha256")
        self.milliseconds = _milliseconds(values, prefix)
        self._prefix = prefix
        self._secret = values.text(prefix + "key-secret")

    def prepare(self, graph: Graph | None) -> None:
        """Find the passphrase and lay out the header.

        Args:
            graph: with the secret; None if the passphrase is not needed.

        Raises:
            BlockError: there is none, or the options do not go together.
        """
        from thinvirt.image.crypto.volume import spec_for

        secret = required_secret(self._secret, self._prefix)
        self.passphrase = b"" if graph is None else find_passphrase(graph, secret)
        if self._algorithm in ("des", "3des"):
            raise BlockError(f"Algorithm '{self._algorithm}' not supported")
        with as_block_errors():
            self.header = spec_for(
                self._algorithm, self._mode, self._vector, self._vector_hash, self._hash
            )

    def check_cipher(self) -> None:
        """Refuse a cipher that cannot be used here, before anything is written.

        Raises:
            BlockError: it cannot.
        """
        from thinvirt.image.crypto.ciphers import SectorCipher

        with as_block_errors():
            SectorCipher(self.header.spec, bytes(range(self.header.key_bytes)))


def _choice(values: Values, prefix: str, name: str, allowed: Sequence[str], default: str) -> str:
    text = values.text(prefix + name)
    if text is None:
        return default
    if text not in allowed:
        raise BlockError(f"Parameter '{name}' does not accept value '{text}'")
    return text


def _milliseconds(values: Values, prefix: str) -> int:
    from thinvirt.image.crypto.volume import DEFAULT_MILLISECONDS

    name = prefix + "iter-time"
    if name not in values:
        return DEFAULT_MILLISECONDS
    number = values.size(name)
    if not 0 < number <= _MAX_MILLISECONDS:
        raise BlockError("iter-time must be greater than 0")  # QEMU divides by it, and dies
    return number


# -------------------------------------------------------------------- key slots


def amend_slots(
    graph: Graph, volume: Volume, values: Values, *, secret: str, prefix: str = "", force: bool
) -> None:
    """Fill or empty key slots, as options say.

    Args:
        graph: with the secrets.
        volume: open.
        values: `AMEND_OPTIONS`, with `prefix` in their names.
        secret: the name of the one that the image was opened with.
        prefix: of the options' names.
        force: overwrite a slot that is in use; empty the last one, which loses all data.

    Raises:
        BlockError: refused, or not possible.
    """
    name = prefix + "state"
    if name not in values:
        raise BlockError("Parameter 'state' is missing")
    state = _choice(values, prefix, "state", (_ACTIVE, _INACTIVE), "")
    given = {
        key.removeprefix(prefix): text
        for key, text in values.given().items()
        if key.startswith(prefix)
    }
    slot = _slot_number(values, prefix)
    with as_block_errors():
        if state == _ACTIVE:
            milliseconds = _milliseconds(values, prefix)
            _fill(graph, volume, given, slot, milliseconds, secret=secret, force=force)
        else:
            _empty(graph, volume, given, slot, force=force)


def _slot_number(values: Values, prefix: str) -> int | None:
    name = prefix + "keyslot"
    if name not in values:
        return None
    number = values.size(name)
    return number - (1 << 64) if number >= 1 << 63 else number


def _fill(
    graph: Graph,
    volume: Volume,
    given: dict[str, str],
    slot: int | None,
    milliseconds: int,
    *,
    secret: str,
    force: bool,
) -> None:
    if "new-secret" not in given:
        raise BlockError("'new-secret' is required to activate a keyslot")
    if "old-secret" in given:
        raise BlockError("'old-secret' must not be given when activating keyslots")
    if slot is None:
        slot = volume.free_slot
        if slot is None:
            raise BlockError("Can't add a keyslot - all keyslots are in use")
    elif not 0 <= slot < _SLOTS:
        raise BlockError(
            f"Invalid keyslot {slot & 0xFFFFFFFF} specified, must be between 0 and {_SLOTS - 1}"
        )
    if not force and slot in volume.active_slots:
        raise BlockError(f"Refusing to overwrite active keyslot {slot} - please erase it first")
    old = find_passphrase(graph, secret)
    try:
        with as_block_errors():
            key = volume.find_key(old)
    except BlockError as error:
        error.qemu_hint += "Failed to retrieve the master key"
        raise
    new = find_passphrase(graph, given["new-secret"])
    volume.fill_slot(slot, new, key, milliseconds)


def _empty(
    graph: Graph, volume: Volume, given: dict[str, str], slot: int | None, *, force: bool
) -> None:
    for name in ("new-secret", "iter-time"):
        if name in given:
            raise BlockError(f"'{name}' must not be given when erasing keyslots")
    old = find_passphrase(graph, given["old-secret"]) if "old-secret" in given else None
    if slot is not None:
        _refuse_emptying(volume, slot, old, force=force)
        slots = [slot]
    elif old is not None:
        slots = volume.slots_of(old)
        if not slots:
            raise BlockError("No keyslots match given (old) password for erase operation")
        if not force and slots == volume.active_slots:
            raise BlockError(
                "All the active keyslots match the (old) password that was given and erasing them "
                "will erase all the data in the image irreversibly - refusing operation"
            )
    else:
        raise BlockError(
            "To erase keyslot(s), either explicit keyslot index or the password currently "
            "contained in them must be given"
        )
    for number in slots:
        volume.empty_slot(number)


def _refuse_emptying(volume: Volume, slot: int, old: bytes | None, *, force: bool) -> None:
    if not 0 <= slot < _SLOTS:
        raise BlockError(f"Invalid keyslot {slot} specified, must be between 0 and {_SLOTS - 1}")
    if old is not None and not volume.opens_slot(slot, old):
        raise BlockError(
            f"Given keyslot {slot} doesn't contain the given old password for erase operation"
        )
    if force:
        return
    active = volume.active_slots
    if slot not in active:
        raise BlockError(f"Given keyslot {slot} is already erased (inactive) ")
    if len(active) == 1:
        raise BlockError(
            f"Attempt to erase the only active keyslot {slot} which will erase all the data in the "
            "image irreversibly - refusing operation"
        )
