"""Keys from passphrases: PBKDF2, and how many iterations take how long here."""

from __future__ import annotations

import hashlib
import time

from thinvirt.errors import UnsupportedFeature, UsageError

_MAX_ITERATIONS = (1 << 32) - 1  # what a header can hold
_FIRST_TRY = 1 << 12
_MIN_MEASURED = 0.01  # seconds that a measurement must take to be trusted
_MAX_MEASURED = 0.2


def derive(hash_name: str, password: bytes, salt: bytes, iterations: int, length: int) -> bytes:
    """Return a key made from a password (PKCS #5, PBKDF2).

    Args:
        hash_name: as LUKS names it.
        password: any bytes.
        salt: likewise.
        iterations: how often the hash is applied.
        length: bytes wanted.

    Raises:
        UnsupportedFeature: Python's OpenSSL lacks the hash.
    """
    try:
        return hashlib.pbkdf2_hmac(hash_name, password, salt, iterations, length)
    except ValueError as error:
        raise _without(hash_name) from error


def digest(hash_name: str, data: bytes) -> bytes:
    """Return a hash.

    Raises:
        UnsupportedFeature: Python's OpenSSL lacks it.
    """
    try:
        return hashlib.new(hash_name, data, usedforsecurity=False).digest()
    except ValueError as error:
        raise _without(hash_name) from error


def _without(hash_name: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"Hash algorithm '{hash_name}' not supported",
        hint="Python's OpenSSL has it only with its legacy provider",
    )


def iterations_for(hash_name: str, length: int, milliseconds: int, *, share: int = 1) -> int:
    """Return how many iterations keep this processor busy for a time.

    The clock is the thread's own processor time in nanoseconds, so that a few milliseconds of
    measuring are enough and other work on the machine does not lower the count.

    Args:
        hash_name: as LUKS names it.
        length: bytes that will be derived.
        milliseconds: the time.
        share: what part of it is meant: 8 for an eighth.

    Raises:
        UsageError: the count would be more than a header can hold.
    """
    enough = min(max(milliseconds / 4000, _MIN_MEASURED), _MAX_MEASURED)
    tried, spent = _FIRST_TRY, 0.0
    while True:
        start = time.thread_time()
        derive(hash_name, b"password", bytes(32), tried, length)
        spent = time.thread_time() - start
        if spent >= enough:
            break
        tried *= 10 if spent * 10 < enough else 2
    count = int(tried / spent * milliseconds / 1000)
    if count // share > _MAX_ITERATIONS:
        raise UsageError(f"PBKDF iterations {count // share} larger than {_MAX_ITERATIONS}")
    return count // share
