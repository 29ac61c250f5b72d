"""QEMU's locks on an image file, so that we and a running VM see each other.

Permission n is a shared lock on byte 100 + n by whoever takes it, and one on byte 200 + n by
whoever does not let others take it. Nobody ever holds an exclusive lock; whether somebody else
stands in the way is found out by asking whether one would be possible. They are "open file
description" locks: they belong to the descriptor, not to the process, and end with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from struct import Struct

from thinvirt.image.block.errors import BlockError, ImageLocked, with_reason
from thinvirt.image.block.flags import Permission

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.lock_holders import LockHolder

PERMISSION_BASE = 100
SHARED_BASE = 200

# struct flock: type, whence, start, length, pid; the kernel's numbers for its commands.
_FLOCK = Struct("@hhqqi4x")
_F_OFD_GETLK, _F_OFD_SETLK = 36, 37
_BITS = range(len(Permission.NAMES))


class PermissionLocks:
    """The locks on one descriptor.

    Args:
        fd: an open file; not owned.
        name: of the file, for messages.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.fd = fd
        self.name = name
        self.perm = 0
        self.shared = Permission.ALL
        self._taken = 0
        self._unshared = 0

    def prepare(self, perm: int, shared: int) -> None:
        """Lock for what is held and what shall be held, and see that nobody objects.

        Raises:
            ImageLocked: somebody does; everything is as before.
            BlockError: the file system cannot lock.
        """
        if perm | self.perm == self.perm and shared & self.shared == self.shared:
            return  # only giving back
        try:
            self._apply(self.perm | perm, ~self.shared | ~shared, unlock=False)
            self._check(perm, shared)
        except BlockError:
            self.abort()
            raise

    def commit(self, perm: int, shared: int) -> None:
        """Hold this and nothing else; `prepare` must have been called."""
        self._apply(perm, ~shared, unlock=True)
        self.perm, self.shared = perm, shared

    def abort(self) -> None:
        """Hold what was last committed and nothing else."""
        self._apply(self.perm, ~self.shared, unlock=True)

    def taken_on(self, fd: int, perm: int, shared: int) -> PermissionLocks:
        """Return locks on another descriptor of the file, whose place it will take.

        Nobody is asked: this descriptor holds the same already.
        """
        other = PermissionLocks(fd, self.name)
        other._apply(perm, ~shared, unlock=False)
        return other

    def _apply(self, take: int, unshare: int, *, unlock: bool) -> None:
        self._taken = self._apply_range(PERMISSION_BASE, self._taken, take, unlock)
        self._unshared = self._apply_range(SHARED_BASE, self._unshared, unshare, unlock)

    def _apply_range(self, base: int, held: int, wanted: int, unlock: bool) -> int:
        for n in _BITS:
            bit = 1 << n
            if wanted & bit and not held & bit:
                self._lock(base + n, fcntl.F_RDLCK)
                held |= bit
            elif unlock and held & bit and not wanted & bit:
                self._lock(base + n, fcntl.F_UNLCK)
                held &= ~bit
        return held

    def _lock(self, byte: int, kind: int) -> None:
        try:
            fcntl.fcntl(self.fd, _F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
        except OSError as error:
            number = error.errno or errno.EIO
            verb = "unlock" if kind == fcntl.F_UNLCK else "lock"
            text = f"Failed to {verb} byte {byte}"
            if number in (errno.EAGAIN, errno.EACCES):
                raise ImageLocked(text, number=number, holders=self._holders(byte)) from error
            raise with_reason(text, number) from error

    def _check(self, perm: int, shared: int) -> None:
        for n in _BITS:
            if perm >> n & 1:
                self._refuse_if_locked(
                    SHARED_BASE + n, f'Failed to get "{Permission.NAMES[n]}" lock'
                )
        for n in _BITS:
            if not shared >> n & 1:
                self._refuse_if_locked(
                    PERMISSION_BASE + n, f'Failed to get shared "{Permission.NAMES[n]}" lock'
                )

    def _refuse_if_locked(self, byte: int, message: str) -> None:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        try:
            answer = fcntl.fcntl(self.fd, _F_OFD_GETLK, question)
        except OSError as error:
            raise with_reason(message, error.errno or errno.EIO) from error
        if _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK:
            raise ImageLocked(
                message,
                qemu_hint=f"Is another process using the image [{self.name}]?\n",
                holders=self._holders(byte),
            )

    def _holders(self, byte: int) -> list[LockHolder]:
        from thinvirt.image.block.lock_holders import find_holders  # only where somebody is

        return find_holders(self.fd, byte)


def locks_available(fd: int) -> bool:
    """Return whether the kernel has open file description locks (Linux 3.15 and later)."""
    try:
        fcntl.fcntl(fd, _F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
    return True
