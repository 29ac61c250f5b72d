"""Sector ciphers against the cryptography package's own modes, one sector at a time."""

import os
import sys
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from thinvirt.image.crypto import ciphers
from thinvirt.image.crypto.ciphers import SECTOR, SectorCipher
from thinvirt.image.crypto.errors import CipherMissing
from thinvirt.image.formats.luks import CipherSpec

MODES: dict[str, Any] = {
    "ecb": lambda _: modes.ECB(), "cbc": modes.CBC, "ctr": modes.CTR, "xts": modes.XTS,
}  # fmt: skip


def one_by_one(spec: CipherSpec, key: bytes, first: int, data: bytes) -> bytes:
    parts = []
    for number in range(len(data) // SECTOR):
        vector = (first + number & (0xFFFFFFFF if spec.vector == "plain" else 2**64 - 1)).to_bytes(
            16, "little"
        )
        mode = MODES[spec.mode](vector)
        sector = data[number * SECTOR : (number + 1) * SECTOR]
        parts.append(Cipher(algorithms.AES(key), mode).encryptor().update(sector))
    return b"".join(parts)


@pytest.mark.parametrize("mode", ["ecb", "cbc", "ctr", "xts"])
@pytest.mark.parametrize("size", [128, 192, 256])
@pytest.mark.parametrize("vector", ["plain", "plain64"])
def test_many_sectors_at_once_are_as_one_by_one(mode: str, size: int, vector: str) -> None:
    spec = CipherSpec(f"aes-{size}", mode, vector)
    key = os.urandom(spec.key_bytes)
    cipher = SectorCipher(spec, key)
    for first, count in ((0, 1), (7, 3), ((1 << 32) - 2, 5), (1 << 40, 2049)):
        data = os.urandom(count * SECTOR)
        stored = cipher.encrypt(first * SECTOR, data)
        assert cipher.decrypt(first * SECTOR, stored) == data
        if (mode, size) != ("xts", 192):  # OpenSSL has no such mode
            assert stored == one_by_one(spec, key, first, data)


def test_xts_vector_of_the_standard() -> None:
    """IEEE 1619, vector 2: 32 bytes of 0x44, data unit 0x3333333333."""
    cipher = SectorCipher(CipherSpec("aes-128", "xts", "plain64"), b"\x11" * 16 + b"\x22" * 16)
    stored = cipher.encrypt(0x3333333333 * SECTOR, b"\x44" * 32)
    assert stored.hex() == ("c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0")


def test_essiv_encrypts_the_sector_number_with_the_hashed_key() -> None:
    import hashlib

    spec = CipherSpec("aes-128", "cbc", "essiv", "sha256")
    key = os.urandom(16)
    data = os.urandom(2 * SECTOR)
    salted = Cipher(algorithms.AES(hashlib.sha256(key).digest()), modes.ECB()).encryptor()
    expected = b""
    for number in (9, 10):
        vector = salted.update(number.to_bytes(16, "little"))
        sector = data[(number - 9) * SECTOR : (number - 8) * SECTOR]
        expected += Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor().update(sector)
    assert SectorCipher(spec, key).encrypt(9 * SECTOR, data) == expected


def test_views_and_part_sectors() -> None:
    """Key material need not fill its last sector."""
    for mode in ("cbc", "xts", "ctr", "ecb"):
        cipher = SectorCipher(spec := CipherSpec("aes-192", mode), os.urandom(spec.key_bytes))
        data = os.urandom(SECTOR + 256)
        whole = cipher.encrypt(0, data + bytes(256))
        assert cipher.encrypt(0, memoryview(bytearray(data))) == whole[: len(data)]
        assert cipher.decrypt(0, whole[: len(data)]) == data
    assert cipher.encrypt(0, b"") == b""


@pytest.mark.parametrize("name", ["serpent-256", "twofish-128", "cast5-128"])
def test_other_ciphers_are_named(name: str) -> None:
    with pytest.raises(CipherMissing, match=name):
        SectorCipher(CipherSpec(name, "cbc"), bytes(16))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(CipherMissing, match="package 'cryptography'") as caught:
        SectorCipher(CipherSpec(), bytes(range(64)))
    assert "python3-cryptography" in caught.value.hint


@pytest.mark.parametrize("mode", ["ecb", "cbc", "ctr", "xts"])
@pytest.mark.parametrize(("vector", "salt"), [("plain", ""), ("plain64", ""), ("essiv", "sha256")])
def test_numpy_does_the_same(
    monkeypatch: pytest.MonkeyPatch, mode: str, vector: str, salt: str
) -> None:
    pytest.importorskip("numpy")
    spec = CipherSpec("aes-256", mode, vector, salt)
    key = os.urandom(spec.key_bytes)
    slow = SectorCipher(spec, key)
    monkeypatch.setattr(ciphers, "_WIDE_FROM", 1)
    fast = SectorCipher(spec, key)
    for first, count in ((0, 1), ((1 << 32) - 2, 5), (1 << 40, 1500)):
        data = os.urandom(count * SECTOR)
        stored = slow.encrypt(first * SECTOR, data)
        assert fast.encrypt(first * SECTOR, data) == stored
        assert fast.decrypt(first * SECTOR, stored) == data
        place = bytearray(data)  # in place
        fast.encrypt_into(first * SECTOR, place, memoryview(place))
        assert place == stored
        fast.decrypt_into(first * SECTOR, place, memoryview(place))
        assert place == data


def test_without_numpy_all_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ciphers, "_WIDE_FROM", 1)
    monkeypatch.setitem(sys.modules, "thinvirt.image.crypto.wide", None)
    cipher = SectorCipher(CipherSpec(), bytes(range(64)))
    data = os.urandom(3 * SECTOR)
    assert cipher.decrypt(SECTOR, cipher.encrypt(SECTOR, data)) == data
