"""Check an image: count what refers to every cluster, compare, and perhaps repair.

Counting is done twice if it must be: first in bulk (`tally`), without a word; only if anything in
the tables is odd are they walked entry by entry (`references`), to tell of it in QEMU's words.
"""

from thinvirt.image.block.qcow2.check.whole import check

__all__ = ["check"]
