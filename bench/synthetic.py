"""Large qcow2 images made of metadata alone: the data they name is a hole, or reserved space.

What a check, a map or a measurement reads is all there, so that an image of terabytes takes
megabytes and is made in a second.
"""

import os
import random
from array import array
from dataclasses import dataclass
from pathlib import Path

from thinvirt.image.formats.qcow2.entries import COPIED
from thinvirt.image.formats.qcow2.geometry import divide_up
from thinvirt.image.formats.qcow2.header import Header
from thinvirt.image.formats.qcow2.refcounts import pack_table


@dataclass(frozen=True, slots=True)
class Layout:
    """What an image is to be like.

    Attributes:
        clusters: how many hold data; whole runs.
        run: clusters in a row, in the disk and in the file; the runs stand in random order in the
            file. As many as `clusters`: all in order, as after ``preallocation=metadata``.
        cluster_bits: size of a cluster.
        virtual_clusters: size of the disk; None for just what holds data. The runs are spread
            over it evenly.
        reserved: the file's space is reserved, so that it is not taken for sparse.
    """

    clusters: int
    run: int = 1
    cluster_bits: int = 16
    virtual_clusters: int | None = None
    reserved: bool = False


def make_image(path: Path, layout: Layout, seed: int = 1) -> None:
    """Write an image; `qemu-img check` finds it sound."""
    size = 1 << layout.cluster_bits
    virtual = layout.virtual_clusters or layout.clusters
    per_table = size // 8
    tables = divide_up(virtual, per_table)
    l1_clusters = divide_up(tables * 8, size)
    fixed = 1 + l1_clusters + tables + layout.clusters
    blocks, table_clusters = _refcount_clusters(fixed, size)
    total = fixed + blocks + table_clusters
    first_block = 1 + table_clusters
    l1_at = first_block + blocks
    l2_at = l1_at + l1_clusters
    entries = _entries(layout, virtual, (l2_at + tables) * size, random.Random(seed))
    entries.frombytes(bytes((tables * per_table - len(entries)) * 8))
    header = Header(
        cluster_bits=layout.cluster_bits,
        virtual_size=virtual * size,
        l1_entries=tables,
        l1_table_offset=l1_at * size,
        refcount_table_offset=size,
        refcount_table_clusters=table_clusters,
    )
    counts = array("H", [1]) * total
    counts.byteswap()
    with path.open("wb") as file:
        file.truncate(total * size)
        if layout.reserved:
            os.posix_fallocate(file.fileno(), 0, total * size)
        for place, data in (
            (0, header.pack()),
            (1, pack_table(_places(first_block, blocks, size, 0))),
            (first_block, counts.tobytes()),
            (l1_at, pack_table(_places(l2_at, tables, size, COPIED))),
            (l2_at, pack_table(entries)),
        ):
            file.seek(place * size)
            file.write(data)


def _refcount_clusters(fixed: int, size: int) -> tuple[int, int]:
    """Return how many refcount blocks (of 16 bits a count) and clusters of their table it takes."""
    blocks = table = 1
    while True:
        needed = divide_up(fixed + blocks + table, size // 2)
        if needed == blocks and divide_up(needed * 8, size) == table:
            return blocks, table
        blocks, table = needed, divide_up(needed * 8, size)


def _places(first: int, count: int, size: int, flag: int) -> "array[int]":
    return array("Q", range(first * size | flag, (first + count) * size | flag, size))


def _entries(layout: Layout, virtual: int, data_at: int, chance: random.Random) -> "array[int]":
    """Return the L2 entries of the whole disk."""
    size, run = 1 << layout.cluster_bits, layout.run
    runs = divide_up(layout.clusters, run)
    order = list(range(runs))
    chance.shuffle(order)
    gap = bytes(max(virtual // runs - run, 0) * 8)
    entries = array("Q")
    for number in order:
        start = data_at + number * run * size | COPIED
        entries.extend(array("Q", range(start, start + run * size, size)))
        entries.frombytes(gap)
    return entries[:virtual]
