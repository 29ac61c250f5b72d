"""Chaining and tweaks of many sectors at once with numpy, an optional package.

Several times faster than long integers, and without the interpreter lock for most of the time; but
numpy takes so long to import that only images of some size gain (see `ciphers.SectorCipher`).
Memory is taken once and used again: fresh pages, which the kernel clears first, cost more than the
cipher.
"""

from __future__ import annotations

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import NDArray

    Words: TypeAlias = NDArray[np.uint64]
    Buffer: TypeAlias = bytes | bytearray | memoryview
    # puts the first, encrypted or decrypted block by block, into the second
    Blocks: TypeAlias = Callable[[Buffer, memoryview], object]

SECTOR = 512
_BLOCK = 16
_BLOCKS = SECTOR // _BLOCK
_WORDS = SECTOR // 8
_POWERS = (1, 2, 7)  # x^128 = x^7 + x^2 + x + 1 (IEEE 1619); the 1 is the number itself


def plain_vectors(sector: int, count: int, mask: int) -> bytes:
    """Return the numbers of sectors as 16 bytes each, end to end, with only the bits of `mask`."""
    result = np.zeros((count, 2), dtype="<u8")
    result[:, 0] = np.arange(sector, sector + count, dtype=np.uint64) & np.uint64(mask)
    return result.tobytes()


class Lanes:
    """Memory for so many sectors, and what is done with them; for one thread at a time.

    In all methods `data` are whole sectors, `out` takes as many bytes and may be the same memory.
    """

    def __init__(self, sectors: int) -> None:
        self._mixed = np.empty(sectors * _WORDS, dtype=np.uint64)
        # The cryptography package wants room for a block more than it writes.
        self._done = np.empty(sectors * _WORDS + _BLOCK // 8, dtype=np.uint64)
        self._tweaks = np.empty((sectors, _BLOCKS, 2), dtype=np.uint64)
        self._half = [np.empty((sectors, _BLOCKS // 2), dtype=np.uint64) for _ in range(3)]

    def mix_xts(self, work: Blocks, first: bytes, data: Buffer, out: memoryview) -> None:
        """Encrypt or decrypt in XTS mode.

        Args:
            work: encrypts or decrypts.
            first: the tweaks of the first blocks of all sectors, end to end.
            data: sectors.
            out: where they go.
        """
        tweaks = self._all_tweaks(first)
        mixed = self._mixed[: len(tweaks)]
        np.bitwise_xor(_words(data), tweaks, out=mixed)
        done = self._work(work, mixed.data.cast("B"))
        np.bitwise_xor(done, tweaks, out=_words(out))

    def unchain(self, decrypt: Blocks, vectors: bytes, data: Buffer, out: memoryview) -> None:
        """Decrypt in CBC mode; `vectors` are the initial ones of all sectors, end to end."""
        stored = _words(data).reshape(-1, _BLOCKS, 2)
        plain = self._work(decrypt, data).reshape(-1, _BLOCKS, 2)
        plain[:, 1:] ^= stored[:, :-1]
        plain[:, 0] ^= _words(vectors).reshape(-1, 2)
        _words(out)[:] = plain.reshape(-1)

    def chain(self, encrypt: Blocks, vectors: bytes, data: Buffer, out: memoryview) -> None:
        """Encrypt in CBC mode: the first blocks of all sectors, then their second ones, and on."""
        plain = _words(data).reshape(-1, _BLOCKS, 2)
        stored = _words(out).reshape(-1, _BLOCKS, 2)
        before = _words(vectors).reshape(-1, 2)
        mixed = self._mixed[: before.size].reshape(-1, 2)
        for number in range(_BLOCKS):
            np.bitwise_xor(plain[:, number], before, out=mixed)
            before = self._work(encrypt, mixed.data.cast("B")).reshape(-1, 2)
            stored[:, number] = before

    def _work(self, work: Blocks, data: Buffer) -> Words:
        work(data, self._done.data.cast("B")[: len(data) + _BLOCK])
        return self._done[: len(data) // 8]

    def _all_tweaks(self, first: bytes) -> Words:
        """Return the tweaks of all blocks: each is the one before it times x in GF(2^128).

        The number of known ones is doubled five times: tweak j + k is tweak j times x^k.
        """
        low = _words(first).reshape(-1, 2)
        result = self._tweaks[: len(low)]
        result[:, 0] = low
        known = 1
        while known < _BLOCKS:
            shift, back = np.uint64(known), np.uint64(64 - known)
            low, high = result[:, :known, 0], result[:, :known, 1]
            carried, moved, reduced = (half[: len(result), :known] for half in self._half)
            np.right_shift(high, back, out=carried)
            np.right_shift(low, back, out=moved)
            np.left_shift(high, shift, out=reduced)
            np.bitwise_or(moved, reduced, out=result[:, known : 2 * known, 1])
            np.left_shift(low, shift, out=reduced)
            reduced ^= carried
            for power in _POWERS:
                np.left_shift(carried, np.uint64(power), out=moved)
                reduced ^= moved
            result[:, known : 2 * known, 0] = reduced
            known *= 2
        return result.reshape(-1)


def _words(data: Buffer) -> Words:
    """Return 64-bit numbers, two for each block, the low one first."""
    return np.frombuffer(data, dtype=np.uint64)
