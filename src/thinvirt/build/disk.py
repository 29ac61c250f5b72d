"""Disk images put together from files, by any user: no loop device, no mount, no privilege.

Everything that programs would fill in at random or by the clock is given, so that equal inputs make
equal images.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from thinvirt.build.programs import ProgramFailed, run_program
from thinvirt.errors import ProgramMissing
from thinvirt.units import MIB, SECTOR

FIXED_TIME = 1_700_000_000  # seconds since 1970: the time stamp of everything in an image

_FAT_TIME = struct.pack("<HH", 0, (43 << 9) | (11 << 5) | 14)  # 2023-11-14, the day of the above

_SYSLINUX_MBR = (Path("/usr/lib/syslinux/mbr/mbr.bin"), Path("/usr/lib/SYSLINUX/mbr.bin"))


@dataclass(frozen=True, slots=True)
class Partition:
    """An entry of a DOS partition table."""

    LINUX: ClassVar = 0x83
    FAT16_LBA: ClassVar = 0x0E

    kind: int
    start_sector: int
    sectors: int
    bootable: bool = False

    def pack(self) -> bytes:
        """Return the 16 bytes of the entry; cylinder and head numbers say "see the sector"."""
        beyond = b"\xfe\xff\xff"
        return (
            bytes([0x80 if self.bootable else 0])
            + beyond
            + bytes([self.kind])
            + beyond
            + struct.pack("<II", self.start_sector, self.sectors)
        )


def boot_record(partitions: Sequence[Partition], disk_id: int) -> bytes:
    """Return a disk's first sector: syslinux's boot code and the partition table.

    Raises:
        ProgramMissing: the boot code is not installed.
    """
    code = next((path for path in _SYSLINUX_MBR if path.exists()), None)
    if code is None:
        raise ProgramMissing(
            "syslinux's boot record (mbr.bin) is not installed",
            hint="apt-get install syslinux-common",
        )
    entries = b"".join(partition.pack() for partition in partitions).ljust(64, b"\0")
    return (
        code.read_bytes()[:440].ljust(440, b"\0")
        + struct.pack("<IH", disk_id, 0)
        + entries
        + b"\x55\xaa"
    )


def make_fat_boot(
    path: Path, files: Sequence[tuple[str, Path]], *, start_sector: int, volume_id: int
) -> int:
    """Make a FAT16 file system with syslinux and `files` and return its size in sectors.

    Args:
        path: the image to write.
        files: name in the file system and source of each file.
        start_sector: where the file system will begin on the disk.
        volume_id: its serial number.
    """
    import os

    content = sum(source.stat().st_size for _, source in files)
    # FAT16 must have at least 4085 clusters, or else it is taken for FAT12.
    size_bytes = max(20 * MIB, (content + 2 * MIB + MIB - 1) // MIB * MIB)
    with path.open("wb") as file:
        file.truncate(size_bytes)
    run_program(
        "mkfs.vfat", "-F", "16", "-s", "8", "-h", str(start_sector), "-n", "TINYBOOT",
        "--invariant", "-i", f"{volume_id:08x}", path,
    )  # fmt: skip
    # mtools gives some characters in an image's path a meaning: name it without a path.
    folder, image = path.parent, path.name
    for name, source in files:
        os.utime(source, (FIXED_TIME, FIXED_TIME))
        run_program("mcopy", "-m", "-i", image, source, f"::{name}", cwd=folder)
    run_program("syslinux", "--install", image, cwd=folder)
    _fix_times(path)
    return size_bytes // SECTOR


def _fix_times(path: Path) -> None:
    """Give every file in a FAT16 root directory the same times: syslinux writes some by the clock.

    Microsoft's "FAT: General Overview of On-Disk Format" 1.03 names the fields.
    """
    with path.open("r+b") as image:
        boot_sector = image.read(SECTOR)
        reserved, tables, entries = struct.unpack_from("<HBH", boot_sector, 14)
        (table_sectors,) = struct.unpack_from("<H", boot_sector, 22)
        image.seek((reserved + tables * table_sectors) * SECTOR)
        directory = bytearray(image.read(entries * 32))
        for at in range(0, len(directory), 32):
            attributes = directory[at + 11]
            if directory[at] not in (0, 0xE5) and attributes != 0x0F:  # a part of a long name
                directory[at + 13 : at + 20] = bytes(7)  # created, last accessed: not known
                directory[at + 22 : at + 26] = _FAT_TIME
        image.seek(-len(directory), 1)
        image.write(directory)


def make_ext4(path: Path, tree: Path, *, size_bytes: int, label: str, uuid: str) -> None:
    """Make an ext4 file system that holds `tree`, all of it owned by root.

    The files are written by debugfs: the file system library itself, which needs no privilege to
    give them to root and takes the time from the environment.

    Raises:
        ProgramFailed: a file could not be written, or the result is not sound.
    """
    with path.open("wb") as image:
        image.truncate(size_bytes)
    fixed = {"E2FSPROGS_FAKE_TIME": str(FIXED_TIME), "SOURCE_DATE_EPOCH": str(FIXED_TIME)}
    run_program(
        "mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-L", label, "-U", uuid, "-m", "0",
        "-J", "size=4", "-E", f"hash_seed={uuid},lazy_itable_init=1,nodiscard,root_owner=0:0",
        path, env=fixed,
    )  # fmt: skip
    commands = "".join(f"{command}\n" for command in _debugfs_commands(tree))
    said = run_program(
        "debugfs", "-w", "-f", "-", path.absolute(),
        cwd=tree, env=fixed, stdin=commands.encode(), with_stderr=True,
    )  # fmt: skip
    expected = ("debugfs", "Allocated inode:")
    unexpected = [line for line in said.splitlines() if line and not line.startswith(expected)]
    if unexpected:
        raise ProgramFailed("debugfs", 0, unexpected[0])
    run_program("e2fsck", "-f", "-n", path, env=fixed)


def _debugfs_commands(tree: Path) -> Iterator[str]:
    # debugfs creates in the current directory only; parents sort before what is in them.
    for folder in (tree, *sorted(path for path in tree.rglob("*") if _is_folder(path))):
        yield f'cd "/{"" if folder == tree else folder.relative_to(tree)}"'
        for path in sorted(folder.iterdir()):
            if path.is_symlink():
                yield f'symlink "{path.name}" "{path.readlink()}"'
            elif path.is_file():
                yield f'write "{path.relative_to(tree)}" "{path.name}"'
            else:
                yield f'mkdir "{path.name}"'
                yield f'set_inode_field "{path.name}" mode 0{path.stat().st_mode:o}'


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def assemble(target: Path, parts: Sequence[tuple[int, Path]], *, record: bytes, size: int) -> None:
    """Write a raw disk image, sparse.

    Args:
        target: the image; overwritten.
        parts: sector where each partition begins, and its content.
        record: the first sector.
        size: of the disk, in bytes.
    """
    with target.open("wb") as disk:
        disk.truncate(size)
        disk.write(record)
        for start_sector, path in parts:
            sparse_copy_into(disk, path, offset=start_sector * SECTOR)


def sparse_copy_into(disk: BinaryIO, source: Path, *, offset: int) -> None:
    """Copy a file's data to `offset` of another, leaving out its holes."""
    import errno
    import os

    with source.open("rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole to the end
                    return
                raise
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            file.seek(start)
            disk.seek(offset + start)
            while start < at:
                chunk = file.read(min(4 * MIB, at - start))
                disk.write(chunk)
                start += len(chunk)


def convert_to_qcow2(raw: Path, target: Path) -> None:
    """Write the qcow2 image of a raw disk."""
    run_program("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, target)
