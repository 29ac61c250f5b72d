"""Whether a VM may be migrated live without risk to its disks: libvirt's verdict, with its reason.

The order of the rules is that of libvirt 9.0 (qemuMigrationSrcIsSafe, observed rule by rule); what
is old about "only none and directsync migrate" is said with the versions: since QEMU 4.0 the page
cache is dropped when the disk is handed over, and libvirt counts on it since 5.7.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from thinvirt.vm.spec.words import Cache

Storage = Literal["empty", "file", "block", "network", "nvme"]
Rule = Literal[
    "empty",
    "read-only",
    "copied",
    "network",
    "nvme",
    "same-host",
    "not-shared",
    "cluster",
    "no-page-cache",
    "drops-cache",
    "page-cache",
]

QEMU_DROPS_CACHE: Final = (4, 0)
LIBVIRT_COUNTS_ON_IT: Final = (5, 7)
SHARED_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "smb", "cifs", "fuse.glusterfs", "fuse.quobyte", "gpfs", "beegfs"}
)
CLUSTER_FILE_SYSTEMS: Final = frozenset({"gfs2", "ocfs2", "ceph", "fuse.glusterfs"})
_VERSIONS: Final = "QEMU 4.0 and libvirt 5.7"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlace:
    """What of a disk matters for a migration.

    Attributes:
        name: how people know it: its path.
        storage: what it lies on.
        file_system: the type of the file system of a file, as /proc/self/mountinfo calls it.
        cache: its cache mode; None: QEMU's default, writeback.
        read_only, shareable: as in the specification.
        copied: whether this migration copies it to the other host.
    """

    name: str
    storage: Storage = "file"
    file_system: str = ""
    cache: Cache | None = None
    read_only: bool = False
    shareable: bool = False
    copied: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one disk.

    Attributes:
        disk: which.
        safe: whether libvirt would let it go.
        rule: what decided.
        reason: why, in words.
        ways_out: what can be done about it; () if it is safe.
        warning: what is to be known although it is safe, "" for nothing.
    """

    disk: str
    safe: bool
    rule: Rule
    reason: str
    ways_out: tuple[str, ...] = ()
    warning: str = ""


def judge(disks: Iterable[DiskPlace], *, same_host: bool, qemu: tuple[int, int]) -> list[Verdict]:
    """Return a verdict for every disk, in order.

    Args:
        disks: the VM's.
        same_host: whether both ends run under one kernel: one page cache is always coherent.
        qemu: the older QEMU's version, major and minor.
    """
    return [_judge(disk, same_host=same_host, qemu=qemu) for disk in disks]


def _judge(disk: DiskPlace, *, same_host: bool, qemu: tuple[int, int]) -> Verdict:
    rule, reason = _rule(disk, same_host=same_host, qemu=qemu)
    safe = rule not in ("nvme", "not-shared", "page-cache")
    warning = ""
    if disk.cache == "unsafe" and disk.storage != "empty" and not disk.read_only:
        warning = "cache unsafe ignores the guest's flushes: a power failure may lose everything"
    return Verdict(disk.name, safe, rule, reason, _ways_out(rule), warning)


def _rule(disk: DiskPlace, *, same_host: bool, qemu: tuple[int, int]) -> tuple[Rule, str]:
    """Return the first rule that applies, and its reason in words."""
    cache = disk.cache or "writeback"
    system = disk.file_system or "this file system"
    on_file = disk.storage == "file"
    cases: tuple[tuple[bool, Rule, str], ...] = (
        (disk.storage == "empty", "empty", "there is nothing in the drive"),
        (disk.read_only, "read-only", "nobody writes to it"),
        (disk.copied, "copied", "the migration copies it"),
        (disk.storage == "network", "network", "QEMU reaches it over the network on both sides"),
        (disk.storage == "nvme", "nvme", "an NVMe device belongs to one host"),
        (same_host, "same-host", "both ends share one kernel and its page cache"),
        (
            on_file and disk.file_system not in SHARED_FILE_SYSTEMS | CLUSTER_FILE_SYSTEMS,
            "not-shared",
            f"{system} is not known to be shared between hosts: the other one would find another "
            "file, or none",
        ),
        (
            on_file and disk.file_system in CLUSTER_FILE_SYSTEMS,
            "cluster",
            f"{system} keeps the caches of its hosts coherent",
        ),
        (
            disk.shareable or cache in ("none", "directsync"),
            "no-page-cache",
            "it bypasses the host's page cache"
            if not disk.shareable
            else "it is meant to be shared",
        ),
        (
            qemu >= QEMU_DROPS_CACHE,
            "drops-cache",
            f"QEMU drops the page cache when it hands over (since {_VERSIONS}; the older rule was: "
            "only cache none and directsync migrate)",
        ),
    )
    for applies, rule, reason in cases:
        if applies:
            return rule, reason
    old = ".".join(map(str, qemu))
    return "page-cache", (
        f"with cache {cache} the other host may read old data from its page cache: QEMU {old} does "
        f"not drop it (since {_VERSIONS} it does)"
    )


def _ways_out(rule: Rule) -> tuple[str, ...]:
    if rule == "not-shared":
        return (
            "put the disk on storage that both hosts see (NFS, Ceph, GFS2, a SAN)",
            "copy it along: virsh migrate --copy-storage-all",
            "force it, if you know that both see the same file: virsh migrate --unsafe",
        )
    if rule == "page-cache":
        return (
            "cache=none",
            f"{_VERSIONS} or later on both sides",
            "force it, and risk the data: virsh migrate --unsafe",
        )
    if rule == "nvme":
        return ("stop the VM and start it there",)
    return ()
