"""The guest image `tiny`: Debian's kernel, busybox, an SSH server and the guest agent, in 40 MB.

A DOS-partitioned disk that starts under SeaBIOS from any bus: syslinux on a small FAT partition,
then an ext4 root file system that grows with the disk. What the guest does on its own is in
`guest/tiny/`; docs/guide/building-templates.md describes it for users.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from thinvirt.build.cpio import pack_tree
from thinvirt.build.disk import (
    Partition,
    assemble,
    boot_record,
    convert_to_qcow2,
    make_ext4,
    make_fat_boot,
)
from thinvirt.build.kernel import KernelNotUnderstood, repack
from thinvirt.build.modules import install_modules, unpack_kernel
from thinvirt.build.packages import Deb, PackageCache
from thinvirt.build.programs import run_program, sha256_of
from thinvirt.build.result import BuildResult
from thinvirt.build.userland import install_programs
from thinvirt.progress import Progress, Silent
from thinvirt.units import GIB, SECTOR

NAME = "tiny"
DISK_SIZE = 1 * GIB  # the root file system grows with the clone's disk
LOGIN_USER = "root"

KERNEL_PACKAGE = "linux-image-amd64"  # depends on the current kernel; not the cloud kernel
PACKAGES = (
    "busybox-static",
    "dropbear-bin", "libtomcrypt1", "libtommath1", "libgmp10", "zlib1g", "libcrypt1",
    "openssh-sftp-server",
    "qemu-guest-agent", "libglib2.0-0", "liburing2", "libudev1", "libnuma1", "libpcre2-8-0",
    "e2fsprogs", "libext2fs2", "libcom-err2", "libblkid1", "libuuid1",
    "libc6",
)  # fmt: skip

PROGRAMS = {
    "bin/busybox": "usr/bin/busybox",
    "usr/sbin/dropbear": "usr/sbin/dropbear",
    "usr/bin/dropbearkey": "usr/bin/dropbearkey",
    "usr/bin/dbclient": "usr/bin/dbclient",
    "usr/lib/openssh/sftp-server": "usr/lib/sftp-server",  # where dropbear looks for it
    "usr/sbin/qemu-ga": "usr/sbin/qemu-ga",
    "sbin/resize2fs": "usr/sbin/resize2fs",
}
_LINKS = {"usr/bin/ssh": "dbclient", "etc/mtab": "/proc/mounts", "var/run": "/run"}

# Folders of the kernel's package that hold all modules below and what they depend on.
_MODULE_FOLDERS = (
    "arch/x86", "block", "crypto", "fs", "lib", "mm", "net/9p", "net/802", "net/bridge",
    "net/core", "net/ipv6", "net/llc", "net/vmw_vsock", "drivers/acpi", "drivers/ata",
    "drivers/block", "drivers/cdrom", "drivers/char", "drivers/input", "drivers/md",
    "drivers/net", "drivers/nvme", "drivers/scsi", "drivers/usb", "drivers/virtio",
)  # fmt: skip

# What it takes to find and mount the root file system.
EARLY_MODULES = (
    "virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ahci", "ata_piix", "nvme", "ext4",
    "crc32c_generic", "crc32c_intel", "crct10dif_generic", "crc64_rocksoft_generic",
)  # fmt: skip
MODULES = (
    *EARLY_MODULES,
    "virtio_net", "virtio_console", "virtio_rng", "virtio_balloon", "virtio_input",
    "vmw_vsock_virtio_transport", "e1000", "e1000e", "8139cp", "8139too", "ne2k-pci", "pcnet32",
    "vmxnet3", "sr_mod", "isofs", "vfat", "nls_ascii", "nls_cp437", "nls_utf8", "button", "evdev",
    "loop", "overlay", "squashfs", "9p", "9pnet_virtio", "virtiofs", "tun", "veth", "bridge",
    "dm-mod",
)  # fmt: skip

ROOT_LABEL = "tinyroot"
ROOT_UUID = "7468696e-7669-4274-8000-74696e790001"
DISK_ID = 0x796E6974
_BOOT_START = 2048  # sectors: 1 MiB, as every partitioning tool aligns
# no_timer_check: the timer is QEMU's and present; on a busy host the check fails for lack of time
# and the kernel panics. cryptomgr.notests: self-tests of ciphers cost a third of a second.
COMMAND_LINE = "console=tty0 console=ttyS0,115200 quiet no_timer_check cryptomgr.notests"

# What is known of the guest, JSON-ready; the build adds its kernel.
FACTS: dict[str, object] = {
    "os": NAME,
    "login_user": LOGIN_USER,
    "min_memory_mib": 96,
    "memory_mib": 128,
    "serial_console": True,
    "agent": True,
    "buses": ["virtio", "scsi", "sata", "ide"],
    "firmware": ["bios"],
    "seed": "nocloud-json",
}

_SOURCE = Path(__file__).parent
_GUEST = _SOURCE / "guest" / "tiny"


def fetch(cache: PackageCache, *, progress: Progress | None = None) -> list[Deb]:
    """Return the packages of the image, fetched if they are not cached; the kernel is the last.

    Raises:
        NotFound: the archive has no such package.
        TemporaryFailure: they are not cached and the archive cannot be reached.
    """
    *debs, meta = cache.fetch((*PACKAGES, KERNEL_PACKAGE), progress=progress)
    kernel_name = meta.field("Depends").split()[0]
    return [*debs, *cache.fetch([kernel_name], progress=progress)]


def inputs_digest(debs: Sequence[Deb]) -> str:
    """Return a digest (hexadecimal) of all that the image is made from: packages and recipe."""
    from hashlib import sha256

    digest = sha256()
    for deb in debs:
        digest.update(f"{deb.name} {deb.version} {deb.sha256}\n".encode())
    for path in _recipe_files():
        digest.update(f"{path.relative_to(_SOURCE)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _recipe_files() -> list[Path]:
    names = ("tiny", "cpio", "disk", "kernel", "modules", "userland")
    guest = sorted(path for path in _GUEST.rglob("*") if path.is_file())
    return [*(_SOURCE / f"{name}.py" for name in names), _SOURCE / "guest/kernel_stub.S", *guest]


def build_tiny(
    target: Path, *, work: Path, cache: PackageCache, progress: Progress | None = None
) -> BuildResult:
    """Build the image and write it as qcow2.

    Args:
        target: the image to write; overwritten.
        work: an existing directory for some 500 MB of temporary files, removed at the end.
        cache: where packages come from.
        progress: told of the steps.

    Raises:
        ProgramMissing: a program needed is not installed.
        ProgramFailed: one of them failed.
        NotFound, TemporaryFailure: as `fetch`.
    """
    progress = progress or Silent()
    debs = fetch(cache, progress=progress)
    scratch = work / "tiny"
    shutil.rmtree(scratch, ignore_errors=True)  # of a build that was killed
    scratch.mkdir()
    try:
        known = _build(target.absolute(), scratch.absolute(), debs, progress)
    finally:
        shutil.rmtree(scratch)
    return BuildResult(target, inputs_digest(debs), {**FACTS, **known})


def _build(
    target: Path, scratch: Path, debs: Sequence[Deb], progress: Progress
) -> dict[str, object]:
    """Write the image and return the facts about its kernel."""
    *others, kernel_deb = debs
    progress.step("unpacking the packages", len(debs), "packages")
    packages, kernel = scratch / "packages", scratch / "kernel"
    for folder in (packages, kernel):
        folder.mkdir()
    for deb in others:
        deb.unpack(packages)
        progress.advance(1)
    version = unpack_kernel(kernel_deb, kernel, _MODULE_FOLDERS)
    progress.advance(1)

    progress.step("making the guest's file systems")
    boot = scratch / "boot"
    boot.mkdir()
    repacked = _write_kernel(kernel / f"boot/vmlinuz-{version}", boot / "vmlinuz", scratch)
    _write_initramfs(boot / "initrd", packages, kernel, version, scratch)
    (boot / "syslinux.cfg").write_text(
        f"DEFAULT l\nPROMPT 0\nTIMEOUT 0\nLABEL l\n KERNEL vmlinuz\n INITRD initrd\n"
        f" APPEND {COMMAND_LINE}\n"
    )
    root = scratch / "root"
    _make_root(root, packages, kernel, version)

    progress.step("writing the disk image")
    _write_disk(target, scratch, boot, root)
    return {"kernel": version, "kernel_repacked": repacked}


def _write_kernel(source: Path, target: Path, scratch: Path) -> bool:
    """Write the kernel, repacked if it can be; one of another form starts too, only later."""
    image = source.read_bytes()
    try:
        target.write_bytes(repack(image, scratch))
    except KernelNotUnderstood:
        target.write_bytes(image)
        return False
    return True


def _write_initramfs(
    target: Path, packages: Path, kernel: Path, version: str, scratch: Path
) -> None:
    tree = scratch / "initramfs"
    for folder in ("dev", "proc", "sys", "root", "sbin"):
        (tree / folder).mkdir(parents=True)
    install_programs({"bin/busybox": "bin/busybox"}, packages=packages, root=tree)
    # The shell finds busybox's other applets by itself, once /proc is mounted.
    for name in ("sh", "mount", "run-init"):
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "sbin/modprobe").symlink_to("../bin/busybox")
    install_modules(EARLY_MODULES, source=kernel, root=tree, version=version, base="lib")
    script = (_GUEST / "initramfs/init").read_text()
    disk_id = DISK_ID.to_bytes(4, "little").hex()
    init = tree / "init"
    init.write_text(script.replace("@ROOT_UUID@", ROOT_UUID).replace("@DISK_ID@", disk_id))
    init.chmod(0o755)
    _set_modes(tree)
    archive = scratch / "initramfs.cpio"
    archive.write_bytes(pack_tree(tree))
    run_program("lz4", "-q", "-f", "-l", "-9", archive, target)  # the kernel reads this format only


def _make_root(root: Path, packages: Path, kernel: Path, version: str) -> None:
    for folder in (
        "dev", "etc/dropbear", "home", "mnt", "proc", "root", "run", "srv", "sys", "tmp",
        "usr/local/bin", "usr/local/sbin", "usr/sbin", "usr/lib64",
        "var/lib/thinvirt/instances", "var/log", "var/tmp",
    ):  # fmt: skip
        (root / folder).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    install_programs(PROGRAMS, packages=packages, root=root)
    for path in sorted((_GUEST / "root").rglob("*")):
        if path.is_file():
            copy = root / path.relative_to(_GUEST / "root")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            copy.chmod(0o755 if path.read_bytes().startswith(b"#!") else 0o644)
    for name, destination in _LINKS.items():
        (root / name).symlink_to(destination)
    _link_applets(root)
    install_modules(MODULES, source=kernel, root=root, version=version)
    _set_modes(root)
    for folder, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700)):
        (root / folder).chmod(mode)
    (root / "etc/shadow").chmod(0o600)


def _set_modes(tree: Path) -> None:
    """Make everything readable and programs executable, whatever the umask of who builds."""
    for path in tree.rglob("*"):
        if path.is_symlink():
            continue
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)


def _link_applets(root: Path) -> None:
    """Link busybox's applets to where they usually are, unless a real program is there."""
    for applet in run_program(root / "usr/bin/busybox", "--list-full").split():
        path = root / "usr" / applet.removeprefix("usr/")
        others = [root / "usr" / folder / path.name for folder in ("bin", "sbin")]
        if path.name != "busybox" and not any(other.is_file() for other in others):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to("/bin/busybox")


def _write_disk(target: Path, scratch: Path, boot: Path, root: Path) -> None:
    fat, ext4, raw = scratch / "fat.img", scratch / "ext4.img", scratch / "disk.raw"
    files = [(path.name, path) for path in sorted(boot.iterdir())]
    boot_sectors = make_fat_boot(fat, files, start_sector=_BOOT_START, volume_id=DISK_ID)
    root_start = _BOOT_START + boot_sectors
    root_sectors = DISK_SIZE // SECTOR - root_start
    sectors_noted = root / "var/lib/thinvirt/root-sectors"  # `late` compares it with the partition
    sectors_noted.write_text(f"{root_sectors}\n")
    sectors_noted.chmod(0o644)
    make_ext4(ext4, root, size_bytes=root_sectors * SECTOR, label=ROOT_LABEL, uuid=ROOT_UUID)
    table = (
        Partition(Partition.FAT16_LBA, _BOOT_START, boot_sectors, bootable=True),
        Partition(Partition.LINUX, root_start, root_sectors),
    )
    record = boot_record(table, DISK_ID)
    assemble(raw, [(_BOOT_START, fat), (root_start, ext4)], record=record, size=DISK_SIZE)
    convert_to_qcow2(raw, target)
