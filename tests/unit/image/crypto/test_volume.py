"""Key slots, with the header in memory."""

import pytest

from thinvirt.errors import HostileImage, UnsupportedFeature, UsageError
from thinvirt.image.crypto import derivation
from thinvirt.image.crypto.errors import WrongPassphrase
from thinvirt.image.crypto.splitter import merge, split
from thinvirt.image.crypto.volume import HeaderFile, Volume, spec_for
from thinvirt.image.formats.luks import MIN_ITERATIONS, LuksHeader


class Memory(HeaderFile):
    """A header in memory, which fails when told to."""

    def __init__(self) -> None:
        self.data = bytearray(4 << 20)
        self.log: list[int | str] = []
        self.fails_at: int | None = None
        self.writes_left = 1 << 30

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.log.append(offset)
        self.writes_left -= 1
        if offset == self.fails_at or self.writes_left < 0:
            raise OSError("full")
        self.data[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.log.append("flush")


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def volume(memory: Memory) -> Volume:
    return Volume.create(spec_for(), b"first", 1, memory)


def test_what_was_made_opens(memory: Memory, volume: Volume) -> None:
    again = Volume.open(memory)
    again.unlock(b"first")
    assert volume.cipher is not None
    assert again.cipher is not None
    assert again.cipher.decrypt(512, volume.cipher.encrypt(512, b"x" * 1024)) == b"x" * 1024
    with pytest.raises(WrongPassphrase):
        again.unlock(b"second")


def test_slots_are_filled_and_emptied(memory: Memory, volume: Volume) -> None:
    key = volume.find_key(b"first")
    volume.fill_slot(5, b"second", key, 1)
    assert volume.active_slots == [0, 5]
    assert volume.free_slot == 1
    assert volume.slots_of(b"second") == [5]
    assert volume.opens_slot(0, b"first")
    assert not volume.opens_slot(0, b"second")
    volume.empty_slot(0)
    again = Volume.open(memory)
    assert again.active_slots == [5]
    assert again.find_key(b"second") == key
    assert again.header.slots[0].salt == bytes(32)


def test_material_is_durable_before_the_header_speaks_of_it(memory: Memory, volume: Volume) -> None:
    key = volume.find_key(b"first")
    memory.log.clear()
    volume.fill_slot(1, b"second", key, 1)
    assert memory.log == [volume.header.slots[1].offset, "flush", 0, "flush"]
    memory.log.clear()
    volume.empty_slot(1)
    assert memory.log[:2] == [0, "flush"]
    assert set(memory.log[2:-1]) == {volume.header.slots[1].offset}
    assert memory.log[-1] == "flush"


def test_a_key_is_wiped_even_if_the_header_cannot_be_written(
    memory: Memory, volume: Volume
) -> None:
    place = volume.header.slots[0].offset
    before = memory.read(place, 4096)
    memory.fails_at = 0
    with pytest.raises(OSError, match="full"):
        volume.empty_slot(0)
    assert memory.read(place, 4096) != before


def test_the_other_slots_open_wherever_a_change_breaks_off(memory: Memory, volume: Volume) -> None:
    key = volume.find_key(b"first")
    for writes in range(3):
        memory.writes_left = writes
        try:
            Volume.open(memory).fill_slot(2, b"second", key, 1)
        except OSError:
            assert writes < 2
        memory.writes_left = 1 << 30
        assert Volume.open(memory).find_key(b"first") == key
    for writes in (0, 1, 5):
        memory.writes_left = writes
        with pytest.raises(OSError, match="full"):
            Volume.open(memory).empty_slot(2)
        assert Volume.open(memory).find_key(b"first") == key


def test_splitter_gives_the_key_back_and_needs_all_of_it() -> None:
    for name, size in (("sha256", 64), ("sha1", 48), ("sha512", 16), ("ripemd160", 32)):
        key = bytes(range(size))
        material = bytearray(split(name, key, 50))
        assert len(material) == 50 * size
        assert merge(name, bytes(material), size) == key
        material[size] ^= 1
        assert merge(name, bytes(material), size) != key


def test_iterations_follow_the_time() -> None:
    short = derivation.iterations_for("sha256", 64, 1000)
    assert short > MIN_ITERATIONS
    assert derivation.iterations_for("sha256", 64, 1000, share=8) < short
    with pytest.raises(UsageError, match="larger than 4294967295"):
        derivation.iterations_for("sha256", 64, 1 << 40)


def test_absurd_iteration_counts_are_refused(memory: Memory, volume: Volume) -> None:
    volume.header.slots[3].is_active = True
    volume.header.slots[3].iterations = 0xFFFFFFFF
    memory.write(0, volume.header.pack())
    with pytest.raises(HostileImage, match="iterations"):
        Volume.open(memory).find_key(b"first")


def test_unknown_hash() -> None:
    with pytest.raises(UnsupportedFeature, match="whirlpool"):
        derivation.derive("whirlpool-x", b"", b"", 1, 1)


def test_names_that_do_not_fit() -> None:
    assert len(spec_for(vector="essiv").pack()) == LuksHeader.SIZE
    with pytest.raises(UnsupportedFeature, match="No AES cipher with key size 20 available"):
        spec_for(vector="essiv", vector_hash="sha1")
    with pytest.raises(UnsupportedFeature, match="sm4"):
        spec_for("sm4")
