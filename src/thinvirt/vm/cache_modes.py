"""Cache modes of disks: what each means for QEMU, and for data when the power fails."""

from typing import Final

from thinvirt.vm.spec.words import Cache

# What each mode is, and what a power cut of the host takes. A guest that only crashes, or is
# killed with its QEMU, loses nothing that it had written, in any mode.
EXPLAINED: Final[dict[str, str]] = {
    "writeback": (
        "the host caches, the guest flushes; a power cut takes what was not flushed, as with any "
        "disk (QEMU's default)"
    ),
    "none": (
        "past the host's cache (O_DIRECT), the guest flushes; a power cut takes what was not "
        "flushed: the disk has a cache too"
    ),
    "writethrough": (
        "the host caches reads, every write is on the disk before it is answered; a power cut "
        "takes nothing, and writes are slow"
    ),
    "directsync": (
        "past the host's cache (O_DIRECT), every write is on the disk before it is answered; a "
        "power cut takes nothing, and writes are slow"
    ),
    "unsafe": (
        "the host caches, the guest's flushes are ignored; a power cut may take the whole file "
        "system: for what can be made again"
    ),
}


def cache_flags(cache: Cache | None) -> tuple[bool, bool, bool]:
    """Return what a cache mode means: (write cache seen by the guest, O_DIRECT, flushes ignored).

    The table stands in QEMU's manual under ``-drive cache=``.
    """
    return {
        "writeback": (True, False, False),
        "none": (True, True, False),
        "writethrough": (False, False, False),
        "directsync": (False, True, False),
        "unsafe": (True, False, True),
    }[cache or "writeback"]
