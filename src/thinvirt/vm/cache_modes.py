"""Cache modes of disks: what each means for QEMU, and for data when the power fails."""

from thinvirt.vm.spec.words import Cache


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
