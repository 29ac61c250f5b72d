"""The work that an image may make is bounded by what its file holds."""

import errno
import struct
from pathlib import Path

import pytest
from tests.qcow2_images import make, opened

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.walk import node_runs
from thinvirt.image.formats.qcow2.entries import COPIED, OFFSET_MASK
from thinvirt.image.formats.qcow2.layout import FIELD_OFFSET

_UNIT = 65536


def _one_table_named_always(path: Path, entry: int) -> None:
    """Make a file of a megabyte whose L1 table names the one L2 table in each of its entries."""
    make(path, "size=4G,cluster_size=64k")
    with opened(path) as (disk, node):
        disk.write(0, b"x" * _UNIT)
        place = node.l1[0] & OFFSET_MASK
    count = ((1 << 20) - 8 * _UNIT) // 8
    with path.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack(">Q", entry) * (_UNIT // 8))
        file.truncate(1 << 20)
        file.seek(8 * _UNIT)
        file.write(struct.pack(">Q", place | COPIED) * count)
        for field, layout, value in (
            ("virtual_size", ">Q", count * _UNIT * _UNIT // 8),
            ("l1_entries", ">I", count),
            ("l1_table_offset", ">Q", 8 * _UNIT),
        ):
            file.seek(FIELD_OFFSET[field])
            file.write(struct.pack(layout, value))


@pytest.mark.parametrize("entry", [0, COPIED | 5 * _UNIT, COPIED | 512, 1 << 62 | 4 * _UNIT])
def test_a_check_gives_up(tmp_path: Path, entry: int) -> None:
    path = tmp_path / "image"
    _one_table_named_always(path, entry)
    told: list[str] = []
    with opened(path, Open.CHECK) as (_, node), pytest.raises(BlockError) as caught:
        node.check_image(0, told.append)
    assert caught.value.errno == errno.EFBIG
    assert "so often" in told[-1]
    assert len(told) < 1 << 20


def test_a_walk_gives_up(tmp_path: Path) -> None:
    path = tmp_path / "image"
    _one_table_named_always(path, 0)
    with opened(path, 0) as (_, node), pytest.raises(BlockError, match="and again") as caught:
        list(node_runs(node, 0, node.size))
    assert caught.value.errno == errno.EFBIG


def test_many_snapshots_of_one_disk_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "image"
    make(path, "size=64M,cluster_size=4k")
    with opened(path) as (disk, node):
        disk.write(0, b"x" * (4 << 20))
        for number in range(100):
            node.create_snapshot(f"{number}", date_ns=number)
    told: list[str] = []
    with opened(path, Open.CHECK) as (_, node):
        result = node.check_image(0, told.append)
    assert (told, result.corruptions, result.leaks) == ([], 0, 0)
    assert result.allocated_clusters == 1024
