"""Sector ciphers: AES over many 512-byte sectors at once, each with its own initial vector.

The `cryptography` package would have to be called anew for every sector, which takes longer than
the cipher itself. Its bulk ECB mode is used instead; the chaining (CBC) and the tweaks (XTS) of all
sectors of a request are computed together, on long integers whose lanes are one block each, or by
numpy once that is worth the import.
"""

from __future__ import annotations

import hashlib

from thinvirt.image.crypto.errors import CipherMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from thinvirt.image.crypto.wide import Lanes
    from thinvirt.image.formats.luks import CipherSpec

    Buffer: TypeAlias = bytes | bytearray | memoryview

SECTOR = 512
BLOCK = 16  # bytes of an AES block
_BLOCKS = SECTOR // BLOCK
_WORDS = SECTOR // 8
_PIECE = 256 << 10  # bytes handled at once: all lanes of it fit into the processor's cache
_WIDE_FROM = 32 << 20  # bytes after which importing numpy has paid for itself
_REDUCTION = 0x87  # x^128 = x^7 + x^2 + x + 1 (IEEE 1619)


class SectorCipher:
    """Encrypts whole sectors in place of one another: nothing grows.

    Args:
        spec: algorithm, mode and where initial vectors come from.
        key: as many bytes as `spec.key_bytes`.

    Raises:
        CipherMissing: the algorithm is none of AES, or the `cryptography` package is missing.
    """

    sector_size = SECTOR

    def __init__(self, spec: CipherSpec, key: bytes) -> None:
        self._mode = spec.mode
        main, tweak = (
            (key[: len(key) // 2], key[len(key) // 2 :]) if spec.mode == "xts" else (key, b"")
        )
        self._block = _BlockCipher(spec.algorithm, main)
        self._tweak = _BlockCipher(spec.algorithm, tweak) if tweak else None
        self._vectors = _Vectors(spec, key)
        self._done = 0
        self._lanes: Lanes | None = None

    def encrypt(self, offset: int, data: Buffer) -> bytes:
        """Return data as it is stored.

        Args:
            offset: bytes, whole sectors; initial vectors are made from it.
            data: what; a last part of a sector must still be whole blocks.
        """
        result = bytearray(len(data))
        self.encrypt_into(offset, data, memoryview(result))
        return bytes(result)

    def decrypt(self, offset: int, data: Buffer) -> bytes:
        """Return data as it was before `encrypt`."""
        result = bytearray(len(data))
        self.decrypt_into(offset, data, memoryview(result))
        return bytes(result)

    def encrypt_into(self, offset: int, data: Buffer, out: memoryview) -> None:
        """Put what `encrypt` returns into `out`, which may be the memory of `data` itself.

        One thread at a time may use a cipher.
        """
        self._in_pieces(offset, data, out, decrypts=False)

    def decrypt_into(self, offset: int, data: Buffer, out: memoryview) -> None:
        """Put what `decrypt` returns into `out`; see `encrypt_into`."""
        self._in_pieces(offset, data, out, decrypts=True)

    def _in_pieces(self, offset: int, data: Buffer, out: memoryview, *, decrypts: bool) -> None:
        assert not offset % SECTOR
        view = memoryview(data)
        if self._done < _WIDE_FROM:
            self._done += len(view)
            if self._done >= _WIDE_FROM and self._mode in ("xts", "cbc"):
                self._lanes = _numpy_lanes()
        for at in range(0, len(view), _PIECE):
            part: Buffer = view[at : at + _PIECE]
            target = out[at : at + _PIECE]
            sector, length = (offset + at) // SECTOR, len(part)
            if self._lanes is not None and not length % SECTOR:
                self._wide_piece(self._lanes, sector, part, target, decrypts=decrypts)
                continue
            if length % SECTOR:
                part = bytes(part).ljust(-(-length // SECTOR) * SECTOR, b"\0")
            target[:] = memoryview(self._piece(sector, part, decrypts=decrypts))[:length]

    def _wide_piece(
        self, lanes: Lanes, sector: int, data: Buffer, out: memoryview, *, decrypts: bool
    ) -> None:
        vectors = self._vectors.of(sector, len(data) // SECTOR, wide=True)
        work = self._block.decrypt_into if decrypts else self._block.encrypt_into
        if self._tweak is not None:
            lanes.mix_xts(work, self._tweak.encrypt(vectors), data, out)
        elif decrypts:
            lanes.unchain(work, vectors, data, out)
        else:
            lanes.chain(work, vectors, data, out)

    def _piece(self, sector: int, data: Buffer, *, decrypts: bool) -> bytes:
        work = self._block.decrypt if decrypts else self._block.encrypt
        if self._mode == "ecb":
            return work(data)
        vectors = self._vectors.of(sector, len(data) // SECTOR)
        if self._tweak is not None:
            tweaks = _number(_tweaks(self._tweak.encrypt(vectors)))
            middle = (_number(data) ^ tweaks).to_bytes(len(data), "little")
            return (_number(work(middle)) ^ tweaks).to_bytes(len(data), "little")
        if self._mode == "ctr":
            return self._block.count(vectors, data)
        return self._unchain(vectors, data) if decrypts else self._chain(vectors, data)

    def _chain(self, vectors: bytes, data: Buffer) -> bytes:
        """CBC: the first blocks of all sectors, then the second ones, and so on."""
        source, result = _words(data), bytearray(len(data))
        target = _words(result)
        before = vectors
        for column in range(_BLOCKS):
            mixed = _number(_column(source, column)) ^ _number(before)
            before = self._block.encrypt(mixed.to_bytes(len(vectors), "little"))
            _set_column(target, column, before)
        return bytes(result)

    def _unchain(self, vectors: bytes, data: Buffer) -> bytes:
        """CBC backwards: every block but a sector's first is mixed with the one stored before."""
        before = bytearray(len(data))
        before[BLOCK:] = memoryview(data)[:-BLOCK]
        _set_column(_words(before), 0, vectors)
        mixed = _number(self._block.decrypt(data)) ^ _number(before)
        return mixed.to_bytes(len(data), "little")


def _numpy_lanes() -> Lanes | None:
    try:
        from thinvirt.image.crypto.wide import Lanes
    except ImportError:
        return None
    return Lanes(_PIECE // SECTOR)


class _BlockCipher:
    """One block cipher with one key."""

    def __init__(self, algorithm: str, key: bytes) -> None:
        name = algorithm.partition("-")[0]
        if name != "aes":
            raise unsupported_cipher(algorithm)
        try:
            from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        except ImportError as error:
            raise CipherMissing(
                algorithm,
                "encrypted images need the Python package 'cryptography'",
                hint="pip install 'thinvirt[encryption]', or apt install python3-cryptography",
            ) from error
        self._cipher: Any = Cipher
        self._modes = modes
        self._key = algorithms.AES(key)
        both = Cipher(self._key, modes.ECB())  # noqa: S305 - the chaining is done here
        # ECB has no state between blocks: the same two are good for all requests.
        self._encryptor, self._decryptor = both.encryptor(), both.decryptor()

    def encrypt(self, data: Buffer) -> bytes:
        """Encrypt each block by itself."""
        return self._encryptor.update(data)

    def decrypt(self, data: Buffer) -> bytes:
        """Decrypt each block by itself."""
        return self._decryptor.update(data)

    def encrypt_into(self, data: Buffer, out: memoryview) -> None:
        """Encrypt each block by itself; `out` has room for one more."""
        self._encryptor.update_into(data, out)

    def decrypt_into(self, data: Buffer, out: memoryview) -> None:
        """Decrypt each block by itself; `out` has room for one more."""
        self._decryptor.update_into(data, out)

    def count(self, vectors: bytes, data: Buffer) -> bytes:
        """Mix with a stream made from counters, which begin anew with each sector."""
        view, result = memoryview(data), bytearray()
        for at in range(0, len(view), SECTOR):
            first = at // SECTOR * BLOCK
            mode = self._modes.CTR(vectors[first : first + BLOCK])
            result += self._cipher(self._key, mode).encryptor().update(view[at : at + SECTOR])
        return bytes(result)


def decrypt_cbc(key: bytes, vector: bytes, data: bytes) -> bytes:
    """Return whole blocks that were encrypted with AES in CBC mode, as one chain."""
    before = vector + data[:-BLOCK]
    mixed = _number(_BlockCipher("aes", key).decrypt(data)) ^ _number(before[: len(data)])
    return mixed.to_bytes(len(data), "little")


def unsupported_cipher(algorithm: str) -> CipherMissing:
    """Return the error for a cipher that QEMU may have and we have not."""
    return CipherMissing(
        algorithm,
        f"Algorithm '{algorithm}' not supported",
        hint="only AES is handled here; QEMU's own qemu-img may know this cipher",
    )


class _Vectors:
    """Makes initial vectors from sector numbers (LUKS 1 spec, "IV generators")."""

    def __init__(self, spec: CipherSpec, key: bytes) -> None:
        self._mask = 0xFFFFFFFF if spec.vector == "plain" else 0xFFFFFFFFFFFFFFFF
        self._salted: _BlockCipher | None = None
        if spec.vector == "essiv":
            algorithm = spec.essiv_algorithm
            size = int(algorithm.partition("-")[2]) // 8
            digest = hashlib.new(spec.vector_hash, key, usedforsecurity=False).digest()
            self._salted = _BlockCipher(algorithm, digest[:size])

    def of(self, sector: int, count: int, *, wide: bool = False) -> bytes:
        """Return the vectors of `count` sectors, end to end; `wide` makes them with numpy."""
        mask = self._mask
        if wide:
            from thinvirt.image.crypto.wide import plain_vectors

            plain = plain_vectors(sector, count, mask)
        else:
            numbers = range(sector, sector + count)
            plain = b"".join([(number & mask).to_bytes(BLOCK, "little") for number in numbers])
        return plain if self._salted is None else self._salted.encrypt(plain)


def _tweaks(first: bytes) -> bytearray:
    """Return the tweaks of all blocks of sectors, given those of their first blocks.

    Each is the one before it times x in GF(2^128), little-endian.
    """
    sectors = len(first) // BLOCK
    result = bytearray(sectors * SECTOR)
    words = _words(result)
    ones = int.from_bytes((b"\1" + bytes(BLOCK - 1)) * sectors, "little")
    below_top = ones * ((1 << 127) - 1)
    column = int.from_bytes(first, "little")
    _set_column(words, 0, first)
    for number in range(1, _BLOCKS):
        carried = column >> 127 & ones
        column = (column & below_top) << 1 ^ carried * _REDUCTION
        _set_column(words, number, column.to_bytes(len(first), "little"))
    return result


def _number(data: Buffer) -> int:
    return int.from_bytes(data, "little")


def _words(data: Buffer) -> memoryview:
    return memoryview(data).cast("B").cast("Q")


def _column(words: memoryview, number: int) -> bytearray:
    """Return block `number` of every sector, end to end."""
    result = bytearray(len(words) // _WORDS * BLOCK)
    target = memoryview(result).cast("Q")
    target[0::2] = words[2 * number :: _WORDS]
    target[1::2] = words[2 * number + 1 :: _WORDS]
    return result


def _set_column(words: memoryview, number: int, blocks: Buffer) -> None:
    """Put blocks where `_column` takes them from."""
    source = _words(blocks)
    words[2 * number :: _WORDS] = source[0::2]
    words[2 * number + 1 :: _WORDS] = source[1::2]
