"""From cluster size and virtual size to the sizes of the tables (qcow2 spec, "Cluster mapping")."""

from dataclasses import dataclass

from thinvirt.errors import UsageError
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.layout import align_up, divide_up

__all__ = ["Geometry", "align_up", "divide_up"]

PLAIN_L2_ENTRY, EXTENDED_L2_ENTRY = 8, 16  # bytes
L1_ENTRY = REFCOUNT_TABLE_ENTRY = 8  # bytes
SUBCLUSTERS = 32  # per cluster of an image with extended L2 entries


@dataclass(frozen=True, slots=True)
class Geometry:
    """What follows from the few numbers that shape an image. All sizes are bytes."""

    cluster_bits: int
    extended_l2: bool = False
    refcount_order: int = 4

    @classmethod
    def of(cls, cluster_size: int, *, extended_l2: bool = False) -> "Geometry":
        """Return the geometry for a cluster size that a person or a program asks for.

        Raises:
            UsageError: `cluster_size` is not a power of two in range, or too small for subclusters.
        """
        bits = cluster_size.bit_length() - 1
        smallest, largest = 1 << limits.MIN_CLUSTER_BITS, 1 << limits.MAX_CLUSTER_BITS
        if not smallest <= cluster_size <= largest or cluster_size != 1 << bits:
            raise UsageError(
                f"cluster size {cluster_size} is not a power of two from {smallest} to {largest}"
            )
        if extended_l2 and cluster_size < limits.MIN_EXTENDED_CLUSTER_SIZE:
            raise UsageError(
                f"extended L2 entries need clusters of at least {limits.MIN_EXTENDED_CLUSTER_SIZE} "
                f"bytes, not {cluster_size}",
                hint="take larger clusters, or plain L2 entries",
            )
        return cls(bits, extended_l2)

    @property
    def cluster_size(self) -> int:
        """The unit of allocation."""
        return 1 << self.cluster_bits

    @property
    def l2_entry_size(self) -> int:
        """16 with subclusters, else 8."""
        return EXTENDED_L2_ENTRY if self.extended_l2 else PLAIN_L2_ENTRY

    @property
    def l2_entries(self) -> int:
        """How many clusters one L2 table maps; the table itself is one cluster."""
        return self.cluster_size // self.l2_entry_size

    @property
    def bytes_per_l2(self) -> int:
        """How much of the guest's disk one L1 entry stands for."""
        return self.cluster_size * self.l2_entries

    @property
    def refcounts_per_block(self) -> int:
        """How many clusters one refcount block counts; the block itself is one cluster."""
        return self.cluster_size * 8 >> self.refcount_order

    def l1_entries(self, virtual_size: int) -> int:
        """Return how many L1 entries a disk of `virtual_size` bytes needs."""
        return divide_up(virtual_size, self.bytes_per_l2)

    def clusters(self, size: int) -> int:
        """Return how many clusters `size` bytes take."""
        return divide_up(size, self.cluster_size)
