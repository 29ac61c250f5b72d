"""Random guests on our images of every kind: real qemu-img finds them sound and reads the same."""

from itertools import product
from pathlib import Path

import pytest
from tests.oracle.image.conftest import Qemu
from tests.qcow2_images import Guest, make, opened

from thinvirt.image.block.flags import Open

pytestmark = pytest.mark.oracle

_EXTRAS = (
    "",
    "extended_l2=on",
    "compat=0.10",
    "compression_type=zstd",
    "lazy_refcounts=on",
    "data_file=guest.raw",
    "data_file=guest.raw,data_file_raw=on",
)


def _is_possible(cluster_size: int, refcount_bits: int, extra: str) -> bool:
    if "extended" in extra and cluster_size < 16384:
        return False
    return "0.10" not in extra or refcount_bits == 16


_MATRIX = list(product((512, 4096, 65536, 1 << 21), (1, 2, 16, 64), _EXTRAS))
_MATRIX = [row for row in _MATRIX if _is_possible(*row)]
_QUICK = [
    pytest.param(*row, marks=[] if number % 6 == 0 else pytest.mark.slow)
    for number, row in enumerate(_MATRIX)
]


@pytest.mark.parametrize(("cluster_size", "refcount_bits", "extra"), _QUICK)
def test_a_random_guest_leaves_a_sound_image(
    tmp_path: Path,
    qemu: Qemu,
    monkeypatch: pytest.MonkeyPatch,
    cluster_size: int,
    refcount_bits: int,
    extra: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "guest.qcow2"
    size = min(cluster_size * 200 + 512 * 3, 4 << 20) if cluster_size < 1 << 20 else 8 << 20
    options = f"size={size},cluster_size={cluster_size},refcount_bits={refcount_bits}"
    make(image, f"{options},{extra}" if extra else options)
    guest = Guest(7, size, cluster_size, compresses="data_file" not in extra)
    for _ in range(2):
        with opened(image) as (disk, _node):
            guest.run(disk, 40)
        guest.check(image)
        qemu.img("check", "-q", str(image))
        (tmp_path / "shadow").write_bytes(guest.shadow)
        qemu.img("compare", "-q", "-f", "raw", "-F", "qcow2", "shadow", str(image))


@pytest.mark.parametrize("extra", ["", "extended_l2=on", "compression_type=zstd", "compat=0.10"])
def test_what_qemu_wrote_is_read_and_written_on(tmp_path: Path, qemu: Qemu, extra: str) -> None:
    image = tmp_path / "guest.qcow2"
    qemu.img("create", "-q", "-f", "qcow2", *(["-o", extra] if extra else []), str(image), "4M")
    commands = [
        "write -P 1 0 100k",
        "write -P 2 1000k 300",
        "write -c -P 3 2M 64k",
        "write -z 3M 64k",
    ]
    qemu.io(*(word for text in commands for word in ("-c", text)), str(image))
    with opened(image) as (disk, _node):
        assert disk.read(0, 102400) == b"\1" * 102400
        assert disk.read(1000 << 10, 512) == b"\2" * 300 + bytes(212)
        assert disk.read(2 << 20, 65536) == b"\3" * 65536
        disk.write((2 << 20) + 1000, b"\4" * 1000)
        disk.write(50000, b"\5" * 70000)
    qemu.img("check", "-q", str(image))
    reads = ["read -P 3 2M 1000", "read -P 4 2098152 1000", "read -P 5 50000 70000"]
    qemu.io("-r", *(word for text in reads for word in ("-c", text)), str(image))


_LAYOUTS = [
    "",
    "compat=0.10",
    "cluster_size=4096",
    "cluster_size=2M",
    "extended_l2=on",
    "refcount_bits=1",
    "refcount_bits=64,cluster_size=512",
    "lazy_refcounts=on",
    "compression_type=zstd",
    "preallocation=metadata",
    "preallocation=metadata,extended_l2=on",
    "preallocation=falloc",
    "preallocation=full",
    "preallocation=falloc,cluster_size=512",
    "backing_file=base,backing_fmt=raw",
]


@pytest.mark.parametrize("options", _LAYOUTS)
def test_a_new_image_is_qemu_s_byte_for_byte(tmp_path: Path, qemu: Qemu, options: str) -> None:
    (tmp_path / "base").write_bytes(bytes(1 << 20))
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    size = 5 * (1 << 20) + 512
    given = ["-o", options] if options else []
    qemu.img("create", "-q", "-f", "qcow2", *given, str(theirs), str(size))
    make(ours, f"size={size},{options}" if options else f"size={size}")
    assert ours.read_bytes().rstrip(b"\0") == theirs.read_bytes().rstrip(b"\0")
    assert ours.stat().st_size == theirs.stat().st_size


@pytest.mark.parametrize("options", ["", "extended_l2=on", "cluster_size=512", "compat=0.10"])
def test_writes_land_where_qemu_puts_them(tmp_path: Path, qemu: Qemu, options: str) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for image in (theirs, ours):
        given = ["-o", options] if options else []
        qemu.img("create", "-q", "-f", "qcow2", *given, str(image), "8M")
    requests = [(0, 65536, 1), (1 << 20, 100, 2), (3 << 20, 1 << 20, 3), (500, 70000, 4)]
    commands = [f"write -P {value} {at} {length}" for at, length, value in requests]
    qemu.io(*(word for text in commands for word in ("-c", text)), str(theirs))
    with opened(ours, Open.RDWR) as (disk, _node):
        for at, length, value in requests:
            disk.write(at, bytes([value]) * length)
    assert ours.read_bytes() == theirs.read_bytes()
