"""Clusters that are free in memory, while tables on disk may still refer to them.

An L2 entry is changed in the cache first. If its old cluster were given out again at once, a crash
would leave the old table in force over somebody else's data. If the file below were told to forget
the cluster, the old table would name a hole: harmless for a plain cluster that a guest discards,
but a compressed one cannot be read any more, and an overlay that was emptied would hide with zeroes
what was just committed below it. So they wait until the L2 tables are durable. QEMU does not wait.
"""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.qcow2.core import Image

_MOST = 64 << 20  # bytes held before a flush is worth its time


class HeldClusters:
    """The clusters that L2 tables let go of since they were last durable."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._told: dict[int, bool] = {}  # cluster → the file below is to forget it
        self._guest_data: set[int] = set()  # offsets of clusters of an external data file

    def __contains__(self, cluster: int) -> bool:
        return cluster in self._told

    @property
    def is_full(self) -> bool:
        """Whether so much is held that tables should be flushed."""
        held = len(self._told) + len(self._guest_data)
        return held > max(_MOST >> self._image.cluster_bits, 64)

    def add(self, cluster: int, *, tells: bool) -> None:
        """Hold a cluster; `tells` says that the file below may forget it afterwards."""
        self._told[cluster] = tells

    def add_guest_data(self, offset: int) -> None:
        """Let the data file forget a cluster afterwards."""
        self._guest_data.add(offset)

    def keep_guest_data(self, offset: int, count: int) -> None:
        """Some clusters of the data file are used again, at the only place they can be."""
        if self._guest_data:
            size = self._image.cluster_size
            self._guest_data.difference_update(range(offset, offset + count * size, size))

    def give_back(self, cluster: int, count: int) -> None:
        """So many clusters from this one on are not free after all."""
        if self._told:
            for number in range(cluster, cluster + count):
                self._told.pop(number, None)

    def count_before(self, cluster: int, count: int) -> int:
        """Return how many of `count` clusters lie before the first that is held."""
        if not self._told:
            return count
        if count < len(self._told):
            held = [at for at in range(cluster, cluster + count) if at in self._told]
        else:
            held = [at for at in self._told if cluster <= at < cluster + count]
        return min(held, default=cluster + count) - cluster

    def release(self) -> int | None:
        """Hold nothing any more; return the first cluster that was held, if there was any."""
        told, self._told = self._told, {}
        guest_data, self._guest_data = self._guest_data, set()
        image = self._image
        if image.is_dead:  # damage was met: these may be somebody else's
            return None
        bits, size = image.cluster_bits, image.cluster_size
        tell_discard(image.file, [(at << bits, size) for at, tells in told.items() if tells])
        if guest_data:
            tell_discard(image.data_file, [(offset, size) for offset in guest_data])
        return min(told, default=None)


def tell_discard(node: BlockNode, regions: Iterable[tuple[int, int]]) -> None:
    """Let a node forget (offset, length) regions, or not: it is space not given back, no more."""
    merged: list[list[int]] = []
    for offset, length in sorted(regions):
        if merged and merged[-1][1] == offset:
            merged[-1][1] += length
        else:
            merged.append([offset, offset + length])
    for start, end in merged:
        try:
            node.discard(start, end - start)
        except BlockError:
            continue
