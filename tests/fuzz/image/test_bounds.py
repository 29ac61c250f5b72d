"""Small files that claim much: two seconds of processor time and 256 MiB do for any megabyte."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fuzz.image.ordeal import BOUNDED
from tests.qcow2_images import make, opened

MIB = 1 << 20
COPIED = 1 << 63
_ROOT = Path(__file__).parents[3]


def put(raw: bytearray, at: int, code: str, *values: int) -> None:
    data = struct.pack(">" + code, *values)
    if len(raw) < at + len(data):
        raw.extend(bytes(at + len(data) - len(raw)))
    raw[at : at + len(data)] = data


def base(path: Path, cluster: int, extra: str = "") -> bytearray:
    make(path, f"size=1M,cluster_size={cluster}{extra}")
    return bytearray(path.read_bytes())


def set_l1(raw: bytearray, at: int, entries: int, size: int) -> None:
    put(raw, 24, "Q", size)
    put(raw, 36, "IQ", entries, at)


def long_l1(path: Path) -> None:
    """The largest L1 table, in the file's first megabyte or past its end: all of it empty."""
    raw = base(path, 512)
    set_l1(raw, MIB, 4 * MIB, 4 * MIB * 64 * 512)
    path.write_bytes(raw)


def one_l2_for_all(path: Path, cluster: int = 512) -> None:
    """Every L1 entry names the same L2 table, whose entries alternate."""
    raw = base(path, cluster)
    l2 = -(-len(raw) // cluster) * cluster
    l1 = l2 + cluster
    count = (MIB - l1) // 8
    put(raw, l2, f"{cluster // 8}Q", *([1, 0] * (cluster // 16)))
    put(raw, l1, f"{count}Q", *([l2 | COPIED] * count))
    set_l1(raw, l1, count, count * (cluster // 8) * cluster)
    path.write_bytes(raw)


def one_l2_for_all_64k(path: Path) -> None:
    one_l2_for_all(path, 65536)


def all_tables(path: Path) -> None:
    """As many L2 tables as there is room for, each entry a run of its own."""
    raw = base(path, 512)
    l1 = -(-len(raw) // 512) * 512
    tables = (MIB - l1 - 16384) // 512
    first = l1 + 16384
    put(raw, l1, f"{tables}Q", *(first + 512 * n | COPIED for n in range(tables)))
    for n in range(tables):
        entries = [(512 * ((n * 64 + m) % 2000 + 8) | COPIED) if m % 2 else 1 for m in range(64)]
        put(raw, first + 512 * n, "64Q", *entries)
    set_l1(raw, l1, tables, tables * 64 * 512)
    path.write_bytes(raw)


def many_snapshots(path: Path, names: int = 1) -> None:
    """Snapshots that share one L1 table, each of whose entries names one L2 table."""
    raw = base(path, 512)
    l2 = -(-len(raw) // 512) * 512
    l1 = l2 + 512
    put(raw, l2, "64Q", *([1, 0] * 32))
    put(raw, l1, "4096Q", *([l2] * 4096))
    at = l1 + 4096 * 8
    put(raw, 60, "IQ", 15000, at)
    for number in range(15000):
        entry = struct.pack(">QIHHIIQII", l1, 4096, names, names, 0, 0, 0, 0, 16)
        entry += struct.pack(">QQ", 0, MIB) + b"%d" % (number % 10) + b"n"
        raw[at : at + len(entry)] = entry
        at += len(entry) + -len(entry) % 8
    path.write_bytes(raw)


def huge_bitmaps(path: Path) -> None:
    """Bitmaps of half a gigabyte each, all of whose tables are the same empty one."""
    make(path, "size=2T,cluster_size=65536")
    with opened(path) as (_, node):
        node.add_bitmap("b", 65536)
    raw = bytearray(path.read_bytes())
    at = raw.index(struct.pack(">I", 0x23852875)) + 8
    directory = 7 * 65536
    table = directory + 3 * 65536
    count = 3000
    entry = struct.pack(">QIIBBHI", table, 8192, 2, 1, 9, 4, 0)
    data = b"".join(entry + b"%04d" % n + bytes(4) for n in range(count))
    put(raw, table + 65536, "Q", 0)
    raw[directory : directory + len(data)] = data
    put(raw, at, "IIQQ", count, 0, len(data), directory)
    put(raw, 88, "Q", 1)
    path.write_bytes(raw)


def bombs(path: Path) -> None:
    """Every compressed cluster is the same two megabytes of zeroes."""
    raw = base(path, 2 * MIB)
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    packed = packer.compress(bytes(2 * MIB)) + packer.flush()
    l2 = 4 * 2 * MIB
    put(raw, l2, "Q", 0)
    sectors = -(-len(packed) // 512)
    entry = 1 << 62 | sectors << 49 | 1024
    raw[1024 : 1024 + len(packed)] = packed
    put(raw, l2, "1000Q", *([entry] * 1000))
    l1 = int.from_bytes(raw[40:48], "big")
    put(raw, l1, "Q", l2 | COPIED)
    put(raw, 24, "Q", 1000 * 2 * MIB)
    path.write_bytes(raw)


def far_refcounts(path: Path) -> None:
    """A refcount table of eight megabytes, past the end, and blocks far away."""
    raw = base(path, 512)
    put(raw, 48, "QI", MIB, 8 * MIB // 512)
    put(raw, MIB, "Q", 1 << 40)
    path.write_bytes(raw)


def far_clusters(path: Path) -> None:
    """Clusters and tables at the end of the address space."""
    raw = base(path, 512)
    l1 = int.from_bytes(raw[40:48], "big")
    l2 = -(-len(raw) // 512) * 512
    put(raw, l1, "3Q", l2 | COPIED, 1 << 54 | COPIED, 1 << 48)
    put(raw, l2, "64Q", *((1 << 55) - 512 * n | COPIED for n in range(64)))
    path.write_bytes(raw)


def wide_extended(path: Path) -> None:
    """Extended entries with a subcluster pattern that makes each a run of its own."""
    raw = base(path, 16384, ",extended_l2=on")
    first = -(-len(raw) // 16384) * 16384
    tables = (MIB - first) // 16384
    l1 = int.from_bytes(raw[40:48], "big")
    put(raw, l1, f"{tables}Q", *(first + 16384 * n | COPIED for n in range(tables)))
    for n in range(tables):
        put(raw, first + 16384 * n, "2048Q", *([first | COPIED, 0x5555_5555_AAAA_AAAA] * 1024))
    set_l1(raw, l1, tables, tables * 1024 * 16384)
    path.write_bytes(raw)


def misplaced_zeroes(path: Path) -> None:
    """Every entry is one that a repair has to write anew: its host cluster begins nowhere."""
    raw = base(path, 4096)
    l1 = -(-len(raw) // 4096) * 4096
    tables = (MIB - l1 - 4096) // (4096 + 8)
    first = -(-(l1 + tables * 8) // 4096) * 4096
    put(raw, l1, f"{tables}Q", *(first + 4096 * n | COPIED for n in range(tables)))
    for n in range(tables):
        put(raw, first + 4096 * n, "512Q", *([first + 512 | 1] * 512))
    set_l1(raw, l1, tables, tables * 512 * 4096)
    path.write_bytes(raw)


def wrong_marks(path: Path) -> None:
    """Thousands of L1 entries claim the same L2 table for themselves."""
    raw = base(path, 512)
    l2 = -(-len(raw) // 512) * 512
    put(raw, l2, "64Q", *([0] * 64))
    put(raw, l2 + 512, "30000Q", *([l2 | COPIED] * 30000))
    set_l1(raw, l2 + 512, 30000, 30000 * 64 * 512)
    path.write_bytes(raw)


SHAPES: tuple[Callable[[Path], None], ...] = (
    long_l1, one_l2_for_all, one_l2_for_all_64k, all_tables, many_snapshots, huge_bitmaps, bombs,
    far_refcounts, far_clusters, wide_extended, misplaced_zeroes, wrong_marks,
)  # fmt: skip


# A check goes through a shared table once for each entry that names it, up to a limit in entries
# (see tests/unit/image/qcow2/test_check_bounds.py) that is near two seconds; extended tables of a
# megabyte hold two million runs, and to print them, 222 MB, takes most of three seconds.
_LEFT_OUT = {
    "one_l2_for_all": ("check", "repair"),
    "one_l2_for_all_64k": ("check", "repair"),
    "wide_extended": ("map",),
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_time_and_memory_are_bounded(tmp_path: Path, shape: Callable[[Path], None]) -> None:
    path = tmp_path / "disk"
    shape(path)
    trials = [name for name in BOUNDED if name not in _LEFT_OUT.get(shape.__name__, ())]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.image.ordeal"],
        input="\t".join([str(path), *trials]) + "\n",
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    wrong = json.loads(done.stdout)["wrong"]
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())
