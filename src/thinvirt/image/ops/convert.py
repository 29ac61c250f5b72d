"""Copy what images show into another image, leaving out what need not be written.

The source side (`convert_reading`) and the target side (`convert_writing`) are joined here. Where
the nodes allow it one thread reads ahead of the one that writes, and compressed clusters are packed
and unpacked in as many threads as there are processors.
"""

from __future__ import annotations

from thinvirt.image.block.abilities import ClusterPacker, Effort
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import SECTOR
from thinvirt.image.block.status import backing_chain_next
from thinvirt.image.ops.convert_reading import ConvertFailed, Kind, Piece, Reader
from thinvirt.image.ops.convert_writing import (
    CompressingWriter,
    HostCopier,
    Packing,
    PackingWriter,
    Places,
    UnorderedWriter,
    Writer,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.root import Root
    from thinvirt.image.block.workers import Workers
    from thinvirt.image.ops.convert_reading import Source

__all__ = ["MAX_BUFFER", "MINIMUM_HOLE", "PARALLEL", "Conversion", "ConvertFailed"]

BUFFER = 2 << 20  # bytes copied at a time; a target may ask for more
MAX_BUFFER = 16 << 20
MINIMUM_HOLE = 4096
PARALLEL = 8  # requests at a time, unless somebody says otherwise

_PACKED_AT_ONCE = 1 << 20  # bytes of clusters that one thread packs together
_HOST_COPY = 64 << 20  # bytes the host copies at a time: sharing blocks costs by the call
_READ_AHEAD = 3  # buffers
# Drivers whose nodes share nothing with other nodes: source and target may be used at one time.
_SEPARATE = frozenset({"file", "host_device", "raw", "qcow2", "luks"})


class Conversion:
    """A copy from one or more images, one after the other, into one.

    Args:
        sources: images opened for reading.
        target: opened for writing, at least as large as all of them together.
        is_new: the target was made for this, nobody has written to it.
        reads_zero: the target is known to read as zeroes all over.
        has_backing: the target has a backing file, which shows what the first image's shows: only
            what the image itself has is copied.
        minimum_hole: bytes of zeroes in a row that are left out; 0 writes everything.
        compressed: store compressed.
        effort: how hard to try to make it small; of `abilities.Effort`.
        copy_range: let the host copy within its file systems, sharing blocks where it can.
        salvage: read around errors; told each in `warn`.
        warn: told what could not be read.
        watch: told bytes copied and bytes to copy; may raise to cancel.
        count_first: ask for the status of everything beforehand, so that `watch` knows the total.
        pace: told each number of bytes written; may wait.
        parallel: requests at a time; 1 does everything in the calling thread.
        out_of_order: pieces may be written in any order, where the target allocates nothing.
    """

    def __init__(
        self,
        sources: Sequence[Root],
        target: Root,
        *,
        is_new: bool,
        reads_zero: bool = False,
        has_backing: bool = False,
        minimum_hole: int = MINIMUM_HOLE,
        compressed: bool = False,
        effort: str = Effort.FAST,
        copy_range: bool = False,
        salvage: bool = False,
        warn: Callable[[str], None] | None = None,
        watch: Callable[[int, int], None] | None = None,
        count_first: bool = False,
        pace: Callable[[int], None] | None = None,
        parallel: int = PARALLEL,
        out_of_order: bool = False,
    ) -> None:
        self.target = target
        self.minimum_hole = minimum_hole
        self.compressed = compressed
        self.effort = effort
        self.copy_range = copy_range
        self.watch = watch
        self.count_first = count_first
        self.pace = pace
        self.out_of_order = out_of_order
        node = target.node
        self.reads_zero = reads_zero or (
            is_new and bool(minimum_hole) and not has_backing and node.has_zero_init()
        )
        self._graphs = [*sources, target]
        self.threads = 1 if salvage else self._usable_threads(parallel)
        buffer_size = min(MAX_BUFFER, max(BUFFER, node.opt_transfer, node.discard_alignment))
        cluster = node.cluster_size // SECTOR * SECTOR
        if compressed:
            if not SECTOR <= cluster <= buffer_size:
                raise BlockError("invalid cluster size")
            # One cluster at a time where an error must come with the request QEMU would make.
            several = max(_PACKED_AT_ONCE // cluster, 1) if self.threads > 1 else 1
            buffer_size = cluster * several
        self.reader = Reader(
            sources,
            has_backing=has_backing,
            backing_size=_backing_size(node) if has_backing and is_new else None,
            writes_zeroes=not minimum_hole,
            unit=cluster if compressed else 0,
            limit=buffer_size,
            merges=self.threads > 1,
            salvage=salvage,
            warn=warn,
        )

    @property
    def sources(self) -> list[Source]:
        """The images that are read, and their places."""
        return self.reader.sources

    def _usable_threads(self, parallel: int) -> int:
        """Return how many threads may work on these graphs."""
        if parallel <= 1 or not all(_is_separate(root.node) for root in self._graphs):
            return 1
        from thinvirt.image.block.workers import processors

        return min(parallel, processors())

    def run(self) -> None:
        """Copy.

        Raises:
            ConvertFailed: an image could not be read or written.
        """
        total = self._count() if self.count_first else 0
        if self.threads <= 1 or self.reader.size <= self.reader.limit:
            self._copy(total, None)
            return
        from thinvirt.image.block.workers import Workers

        with Workers(self.threads) as workers:
            for root in self._graphs:
                root.graph.workers = workers
            try:
                self._copy(total, workers)
            finally:
                for root in self._graphs:
                    root.graph.workers = None

    def _count(self) -> int:
        """Return how many bytes will be copied."""
        return sum(piece.length for piece in self.reader.steps() if self.reader.copies(piece))

    def _copy(self, total: int, workers: Workers | None) -> None:
        writer = self._writer(workers)
        if self.copy_range:
            self._copy_by_host(total, writer)
        elif workers is None or isinstance(writer, PackingWriter):
            self._write_all(self.reader.pieces(), total, writer)
        else:
            from thinvirt.image.block.workers import read_ahead
            from thinvirt.image.ops.convert_ahead import load_ahead

            scan = writer.places.scan if self.minimum_hole and not self.compressed else None
            ahead = read_ahead(load_ahead(self.reader, workers, scan), _READ_AHEAD)
            try:
                self._write_all(ahead, total, writer)
            finally:
                ahead.close()
        writer.finish()

    def _write_all(self, pieces: Iterator[Piece], total: int, writer: Writer) -> None:
        done = 0
        try:
            for piece in pieces:
                done = self._report(piece, done, total)
                writer.put(piece)
        except ConvertFailed as error:
            if not error.action.startswith("writing"):
                writer.finish()  # what came before
            raise

    def _copy_by_host(self, total: int, writer: Writer) -> None:
        """Copy with the host's help as long as it helps."""
        reader = self.reader
        copier = HostCopier(self.target, reader)
        limit, reader.limit = reader.limit, _HOST_COPY
        done = 0
        for piece in reader.steps():
            done = self._report(piece, done, total)
            if piece.kind != Kind.DATA:
                writer.put(piece)
            elif not copier.copied(piece):
                reader.limit = limit
                end = piece.at + piece.length
                for at in range(piece.at, end, limit):
                    for part in reader.load(Piece(piece.kind, at, min(limit, end - at))):
                        writer.put(part)

    def _report(self, piece: Piece, done: int, total: int) -> int:
        if not self.reader.copies(piece):
            return done
        if self.watch is not None and total:
            for step in piece.steps:
                done += step
                self.watch(done, total)
            return done
        return done + piece.length

    def _writer(self, workers: Workers | None) -> Writer:
        node = self.target.node
        places = Places(
            minimum_hole=self.minimum_hole,
            alignment=max(
                _power_below(self.minimum_hole // SECTOR) * SECTOR,
                -(-node.request_alignment // SECTOR) * SECTOR,
            ),
            reads_zero=self.reads_zero,
            joins=self.threads > 1 and node.driver == "raw",
        )
        if self.compressed and isinstance(node, ClusterPacker):
            packer = Packing(node, self.effort, workers)
            return PackingWriter(self.target, self.reader, places, self.pace, packer)
        if self.compressed:
            return CompressingWriter(self.target, self.reader, places, self.pace)
        if self.out_of_order and workers is not None and node.driver == "raw" and not self.pace:
            return UnorderedWriter(self.target, self.reader, places, workers)
        return Writer(self.target, self.reader, places, self.pace)


def _is_separate(node: BlockNode) -> bool:
    """Whether a graph shares no state with any other."""
    return node.driver in _SEPARATE and all(
        _is_separate(child.node) for child in node.children.values()
    )


def _backing_size(node: BlockNode) -> int | None:
    backing = backing_chain_next(node)
    return backing.size if backing is not None else None


def _power_below(number: int) -> int:
    """Return the largest power of two that is not above `number`, 1 for 0."""
    return 1 << max(number.bit_length() - 1, 0)
