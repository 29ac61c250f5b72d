"""The small words of the block graph: flags, roles and permissions.

Plain integers on purpose: `enum` takes longer to import than some of qemu-img's commands take to
run, and its flags are an order of magnitude slower where one is made for every run of clusters.
"""

from __future__ import annotations

TYPE_CHECKING = False  # mypy takes this name for true; importing it would import all of typing
if TYPE_CHECKING:
    from typing import Final

SECTOR = 512  # sizes of nodes are whole sectors, whatever the file below them has
MAX_LENGTH = (1 << 63) - (1 << 30)  # room to round any request up without passing 63 bits
MAX_ALIGNMENT = 1 << 30


class Open:
    """How a graph is opened. What an option can say too (read-only, cache) is kept as an option."""

    RDWR: Final = 1 << 0
    RESIZE: Final = 1 << 1  # the caller wants to change the size
    NO_BACKING: Final = 1 << 2  # do not open the backing file
    NO_IO: Final = 1 << 3  # nothing is read: no key is needed, no permission taken
    NO_SHARE: Final = 1 << 4  # nobody else may write or resize meanwhile
    NOCACHE: Final = 1 << 5  # O_DIRECT
    NO_FLUSH: Final = 1 << 6  # cache=unsafe
    UNMAP: Final = 1 << 7  # discards reach the host
    AUTO_RDONLY: Final = 1 << 8  # fall back to reading where writing is not allowed
    CHECK: Final = 1 << 9  # opened to be checked: a dirty image is not repaired first
    COPY_ON_READ: Final = 1 << 10
    PROTOCOL: Final = 1 << 11  # this node talks to a host: never probed
    ALLOW_RDWR: Final = 1 << 12  # writing was asked for once, even where reading is all there is
    NATIVE_AIO: Final = 1 << 13
    IO_URING: Final = 1 << 14

    CACHE: Final = NOCACHE | NO_FLUSH


class WriteFlags:
    """What a write may or must do besides storing bytes."""

    NONE: Final = 0
    MAY_UNMAP: Final = 1 << 0  # zeroes may be holes
    NO_FALLBACK: Final = 1 << 1  # fail rather than write zeroes one by one
    FUA: Final = 1 << 2  # durable when the call returns
    UNCHANGED: Final = 1 << 3  # copy-on-read: what a reader sees does not change
    COMPRESSED: Final = 1 << 4
    ZERO: Final = 1 << 5  # truncate only: what is added reads as zeroes, backing file or not


class Status:
    """What is known of a range of bytes."""

    DATA: Final = 1 << 0  # its content lies in this node's host range
    ZERO: Final = 1 << 1  # reads as zeroes
    OFFSET_VALID: Final = 1 << 2  # `host_offset` and `node` say where
    ALLOCATED: Final = 1 << 3  # this layer decides, not its backing file
    EOF: Final = 1 << 4  # the range ends where the node ends
    COMPRESSED: Final = 1 << 5
    # From a driver to the node only, never seen outside:
    RAW: Final = 1 << 6  # ask `node` at `host_offset` instead
    RECURSE: Final = 1 << 7  # `node` may know of zeroes in there


class Role:
    """What a child is to its parent."""

    DATA: Final = 1 << 0  # guest data lies in it
    METADATA: Final = 1 << 1  # the format's own structures lie in it
    FILTERED: Final = 1 << 2  # the parent shows this child, byte for byte
    COW: Final = 1 << 3  # a backing file
    PRIMARY: Final = 1 << 4  # "the" file of the parent
    IMAGE: Final = DATA | METADATA | PRIMARY


class Permission:
    """What a user of a node does with it, or lets others do.

    The order is part of QEMU's locking protocol: permission n is byte 100 + n (taken) and 200 + n
    (not shared) of the file.
    """

    CONSISTENT_READ: Final = 1 << 0
    WRITE: Final = 1 << 1
    WRITE_UNCHANGED: Final = 1 << 2
    RESIZE: Final = 1 << 3

    ALL: Final = 0x0F
    NAMES: Final = ("consistent read", "write", "write unchanged", "resize")


class Preallocation:
    """How much of a new or grown image takes space at once."""

    OFF: Final = "off"
    METADATA: Final = "metadata"  # the format's tables, no data
    FALLOC: Final = "falloc"  # space reserved, nothing written
    FULL: Final = "full"  # zeroes written

    ALL: Final = (OFF, METADATA, FALLOC, FULL)
