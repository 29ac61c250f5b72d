"""Whether a file system bears a store: tried once, when the store is made."""

import fcntl
import os
from pathlib import Path

from thinvirt.errors import StoreUnusable
from thinvirt.store.trouble import ELSEWHERE

# File systems that several hosts see at once: SQLite's WAL needs memory shared by all processes
# that use the catalogue, and flock may hold on one host only.
SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "gfs2", "ocfs2"})
_SHARED_FUSE = frozenset({"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.rclone", "fuse.s3fs"})
_HOLE = 1 << 20


def probe(home: Path) -> None:
    """Try in `home` what a store needs of its file system.

    Raises:
        StoreUnusable: it is shared between hosts, or has no sparse files, no locks or no sockets.
    """
    kind = file_system_type(home)
    if kind in SHARED | _SHARED_FUSE:
        raise _unsuitable(home, kind, "hosts that share it do not see each other's locks")
    trial = home / f".probe-{os.getpid()}"
    fd = os.open(trial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _probe_locks(home, trial, fd, kind)
        os.pwrite(fd, b"\1", _HOLE)
        os.fsync(fd)
        if os.fstat(fd).st_blocks * 512 >= _HOLE:
            raise _unsuitable(home, kind, "it has no sparse files, so overlays would not be small")
    finally:
        os.close(fd)
        trial.unlink(missing_ok=True)
    _probe_sockets(home, kind)


def file_system_type(path: Path) -> str:
    """Return the type of the file system that holds `path`, as /proc/mounts has it, or ""."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kind = ""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:  # proc(5): … major:minor root mount-point options [tags] - type source …
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted and right:
            kind = right.split()[0]
    return kind


def _probe_locks(home: Path, trial: Path, fd: int, kind: str) -> None:
    other = os.open(trial, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    except OSError as error:
        raise _unsuitable(home, kind, f"it has no file locks ({error.strerror})") from error
    finally:
        os.close(other)
    raise _unsuitable(home, kind, "its file locks do not exclude anybody")


def _probe_sockets(home: Path, kind: str) -> None:
    """Bind a socket through /proc, where its address is short, as the driver does."""
    import socket

    name = f".probe-{os.getpid()}.sock"
    directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{directory}/{name}")
    except OSError as error:
        raise _unsuitable(home, kind, f"it bears no sockets ({error.strerror})") from error
    finally:
        os.close(directory)
        (home / name).unlink(missing_ok=True)


def _unsuitable(home: Path, kind: str, reason: str) -> StoreUnusable:
    named = f" ({kind})" if kind else ""
    return StoreUnusable(
        f"the file system of {home}{named} does not bear a store: {reason}",
        hint=f"{ELSEWHERE}, on a local file system such as ext4, XFS or Btrfs",
    )
