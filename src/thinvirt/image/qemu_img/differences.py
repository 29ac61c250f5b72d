"""Where ``thin-img`` answers otherwise than qemu-img 7.2 on purpose, and why that is better.

The reference is made from this, and the tests that run both side by side refer to these names.
"""

from __future__ import annotations

DIFFERENCES = {
    "compression": (
        "`convert -c` with zlib",
        "packs with isal where that is installed: many times quicker, and 5 to 9 % larger. The "
        "environment variable `THIN_IMG_COMPRESSION` says otherwise: `small` (no larger than "
        "qemu-img's, still quicker with zlib-ng), `qemu` (the bytes qemu-img writes), `fast`.",
    ),
    "threads": (
        "`convert -m` and `-W`",
        "count threads, of which there are never more than processors, and have effect where data "
        "is packed, unpacked or written to raw images; what is written does not depend on `-m`.",
    ),
    "loop": (
        "An image below itself",
        "is refused by name; qemu-img opens it again and again until a lock is in its way or "
        "memory is used up.",
    ),
    "grown": (
        "Space added to a qcow2 image that was shrunk within a cluster",
        "shows zeroes; in qemu-img what had been cut off shows again.",
    ),
    "fifo": (
        "A FIFO or socket as image",
        "is refused; qemu-img waits for somebody to open the other end.",
    ),
    "output": (
        "Standard output that cannot be written (a full disk)",
        "is an error with status 1; qemu-img succeeds in silence, and what it said is lost.",
    ),
    "abort": (
        "Values at which qemu-img aborts (a size of `null-co` that is no size)",
        "are refused with the message for such values.",
    ),
    "progress": (
        "The percentages of `-p`",
        "are not shown again when they have not changed, and copies may be counted finer.",
    ),
    "warning": (
        "The warning about a format that was guessed",
        "is given once for an image; qemu-img repeats it where it opens the image again.",
    ),
    "help": (
        "The help",
        "is made from our own tables; the options and commands are the same.",
    ),
    "trace": (
        "`--trace`",
        "is accepted without looking whether there are such events: there is nothing to trace.",
    ),
    "base64": (
        "A secret in base64 that is cut short",
        "is refused; qemu-img takes what can be decoded, and the key is a wrong one.",
    ),
    "iter-time": (
        "`iter-time=0`",
        "is refused; in QEMU it divides by zero, and what comes of that depends on the compiler.",
    ),
    "same-file": (
        "An image that is to be its own data file",
        "is refused with the reason alone; qemu-img adds that it could not remove it twice.",
    ),
    "cpu-clock": (
        "The time of `iter-time`",
        "is measured with the thread's clock in nanoseconds; qemu-img's is too coarse for short "
        "times, and then it fails with “Unable to get accurate CPU usage”.",
    ),
}
