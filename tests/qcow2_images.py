"""qcow2 images for tests: made by our engine, opened by it, and random guests at work on them."""

import errno
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.file_create import CREATE_OPTIONS as FILE_OPTIONS
from thinvirt.image.block.flags import Open, WriteFlags
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.qcow2 import Qcow2Node
from thinvirt.image.block.qcow2.create import create
from thinvirt.image.block.qcow2.creation_options import CREATE_OPTIONS
from thinvirt.image.block.root import Root


def make(path: Path, options: str) -> None:
    """Make an image with ``-o`` options, size included."""
    create(BlockGraph(), str(path), CREATE_OPTIONS.joined(FILE_OPTIONS).parse(options))


@contextmanager
def opened(path: Path, flags: int = Open.RDWR | Open.UNMAP) -> Iterator[tuple[Root, Qcow2Node]]:
    """Open an image."""
    with BlockGraph().open_root(str(path), {"driver": "qcow2"}, flags) as root:
        assert isinstance(root.node, Qcow2Node)
        yield root, root.node


class Guest:
    """Random requests to a disk, and a plain bytearray that remembers what it must read as."""

    def __init__(self, seed: int, size: int, cluster_size: int, *, compresses: bool = True) -> None:
        self.random = random.Random(seed)
        self.unit = cluster_size
        self.shadow = bytearray(size)
        self.operations = ["write"] * 4 + ["zero", "discard", "read"]
        self.operations += ["compress"] if compresses else []

    def run(self, disk: Root, steps: int) -> None:
        """Do some requests."""
        for _ in range(steps):
            self._step(disk, self.random.choice(self.operations))

    def _step(self, disk: Root, operation: str) -> None:
        size, unit = len(self.shadow), self.unit
        offset = self.random.randrange(size)
        length = self.random.choice([512, 4096, unit, 3 * unit, unit // 2 + 37])
        if self.random.random() < 0.5:
            offset = offset // 512 * 512
        if operation in {"compress", "discard"}:
            offset = offset // unit * unit
            length = unit if operation == "compress" else 2 * unit
        length = min(length, size - offset)
        match operation:
            case "write":
                self._store(disk, offset, self.random.randbytes(length))
            case "zero":
                disk.write_zeroes(offset, length, self.random.choice([0, WriteFlags.MAY_UNMAP]))
                self.shadow[offset : offset + length] = bytes(length)
            case "discard":
                disk.discard(offset, length)
                # What it reads as is open, as long as it stays so.
                self.shadow[offset : offset + length] = disk.read(offset, length)
            case "compress":
                self._compress(disk, offset, length)
            case _:
                assert disk.read(offset, length) == self.shadow[offset : offset + length]

    def _store(self, disk: Root, offset: int, data: bytes) -> None:
        disk.write(offset, data)
        self.shadow[offset : offset + len(data)] = data

    def _compress(self, disk: Root, offset: int, length: int) -> None:
        data = (b"%d " % self.random.randrange(1000) * length)[:length]
        try:
            disk.write_compressed(offset, data)
        except BlockError as error:
            if error.errno != errno.EIO:  # the cluster holds something already
                raise
        else:
            self.shadow[offset : offset + length] = data

    def check(self, path: Path) -> None:
        """The image holds what was written."""
        with opened(path, 0) as (disk, _):
            assert disk.size == len(self.shadow)
            assert disk.read(0, disk.size) == self.shadow
