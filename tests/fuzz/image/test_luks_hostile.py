"""LUKS headers that claim too much: refused before any key is derived, naming the field."""

import resource
import struct
import time
from pathlib import Path

import pytest

from thinvirt.errors import ThinvirtError
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.formats.luks import KeySlot, LuksHeader
from thinvirt.image.qemu_img.main import main

_SLOTS = LuksHeader.LAYOUT.size
_SLOT = KeySlot.LAYOUT.size
_PAYLOAD, _KEY_BYTES, _DIGEST_ITERATIONS = 104, 108, 164
_ITERATIONS, _MATERIAL, _STRIPES = 4, 40, 44


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("luks") / "volume"
    options = "key-secret=k,iter-time=10,cipher-alg=aes-128"
    words = ["create", "-q", "--object", "secret,id=k,data=pw", "-f", "luks", "-o", options]
    assert main(["thin-img", *words, str(path), "64K"]) == 0
    return path.read_bytes()


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (_SLOTS + _ITERATIONS, 0xFFFFFFFF, "iterations of PBKDF2"),
        (_DIGEST_ITERATIONS, 0xFFFFFFFF, "iterations of PBKDF2"),
        (_DIGEST_ITERATIONS, 0, "iteration count is zero"),
        (_SLOTS + _ITERATIONS, 0, "Keyslot 0 iteration count is zero"),
        (_SLOTS + _STRIPES, 0xFFFFFFFF, "Keyslot 0 is corrupted .stripes -1"),
        (_SLOTS + _STRIPES, 0, "Keyslot 0 is corrupted .stripes 0"),
        (_SLOTS + _MATERIAL, 0, "Keyslot 0 is overlapping with the LUKS header"),
        (_SLOTS + _MATERIAL, 0xFFFFFFFF, "Keyslot 0 is overlapping with the encrypted payload"),
        (_SLOTS + _SLOT + _MATERIAL, 8, "Keyslots 0 and 1 are overlapping"),
        (_SLOTS, 0x12345678, "Keyslot 0 state"),
        (_PAYLOAD, 0, "payload is overlapping with the header"),
        (_PAYLOAD, 9, "overlapping with the encrypted payload"),
        (_KEY_BYTES, 0xFFFFFFFF, "overlapping|key"),
        (_KEY_BYTES, 0, "key|overlapping"),
    ],
)
def test_fields_that_cannot_be(
    tmp_path: Path, volume: bytes, at: int, value: int, words: str
) -> None:
    raw = bytearray(volume)
    raw[at : at + 4] = struct.pack(">I", value)
    path = tmp_path / "volume"
    path.write_bytes(raw)
    graph = BlockGraph()
    options = {"driver": "luks", "key-secret": "k"}
    from thinvirt.image.qemu_img.objects import make_object

    make_object(graph.objects, "secret,id=k,data=pw")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ThinvirtError, match=words):
        graph.open_root(str(path), options)
    assert time.process_time() - start < 2  # a bound that hostile images are promised, no figure
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10


@pytest.mark.parametrize("length", [0, 1, 6, 207, 208, 591, 592, 4096, 5000])
def test_headers_that_end_early(tmp_path: Path, volume: bytes, length: int) -> None:
    path = tmp_path / "volume"
    path.write_bytes(volume[:length])
    graph = BlockGraph()
    from thinvirt.image.qemu_img.objects import make_object

    make_object(graph.objects, "secret,id=k,data=pw")
    with pytest.raises(ThinvirtError):
        graph.open_root(str(path), {"driver": "luks", "key-secret": "k"})
