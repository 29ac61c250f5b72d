"""``--object secret`` in all its forms: the same secret, or the same words, as QEMU."""

import os
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from tests.oracle.image.conftest import Qemu

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.options import parse_image_opts
from thinvirt.image.ops.create import create_image
from thinvirt.image.qemu_img.objects import make_object

pytestmark = pytest.mark.oracle
IMAGE = "driver=luks,key-secret=s,file.filename=a"
KEY, VECTOR = bytes(range(200, 232)), b"0123456789abcdef"
IV = b64encode(VECTOR).decode()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph = BlockGraph({("secret", "s"): b"letmein"})
    create_image(graph, "a", "luks", size=1 << 20, options="key-secret=s,iter-time=1")
    sealed = (
        Cipher(algorithms.AES256(KEY), modes.CBC(VECTOR)).encryptor().update(b"letmein" + b"\t" * 9)
    )
    for name, data in (
        ("plain", b"letmein"), ("key", KEY), ("short", KEY[:31]), ("key64", b64encode(KEY) + b"\n"),
        ("sealed", sealed), ("sealed64", b64encode(sealed)), ("nul", b"letmein\0more"),
    ):  # fmt: skip
        Path(name).write_bytes(data)


def answers(qemu: Qemu, objects: tuple[str, ...]) -> tuple[str, str]:
    """Return what QEMU and what we say when the image is opened."""
    words = [word for text in objects for word in ("--object", text)]
    done = qemu.run("qemu-img", "measure", *words, "-O", "raw", "--image-opts", IMAGE)
    theirs = done.stderr.strip().removeprefix("qemu-img: ")
    made: dict[tuple[str, str], object] = {}
    ours = ""
    try:
        for text in objects:
            make_object(made, text)
        with BlockGraph(made).open_root(None, parse_image_opts(IMAGE)):
            pass
    except BlockError as error:
        ours = error.message
    return theirs.removeprefix(f"Could not open '{IMAGE}': "), ours


@pytest.mark.parametrize(
    "objects",
    [
        ("secret,id=s,data=letmein",),
        ("secret,id=s,file=plain",),
        ("secret,id=s,data=bGV0bWVpbg==,format=base64",),
        ("secret,id=s,data=letmein,iv=AAAA",),
        ("secret,id=m,file=key", f"secret,id=s,keyid=m,iv={IV},format=base64,file=sealed64"),
        ("secret,id=m,file=key", f"secret,id=s,keyid=m,iv={IV},file=sealed"),
        (
            "secret,id=m,file=key64,format=base64",
            f"secret,id=s,keyid=m,iv={IV},format=base64,file=sealed64",
        ),
    ],
)
def test_the_secret_is_the_same(qemu: Qemu, objects: tuple[str, ...]) -> None:
    assert answers(qemu, objects) == ("", "")


@pytest.mark.parametrize(
    "objects",
    [
        ("secret,id=s",),
        ("secret,id=s,data=wrong",),
        ("secret,id=s,data=",),
        ("secret,id=s,file=key",),
        ("secret,id=s,file=nul",),
        ("secret,id=s,file=nowhere",),
        ("secret,id=s,data=a,file=plain",),
        ("secret,id=s,data=a,format=rot13",),
        ("secret,id=s,data=bGV0bW???,format=base64",),
        ("secret,id=s,data=a!b,format=base64",),
        ("secret,id=m,file=short", f"secret,id=s,keyid=m,iv={IV},file=sealed"),
        ("secret,id=m,file=key", "secret,id=s,keyid=m,file=sealed"),
        ("secret,id=m,file=key", "secret,id=s,keyid=m,iv=AAAA,file=sealed"),
        ("secret,id=m,file=key", "secret,id=s,keyid=m,iv=%%,file=sealed"),
        ("secret,id=m,file=key", f"secret,id=s,keyid=n,iv={IV},file=sealed"),
        ("secret,id=m,file=key", f"secret,id=s,keyid=m,iv={IV},file=short"),
        ("secret,id=m,file=key", f"secret,id=s,keyid=m,iv={IV},format=base64,file=key64"),
        ("secret,id=t,data=letmein",),
        ("throttle-group,id=s",),
    ],
)
def test_the_words_are_the_same(qemu: Qemu, objects: tuple[str, ...]) -> None:
    theirs, ours = answers(qemu, objects)
    assert theirs
    assert ours == theirs


def test_what_qemu_takes_for_a_shorter_secret_is_refused() -> None:
    with pytest.raises(BlockError, match="not complete"):
        make_object({}, "secret,id=s,data=bGV0bWVpbg,format=base64")


def test_a_huge_file_is_no_secret() -> None:
    Path("huge").touch()
    os.truncate("huge", 1 << 40)
    with pytest.raises(BlockError, match="more than 65536 bytes"):
        make_object({}, "secret,id=s,file=huge")
