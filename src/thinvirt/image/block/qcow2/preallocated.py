"""Tell images whose metadata was preallocated: what counts as used takes no space on the host."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.qcow2.core import Image


def has_metadata_preallocation(image: Image) -> bool:
    """Return whether the refcounts claim clearly more clusters than the host has stored.

    Raises:
        BlockError: refcounts cannot be read.
    """
    length = image.file.size
    real = image.file.allocated_size() // image.cluster_size
    threshold = max(real * 10 // 9, real + 2)
    end = -(-length // image.cluster_size)
    if end < threshold:
        return False
    used = 0
    for first in range(0, end, image.refcounts_per_block):
        count = min(image.refcounts_per_block, end - first)
        used += count - image.refcounts.count_unused(first, count)
        if used >= threshold:
            return True
    return False
