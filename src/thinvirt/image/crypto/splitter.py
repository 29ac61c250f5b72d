"""The anti-forensic splitter: a key spread over so many bytes that losing few loses it.

All stripes but the last are random; the last one makes their diffused sum the key (LUKS1 spec,
"Anti-forensic splitter").
"""

from __future__ import annotations

import os

from thinvirt.image.crypto.derivation import digest


def split(hash_name: str, key: bytes, stripes: int) -> bytes:
    """Return `stripes` times as many bytes, of which all are needed to get the key back."""
    size = len(key)
    material = os.urandom(size * (stripes - 1))
    last = _sum(hash_name, material, size)
    return material + _xor(last, key)


def merge(hash_name: str, material: bytes, size: int) -> bytes:
    """Return the key of `size` bytes that was split."""
    return _xor(_sum(hash_name, material[:-size], size), material[-size:])


def _sum(hash_name: str, material: bytes, size: int) -> bytes:
    found = bytes(size)
    for at in range(0, len(material), size):
        found = _diffuse(hash_name, _xor(found, material[at : at + size]))
    return found


def _diffuse(hash_name: str, block: bytes) -> bytes:
    """Replace each digest-sized part by its hash, so that every bit hangs on all of its part."""
    step = len(digest(hash_name, b""))
    parts = [
        digest(hash_name, number.to_bytes(4, "big") + block[at : at + step])
        for number, at in enumerate(range(0, len(block), step))
    ]
    return b"".join(parts)[: len(block)]


def _xor(one: bytes, other: bytes) -> bytes:
    mixed = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return mixed.to_bytes(len(one), "little")
