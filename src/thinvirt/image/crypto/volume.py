"""A LUKS 1 volume: unlock it, make one, fill and empty its key slots.

Where the header lies is the caller's business: at the start of a file, or in clusters of a qcow2
image. It is read and written through two functions; offsets count from the header's beginning.
"""

from __future__ import annotations

import os

from thinvirt.errors import UsageError
from thinvirt.image.crypto.errors import WrongPassphrase
from thinvirt.image.formats.luks import (
    DIGEST_BYTES,
    KEY_SLOTS,
    MIN_ITERATIONS,
    SALT_BYTES,
    LuksHeader,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from thinvirt.image.crypto.ciphers import SectorCipher
    from thinvirt.image.formats.luks import CipherSpec, KeySlot


DEFAULT_MILLISECONDS = 2000
_DIGEST_SHARE = 8  # checking a key may be needed once for each slot
_WIPES = 40  # how often the material of an emptied slot is overwritten, as cryptsetup does


class HeaderFile:
    """Where a header lies; offsets are bytes from its beginning."""

    def read(self, offset: int, length: int) -> bytes:
        """Return so many bytes, zeroes past the end."""
        raise NotImplementedError

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes."""
        raise NotImplementedError

    def flush(self) -> None:
        """Make durable what was written."""
        raise NotImplementedError


class Volume:
    """A volume whose header was read and is sound.

    Attributes:
        header: as last read or written.
        cipher: of the data, once it is unlocked.
    """

    def __init__(self, header: LuksHeader, file: HeaderFile) -> None:
        self.header = header
        self.cipher: SectorCipher | None = None
        self._file = file

    @classmethod
    def open(cls, file: HeaderFile) -> Volume:
        """Read a header.

        Raises:
            CorruptImage, UnsupportedFeature: it is none, or none that is known here.
        """
        return cls(LuksHeader.unpack(file.read(0, LuksHeader.SIZE)), file)

    @classmethod
    def create(
        cls, header: LuksHeader, passphrase: bytes, milliseconds: int, file: HeaderFile
    ) -> Volume:
        """Make a volume with a new random key, which the first slot gives out for a passphrase.

        Args:
            header: `LuksHeader.laid_out`.
            passphrase: as it will be typed.
            milliseconds: how long it shall take to check one.
            file: with room up to the payload.

        Raises:
            UnsupportedFeature: the cipher or hash is not known here.
            UsageError: the time is too long.
        """
        from uuid import uuid4

        from thinvirt.image.crypto.ciphers import SectorCipher
        from thinvirt.image.crypto.derivation import iterations_for

        key = os.urandom(header.key_bytes)
        volume = cls(header, file)
        volume.cipher = SectorCipher(header.spec, key)
        count = iterations_for(header.hash, DIGEST_BYTES, milliseconds, share=_DIGEST_SHARE)
        header.digest_iterations = max(count, MIN_ITERATIONS)
        header.digest_salt = os.urandom(SALT_BYTES)
        header.digest = volume._digest(key)
        header.uuid = str(uuid4())
        volume.fill_slot(0, passphrase, key, milliseconds)
        return volume

    def unlock(self, passphrase: bytes) -> None:
        """Make the data readable.

        Raises:
            WrongPassphrase: no slot opens with it.
        """
        from thinvirt.image.crypto.ciphers import SectorCipher

        self.cipher = SectorCipher(self.header.spec, self.find_key(passphrase))

    # ---------------------------------------------------------------- key slots

    @property
    def active_slots(self) -> list[int]:
        """The numbers of the slots that hold the key."""
        return [number for number, slot in enumerate(self.header.slots) if slot.is_active]

    @property
    def free_slot(self) -> int | None:
        """The first slot without a key."""
        return next((n for n in range(KEY_SLOTS) if not self.header.slots[n].is_active), None)

    def find_key(self, passphrase: bytes) -> bytes:
        """Return the volume's key.

        Raises:
            WrongPassphrase: no slot opens with the passphrase.
            HostileImage: trying would take hours.
        """
        self.header.check_work()
        for number in self.active_slots:
            key = self._try_slot(self.header.slots[number], passphrase)
            if key is not None:
                return key
        raise WrongPassphrase("Invalid password, cannot unlock any keyslot")

    def slots_of(self, passphrase: bytes) -> list[int]:
        """Return the numbers of all slots that open with a passphrase."""
        self.header.check_work()
        slots = self.header.slots
        return [n for n in self.active_slots if self._try_slot(slots[n], passphrase) is not None]

    def opens_slot(self, number: int, passphrase: bytes) -> bool:
        """Whether one slot opens with a passphrase."""
        self.header.check_work()
        slot = self.header.slots[number]
        return slot.is_active and self._try_slot(slot, passphrase) is not None

    def fill_slot(self, number: int, passphrase: bytes, key: bytes, milliseconds: int) -> None:
        """Store the volume's key in a slot, for a passphrase.

        The material is on disk before the header speaks of it.

        Raises:
            UsageError: the time is too long.
        """
        from thinvirt.image.crypto.derivation import iterations_for
        from thinvirt.image.crypto.splitter import split

        header = self.header
        slot = header.slots[number]
        count = iterations_for(header.hash, header.key_bytes, milliseconds)
        slot.iterations = max(count, MIN_ITERATIONS)
        slot.salt = os.urandom(SALT_BYTES)
        material = split(header.hash, key, slot.stripes)
        material = self._slot_cipher(slot, passphrase).encrypt(0, material)
        self._file.write(slot.offset, material)
        self._file.flush()
        slot.is_active = True
        self._file.write(0, header.pack())
        self._file.flush()

    def empty_slot(self, number: int) -> None:
        """Forget what a slot holds, and overwrite it so that nobody finds it again."""
        slot = self.header.slots[number]
        slot.is_active, slot.iterations, slot.salt = False, 0, bytes(SALT_BYTES)
        try:
            self._file.write(0, self.header.pack())
            self._file.flush()
        finally:
            # Even if the header could not be written: the key must be gone.
            for _ in range(_WIPES):
                self._file.write(slot.offset, os.urandom(self.header.key_bytes * slot.stripes))
            self._file.flush()

    def _slot_cipher(self, slot: KeySlot, passphrase: bytes) -> SectorCipher:
        from thinvirt.image.crypto.ciphers import SectorCipher
        from thinvirt.image.crypto.derivation import derive

        header = self.header
        key = derive(header.hash, passphrase, slot.salt, slot.iterations, header.key_bytes)
        return SectorCipher(header.spec, key)

    def _try_slot(self, slot: KeySlot, passphrase: bytes) -> bytes | None:
        from thinvirt.image.crypto.splitter import merge

        size = self.header.key_bytes
        cipher = self._slot_cipher(slot, passphrase)
        material = cipher.decrypt(0, self._file.read(slot.offset, size * slot.stripes))
        key = merge(self.header.hash, material, size)
        return key if self._digest(key) == self.header.digest else None

    def _digest(self, key: bytes) -> bytes:
        from thinvirt.image.crypto.derivation import derive

        header = self.header
        return derive(header.hash, key, header.digest_salt, header.digest_iterations, DIGEST_BYTES)

    # ---------------------------------------------------------------- facts

    def facts(self) -> dict[str, Any]:
        """Return what QEMU tells of a volume, keyed and ordered as its schema has it."""
        header = self.header
        facts: dict[str, Any] = {
            "cipher-alg": header.spec.algorithm,
            "cipher-mode": header.spec.mode,
            "ivgen-alg": header.spec.vector,
        }
        if header.spec.vector == "essiv":
            facts["ivgen-hash-alg"] = header.spec.vector_hash
        facts |= {
            "hash-alg": header.hash,
            "payload-offset": header.payload_offset,
            "master-key-iters": header.digest_iterations,
            "uuid": header.uuid,
            "slots": [_slot_facts(slot) for slot in header.slots],
        }
        return facts


def _slot_facts(slot: KeySlot) -> dict[str, Any]:
    facts: dict[str, Any] = {"active": slot.is_active}
    if slot.is_active:
        facts |= {"iters": slot.iterations, "stripes": slot.stripes}
    return facts | {"key-offset": slot.offset}


def spec_for(
    algorithm: str = "aes-256",
    mode: str = "xts",
    vector: str = "plain64",
    vector_hash: str = "",
    hash_name: str = "sha256",
) -> LuksHeader:
    """Return a header, laid out, for a new volume.

    Raises:
        UnsupportedFeature: such a combination cannot be.
        UsageError: such a name has no place in a header.
    """
    from thinvirt.image.formats.luks import KEY_BYTES, CipherSpec

    if algorithm not in KEY_BYTES:
        from thinvirt.image.crypto.ciphers import unsupported_cipher

        raise unsupported_cipher(algorithm)
    if vector == "essiv" and not vector_hash:
        vector_hash = "sha256"
    spec: CipherSpec = CipherSpec(algorithm, mode, vector, vector_hash)
    if len(spec.mode_name) >= 32:
        raise UsageError(f"Cipher mode '{spec.mode_name}' is too long for LUKS header")
    if vector == "essiv":
        _ = spec.essiv_algorithm
    return LuksHeader.laid_out(spec, hash_name)
