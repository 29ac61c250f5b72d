"""The header of a LUKS 1 volume (LUKS1 On-Disk Format Specification 1.2.3): what opens the data.

Offsets are given on disk in sectors of 512 bytes; here they are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import ClassVar, Final, Self

from thinvirt.errors import CorruptImage, HostileImage, UnsupportedFeature

MAGIC: Final = b"LUKS\xba\xbe"
VERSION: Final = 1
SECTOR: Final = 512
KEY_SLOTS: Final = 8
STRIPES: Final = 4000  # the anti-forensic splitter's, the same for everybody
DIGEST_BYTES: Final = 20
SALT_BYTES: Final = 32
ALIGNMENT: Final = 4096  # of the first key material, and what every slot's room is a multiple of
MIN_ITERATIONS: Final = 1000
MAX_ITERATIONS: Final = 1 << 28  # of all key slots: minutes of hashing, more than anybody asks for
_ACTIVE, _INACTIVE = 0x00AC71F3, 0x0000DEAD
_ALIGNMENT_SECTORS = ALIGNMENT // SECTOR

HASHES: Final = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160")
HASH_BYTES: Final = {
    "md5": 16, "sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64, "ripemd160": 20,
}  # fmt: skip
MODES: Final = ("ecb", "cbc", "xts", "ctr")
VECTORS: Final = ("plain", "plain64", "essiv")

# cipher → key bytes. What is named here can be in a header; only AES is put into practice.
KEY_BYTES: Final = {
    "aes-128": 16, "aes-192": 24, "aes-256": 32,
    "cast5-128": 16,
    "serpent-128": 16, "serpent-192": 24, "serpent-256": 32,
    "twofish-128": 16, "twofish-192": 24, "twofish-256": 32,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CipherSpec:
    """How sectors are encrypted.

    Attributes:
        algorithm: of `KEY_BYTES`.
        mode: of `MODES`.
        vector: of `VECTORS`: how initial vectors follow from sector numbers.
        vector_hash: of `HASHES`; needed for ESSIV, elsewhere noted and not used; "" for none.
    """

    algorithm: str = "aes-256"
    mode: str = "xts"
    vector: str = "plain64"
    vector_hash: str = ""

    @property
    def key_bytes(self) -> int:
        """The length of the key; XTS takes two keys."""
        return KEY_BYTES[self.algorithm] * (2 if self.mode == "xts" else 1)

    @property
    def cipher_name(self) -> str:
        """What stands in the header for the algorithm; the key length says the rest."""
        return self.algorithm.partition("-")[0]

    @property
    def mode_name(self) -> str:
        """What stands in the header for everything else."""
        suffix = f":{self.vector_hash}" if self.vector_hash else ""
        return f"{self.mode}-{self.vector}{suffix}"

    @property
    def essiv_algorithm(self) -> str:
        """The algorithm that encrypts sector numbers: its key is a whole digest.

        Raises:
            UnsupportedFeature: none has a key of that length.
        """
        size = HASH_BYTES[self.vector_hash]
        if size == KEY_BYTES[self.algorithm]:
            return self.algorithm
        family = self.cipher_name
        if family == "cast5":
            raise UnsupportedFeature(f"Cipher {self.algorithm} not supported with essiv")
        found = f"{family}-{size * 8}"
        if found not in KEY_BYTES:
            title = "AES" if family == "aes" else family.capitalize()
            raise UnsupportedFeature(f"No {title} cipher with key size {size} available")
        return found

    @classmethod
    def parse(cls, cipher_name: str, mode_name: str, key_bytes: int) -> Self:
        """Return what the texts of a header mean.

        Raises:
            CorruptImage: they mean nothing.
            UnsupportedFeature: something that is not known here.
        """
        mode, dash, rest = mode_name.partition("-")
        if not dash:
            raise CorruptImage(f"Unexpected cipher mode string format '{mode_name}'")
        vector, colon, vector_hash = rest.partition(":")
        if colon:
            _known(vector_hash, HASHES, "Hash algorithm")
        _known(mode, MODES, "Cipher mode")
        size = key_bytes // 2 if mode == "xts" else key_bytes
        algorithm = f"{cipher_name}-{size * 8}"
        if algorithm not in KEY_BYTES:
            raise UnsupportedFeature(
                f"Algorithm '{cipher_name}' with key size {size} bytes not supported"
            )
        _known(vector, VECTORS, "IV generator")
        spec = cls(algorithm, mode, vector, vector_hash)
        if vector == "essiv":
            if not colon:
                raise CorruptImage("Missing IV generator hash specification")
            _ = spec.essiv_algorithm
        return spec


def _known(name: str, names: tuple[str, ...], what: str) -> None:
    if name not in names:
        raise UnsupportedFeature(f"{what} '{name}' not supported")


@dataclass(slots=True)
class KeySlot:
    """A place for the volume's key, encrypted with a passphrase.

    Attributes:
        is_active: there is a key in it.
        iterations: of PBKDF2, which makes a key from the passphrase; 0 in an empty slot.
        salt: of PBKDF2.
        offset: bytes from the beginning of the header to the key material.
        stripes: of the anti-forensic splitter.
    """

    LAYOUT: ClassVar = Struct(f">II{SALT_BYTES}sII")  # 48 bytes

    offset: int
    is_active: bool = False
    iterations: int = 0
    salt: bytes = bytes(SALT_BYTES)
    stripes: int = STRIPES

    def pack(self) -> bytes:
        """Return the slot as it is on disk."""
        return self.LAYOUT.pack(
            _ACTIVE if self.is_active else _INACTIVE,
            self.iterations,
            self.salt,
            self.offset // SECTOR,
            self.stripes,
        )


@dataclass(slots=True)
class LuksHeader:
    """The header and its key slots.

    Attributes:
        spec: how the data is encrypted; the key slots likewise.
        hash: of `HASHES`, for key derivation and splitter.
        payload_offset: bytes from the beginning of the header to the data.
        digest, digest_salt, digest_iterations: how a key is recognised as the right one.
        uuid: as text.
        slots: `KEY_SLOTS` of them.
    """

    LAYOUT: ClassVar = Struct(f">6sH32s32s32sII{DIGEST_BYTES}s{SALT_BYTES}sI40s")  # 208 bytes
    SIZE: ClassVar = LAYOUT.size + KEY_SLOTS * KeySlot.LAYOUT.size  # 592

    spec: CipherSpec
    hash: str
    payload_offset: int
    digest: bytes = bytes(DIGEST_BYTES)
    digest_salt: bytes = bytes(SALT_BYTES)
    digest_iterations: int = 0
    uuid: str = ""
    slots: list[KeySlot] = field(default_factory=list)

    @classmethod
    def laid_out(cls, spec: CipherSpec, hash: str) -> Self:  # noqa: A002 - the format's word
        """Return a header with empty key slots, everything in its place, digest to be filled in."""
        room = slot_bytes(spec.key_bytes, STRIPES)
        slots = [KeySlot(ALIGNMENT + number * room) for number in range(KEY_SLOTS)]
        return cls(spec, hash, ALIGNMENT + KEY_SLOTS * room, slots=slots)

    @property
    def key_bytes(self) -> int:
        """The length of the volume's key."""
        return self.spec.key_bytes

    def pack(self) -> bytes:
        """Return header and key slots as they are on disk."""
        fixed = self.LAYOUT.pack(
            MAGIC,
            VERSION,
            self.spec.cipher_name.encode(),
            self.spec.mode_name.encode(),
            self.hash.encode(),
            self.payload_offset // SECTOR,
            self.key_bytes,
            self.digest,
            self.digest_salt,
            self.digest_iterations,
            self.uuid.encode(),
        )
        return fixed + b"".join(slot.pack() for slot in self.slots)

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        """Read and check a header.

        Args:
            raw: its first `SIZE` bytes.

        Raises:
            CorruptImage: too short, no LUKS, or fields that cannot be.
            UnsupportedFeature: another version, or an algorithm that is not known here.
        """
        if len(raw) < cls.SIZE:
            raise CorruptImage(f"a LUKS header needs {cls.SIZE} bytes, found {len(raw)}")
        (
            magic,
            version,
            cipher,
            mode,
            hash_name,
            payload,
            key_bytes,
            digest,
            salt,
            iterations,
            uuid,
        ) = cls.LAYOUT.unpack_from(raw)
        if magic != MAGIC:
            raise CorruptImage("Volume is not in LUKS format")
        if version != VERSION:
            raise UnsupportedFeature(
                f"LUKS version {version} is not supported",
                hint="cryptsetup convert --type luks1 makes a version 1 header of a version 2 one",
            )
        names = [
            _text(value, what)
            for value, what in (
                (cipher, "cipher name"),
                (mode, "cipher mode"),
                (hash_name, "hash spec"),
            )
        ]
        if payload * SECTOR < ALIGNMENT:
            raise CorruptImage("LUKS payload is overlapping with the header")
        if not iterations:
            raise CorruptImage("LUKS key iteration count is zero")
        slots = _read_slots(raw, key_bytes, payload * SECTOR)
        spec = CipherSpec.parse(names[0], names[1], key_bytes)
        _known(names[2], HASHES, "Hash algorithm")
        return cls(
            spec,
            names[2],
            payload * SECTOR,
            digest,
            salt,
            iterations,
            uuid.split(b"\0", 1)[0].decode("utf-8", "replace"),
            slots,
        )

    def check_work(self) -> None:
        """Refuse a header that would keep the processor busy for many minutes.

        Raises:
            HostileImage: the iteration counts are beyond all measure.
        """
        work = sum(s.iterations + self.digest_iterations for s in self.slots if s.is_active)
        if work > MAX_ITERATIONS:
            raise HostileImage(
                f"the key slots ask for {work} iterations of PBKDF2, the limit is {MAX_ITERATIONS}",
                hint="unlock the volume with cryptsetup if that is really meant",
            )


def slot_bytes(key_bytes: int, stripes: int) -> int:
    """Return the room that a slot's key material takes, as cryptsetup lays it out."""
    sectors = -(-key_bytes * stripes // SECTOR)
    return -(-sectors // _ALIGNMENT_SECTORS) * ALIGNMENT


def _text(raw: bytes, what: str) -> str:
    text, end, _ = raw.partition(b"\0")
    if not end:
        raise CorruptImage(f"LUKS header {what} is not NUL terminated")
    return text.decode("utf-8", "replace")


def _read_slots(raw: bytes, key_bytes: int, payload: int) -> list[KeySlot]:
    """Read the key slots; none may touch the header, the data or another one."""
    slots: list[KeySlot] = []
    at = LuksHeader.LAYOUT.size
    states = []
    for number in range(KEY_SLOTS):
        place = at + number * KeySlot.LAYOUT.size
        state, iterations, salt, sector, stripes = KeySlot.LAYOUT.unpack_from(raw, place)
        states.append(state)
        slots.append(KeySlot(sector * SECTOR, state == _ACTIVE, iterations, salt, stripes))
    for number, slot in enumerate(slots):
        _check_slot(slot, number, states[number])
        end = slot.offset + slot_bytes(key_bytes, slot.stripes)
        if slot.offset < ALIGNMENT:
            raise CorruptImage(f"Keyslot {number} is overlapping with the LUKS header")
        if end > payload:
            raise CorruptImage(f"Keyslot {number} is overlapping with the encrypted payload")
        for other in range(number + 1, KEY_SLOTS):
            start = slots[other].offset
            if end > start and start + slot_bytes(key_bytes, slots[other].stripes) > slot.offset:
                raise CorruptImage(f"Keyslots {number} and {other} are overlapping in the header")
    return slots


def _check_slot(slot: KeySlot, number: int, state: int) -> None:
    if slot.stripes != STRIPES:
        stripes = slot.stripes - (1 << 32) if slot.stripes >= 1 << 31 else slot.stripes
        raise CorruptImage(f"Keyslot {number} is corrupted (stripes {stripes} != {STRIPES})")
    if state not in (_ACTIVE, _INACTIVE):
        raise CorruptImage(f"Keyslot {number} state (active/disable) is corrupted")
    if slot.is_active and not slot.iterations:
        raise CorruptImage(f"Keyslot {number} iteration count is zero")
