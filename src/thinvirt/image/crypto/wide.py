"""Chaining and tweaks of many sectors at once with numpy, an optional package.

Several times faster than long integers, and without the interpreter lock for most of the time; but
numpy takes so long to import that only images of some size gain (see `ciphers.SectorCipher`).
"""

from __future__ import annotations

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import NDArray

    Words: TypeAlias = NDArray[np.uint64]
    Blocks: TypeAlias = Callable[[bytes | bytearray | memoryview], bytes]

_BLOCKS = 32  # of 16 bytes in a sector of 512
_POWERS = (1, 2, 7)  # x^128 = x^7 + x^2 + x + 1 (IEEE 1619); the 1 is the number itself


def mix_xts(work: Blocks, first: bytes, data: bytes | bytearray | memoryview) -> bytes:
    """Return sectors that were encrypted or decrypted in XTS mode.

    Args:
        work: encrypts, or decrypts, each block by itself.
        first: the tweaks of the first blocks of all sectors, end to end.
        data: whole sectors, one for each of these tweaks.
    """
    tweaks = _tweaks(first)
    mixed = _words(data) ^ tweaks
    done = _words(work(mixed.data.cast("B")))
    np.bitwise_xor(done, tweaks, out=mixed)
    return mixed.tobytes()


def unchain(decrypt: Blocks, vectors: bytes, data: bytes | bytearray | memoryview) -> bytes:
    """Return sectors decrypted in CBC mode; see `mix_xts` for what comes in."""
    stored = _words(data).reshape(-1, _BLOCKS, 2)
    plain = _words(decrypt(data)).reshape(-1, _BLOCKS, 2).copy()
    plain[:, 1:] ^= stored[:, :-1]
    plain[:, 0] ^= _words(vectors).reshape(-1, 2)
    return plain.tobytes()


def chain(encrypt: Blocks, vectors: bytes, data: bytes | bytearray | memoryview) -> bytes:
    """Return sectors encrypted in CBC mode: their first blocks, then their second ones, and on."""
    stored = _words(data).reshape(-1, _BLOCKS, 2).copy()
    before = _words(vectors).reshape(-1, 2)
    for number in range(_BLOCKS):
        mixed = stored[:, number] ^ before
        before = _words(encrypt(mixed.data.cast("B"))).reshape(-1, 2)
        stored[:, number] = before
    return stored.tobytes()


def _words(data: bytes | bytearray | memoryview) -> Words:
    """Return 64-bit numbers, two for each block, the low one first."""
    return np.frombuffer(data, dtype="<u8").view(np.uint64)


def _tweaks(first: bytes) -> Words:
    """Return the tweaks of all blocks: each is the one before it times x in GF(2^128).

    The number of known ones is doubled five times: tweak j + k is tweak j times x^k.
    """
    low = _words(first).reshape(-1, 2)
    result = np.empty((len(low), _BLOCKS, 2), dtype=np.uint64)
    result[:, 0] = low
    known = 1
    while known < _BLOCKS:
        shift, back = np.uint64(known), np.uint64(64 - known)
        low, high = result[:, :known, 0], result[:, :known, 1]
        carried = high >> back
        result[:, known : 2 * known, 1] = high << shift | low >> back
        reduced = low << shift ^ carried
        for power in _POWERS:
            reduced ^= carried << np.uint64(power)
        result[:, known : 2 * known, 0] = reduced
        known *= 2
    return result.reshape(-1)
