"""The LUKS header: what is packed is read, what cannot be is refused in QEMU's words."""

from collections.abc import Callable
from contextlib import suppress
from struct import pack_into

import pytest

from thinvirt.errors import CorruptImage, ImageError, UnsupportedFeature
from thinvirt.image.formats.luks import CipherSpec, LuksHeader


@pytest.fixture
def header() -> LuksHeader:
    made = LuksHeader.laid_out(CipherSpec("aes-256", "xts", "plain64"), "sha256")
    made.digest_iterations = 1000
    made.uuid = "2d3d5b3e-0000-4000-8000-000000000000"
    made.slots[0].is_active = True
    made.slots[0].iterations = 1234
    made.slots[0].salt = bytes(range(32))
    return made


def test_round_trip(header: LuksHeader) -> None:
    assert LuksHeader.SIZE == 592
    assert LuksHeader.unpack(header.pack()) == header


def test_layout_is_cryptsetups(header: LuksHeader) -> None:
    assert header.payload_offset == 2068480
    assert [slot.offset for slot in header.slots[:3]] == [4096, 262144, 520192]


@pytest.mark.parametrize(
    ("names", "size", "expected"),
    [
        (("aes", "xts-plain64"), 64, CipherSpec("aes-256", "xts", "plain64")),
        (("aes", "cbc-essiv:sha256"), 16, CipherSpec("aes-128", "cbc", "essiv", "sha256")),
        (("aes", "cbc-plain:sha1"), 24, CipherSpec("aes-192", "cbc", "plain", "sha1")),
        (("serpent", "xts-plain64"), 32, CipherSpec("serpent-128", "xts", "plain64")),
    ],
)
def test_cipher_names(names: tuple[str, str], size: int, expected: CipherSpec) -> None:
    assert CipherSpec.parse(*names, size) == expected
    assert (expected.cipher_name, expected.mode_name) == names


@pytest.mark.parametrize(
    ("names", "size", "message"),
    [
        (("aes", "xts"), 64, "Unexpected cipher mode string format 'xts'"),
        (("aes", "xts-benbi"), 64, "IV generator 'benbi' not supported"),
        (("aes", "lrw-plain"), 32, "Cipher mode 'lrw' not supported"),
        (("aes", "xts-plain64"), 40, "Algorithm 'aes' with key size 20 bytes not supported"),
        (("camellia", "xts-plain64"), 64, "Algorithm 'camellia' with key size 32 bytes"),
        (("aes", "cbc-essiv"), 16, "Missing IV generator hash specification"),
        (("aes", "cbc-essiv:sha1"), 16, "No AES cipher with key size 20 available"),
        (("aes", "cbc-plain:crc32"), 16, "Hash algorithm 'crc32' not supported"),
        (("cast5", "cbc-essiv:sha256"), 16, "Cipher cast5-128 not supported with essiv"),
    ],
)
def test_cipher_names_that_mean_nothing(names: tuple[str, str], size: int, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        CipherSpec.parse(*names, size)


def at(place: int, code: str, value: object) -> Callable[[bytearray], None]:
    return lambda raw: pack_into(">" + code, raw, place, value)


SLOT = 208
HOSTILE = [
    (at(0, "6s", b"LUKS\xba\xbf"), "Volume is not in LUKS format"),
    (at(6, "H", 2), "LUKS version 2 is not supported"),
    (at(8, "32s", b"a" * 32), "LUKS header cipher name is not NUL terminated"),
    (at(40, "32s", b"a" * 32), "LUKS header cipher mode is not NUL terminated"),
    (at(72, "32s", b"a" * 32), "LUKS header hash spec is not NUL terminated"),
    (at(72, "32s", b"crc32"), "Hash algorithm 'crc32' not supported"),
    (at(104, "I", 7), "LUKS payload is overlapping with the header"),
    (at(104, "I", 8), "Keyslot 0 is overlapping with the encrypted payload"),
    (at(108, "I", 0xFFFFFFFF), "Keyslot 0 is overlapping with the encrypted payload"),
    (at(108, "I", 0), "Algorithm 'aes' with key size 0 bytes not supported"),
    (at(164, "I", 0), "LUKS key iteration count is zero"),
    (at(SLOT, "I", 1), r"Keyslot 0 state \(active/disable\) is corrupted"),
    (at(SLOT + 4, "I", 0), "Keyslot 0 iteration count is zero"),
    (at(SLOT + 40, "I", 7), "Keyslot 0 is overlapping with the LUKS header"),
    (at(SLOT + 40, "I", 0xFFFFFFFF), "Keyslot 0 is overlapping with the encrypted payload"),
    (at(SLOT + 40, "I", 512), "Keyslots 0 and 1 are overlapping in the header"),
    (at(SLOT + 44, "I", 3999), r"Keyslot 0 is corrupted \(stripes 3999 != 4000\)"),
    (at(SLOT + 44, "I", 0xFFFFFFFF), r"Keyslot 0 is corrupted \(stripes -1 != 4000\)"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE, ids=[m for _, m in HOSTILE])
def test_hostile_fields(
    header: LuksHeader, change: Callable[[bytearray], None], message: str
) -> None:
    raw = bytearray(header.pack())
    change(raw)
    with pytest.raises((CorruptImage, UnsupportedFeature), match=message):
        LuksHeader.unpack(bytes(raw))


def test_truncations_and_noise(header: LuksHeader) -> None:
    raw = header.pack()
    for length in range(0, LuksHeader.SIZE, 7):
        with pytest.raises(CorruptImage):
            LuksHeader.unpack(raw[:length])
    for place in range(LuksHeader.SIZE):
        noisy = bytearray(raw)
        noisy[place] ^= 0x81
        with suppress(ImageError):  # whatever is wrong, nothing else is raised
            LuksHeader.unpack(bytes(noisy))
