"""GRUB on a disk image that starts under SeaBIOS and UEFI alike, without grub-install or root.

The disk has a GUID partition table with three partitions, numbered as on Debian's own cloud images:

    14  BIOS boot   1 MiB   GRUB's core for SeaBIOS, raw
    15  ESP        64 MiB   FAT32 with EFI/BOOT/BOOTX64.EFI, which any UEFI firmware finds
     1  root       the rest; last on the disk, so that it can grow with it

Both GRUBs read /boot/grub/grub.cfg on partition 1 of the disk they were started from, whatever else
is attached, and have all the modules they need built in: nothing of GRUB stands in the root file
system but its configuration.

References: GRUB manual, "BIOS installation" and "Images"; UEFI specification 2.10, 3.5.1.1 and 5.3.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from thinvirt.build.programs import run_program
from thinvirt.errors import ProgramMissing, ThinvirtError

SECTOR = 512  # bytes
_MIB_SECTORS = 1024 * 1024 // SECTOR

BIOS_BOOT_START = _MIB_SECTORS  # sectors, as all of these
BIOS_BOOT_SECTORS = _MIB_SECTORS
ESP_START = BIOS_BOOT_START + BIOS_BOOT_SECTORS
ESP_SECTORS = 64 * _MIB_SECTORS
ROOT_START = ESP_START + ESP_SECTORS
_BACKUP_TABLE_SECTORS = _MIB_SECTORS  # 33 needed; whole MiBs keep the root aligned at both ends

ROOT_NUMBER, BIOS_BOOT_NUMBER, ESP_NUMBER = 1, 14, 15
_PREFIX = f"(,gpt{ROOT_NUMBER})/boot/grub"  # no disk named: the one GRUB was started from

_PAYLOADS = Path("/usr/lib/grub")
_MODULES = (
    "part_gpt", "ext2", "normal", "configfile", "linux", "boot", "probe", "test",
    "echo", "all_video",
)  # fmt: skip

# Where boot.img and diskboot.img (GRUB's boot sector and the first sector of its core) keep what
# grub-bios-setup fills in; include/grub/i386/pc/boot.h and diskboot.S.
_BOOT_CODE_BYTES = 440  # what follows in the first sector is the partition table's
_KERNEL_SECTOR_AT = 0x5C  # le64: where the core begins
_DRIVE_CHECK_AT = 0x66  # a jump over the help for BIOSes that misname the drive; NOPs enable it
_NOPS = b"\x90\x90"
_BLOCKLIST_AT = SECTOR - 12  # le64 sector, le16 count, le16 segment: the rest of the core
_BLOCKLIST_SEGMENT = 0x820


@dataclass(frozen=True, slots=True)
class Loaders:
    """What goes where on the disk."""

    boot_code: bytes  # first 440 bytes of the disk
    core: bytes  # the BIOS-boot partition
    efi: bytes  # EFI/BOOT/BOOTX64.EFI


def make_loaders(work: Path) -> Loaders:
    """Return GRUB for both firmwares.

    Args:
        work: an existing directory for intermediate files.

    Raises:
        ProgramMissing: grub-mkimage, grub-pc-bin or grub-efi-amd64-bin is not installed.
    """
    boot = _payload("i386-pc/boot.img", "grub-pc-bin").read_bytes()
    _payload("x86_64-efi/moddep.lst", "grub-efi-amd64-bin")
    core = work / "core.img"
    _mkimage("i386-pc", core, "biosdisk")
    efi = work / "bootx64.efi"
    _mkimage("x86_64-efi", efi, "fat")
    return Loaders(
        boot_code=place_boot_code(boot, BIOS_BOOT_START),
        core=place_core(core.read_bytes(), BIOS_BOOT_START),
        efi=efi.read_bytes(),
    )


def _payload(name: str, package: str) -> Path:
    path = _PAYLOADS / name
    if not path.is_file():
        raise ProgramMissing(f"GRUB's {path} is missing", hint=f"apt-get install {package}")
    return path


def _mkimage(platform: str, target: Path, *more_modules: str) -> None:
    run_program(
        "grub-mkimage",
        *("--format", platform, "--prefix", _PREFIX, "--output", target),
        *_MODULES,
        *more_modules,
    )


def place_boot_code(boot_image: bytes, core_start: int) -> bytes:
    """Return GRUB's boot sector code, told that its core begins at sector `core_start`."""
    code = bytearray(boot_image)
    code[_KERNEL_SECTOR_AT : _KERNEL_SECTOR_AT + 8] = core_start.to_bytes(8, "little")
    code[_DRIVE_CHECK_AT : _DRIVE_CHECK_AT + 2] = _NOPS
    return bytes(code[:_BOOT_CODE_BYTES])


def place_core(core_image: bytes, start: int) -> bytes:
    """Return GRUB's core, told that it stands at sector `start` in one piece, in whole sectors.

    Raises:
        ThinvirtError: it does not fit into the BIOS-boot partition.
    """
    sectors = -(-len(core_image) // SECTOR)
    if sectors > BIOS_BOOT_SECTORS:
        raise ThinvirtError(
            f"GRUB's core has {sectors} sectors and its partition {BIOS_BOOT_SECTORS}"
        )
    core = bytearray(core_image.ljust(sectors * SECTOR, b"\0"))
    core[_BLOCKLIST_AT:SECTOR] = (
        (start + 1).to_bytes(8, "little")
        + (sectors - 1).to_bytes(2, "little")
        + _BLOCKLIST_SEGMENT.to_bytes(2, "little")
    )
    return bytes(core)


def root_size(disk_size: int) -> int:
    """Return the bytes that the root partition has on a disk of `disk_size` bytes."""
    sectors = disk_size // SECTOR - ROOT_START - _BACKUP_TABLE_SECTORS
    return sectors // _MIB_SECTORS * _MIB_SECTORS * SECTOR


def write_disk(disk: Path, size: int, loaders: Loaders, *, identity: UUID, work: Path) -> None:
    """Make a raw disk image with partitions and boot loaders; the root partition is left empty.

    Args:
        disk: the image to make; its root partition begins at byte ``ROOT_START * SECTOR``.
        size: of the disk, bytes.
        loaders: what `make_loaders` returned.
        identity: names the disk; its partitions' names are derived from it.
        work: an existing directory for intermediate files.

    Raises:
        ProgramMissing: sfdisk, mkfs.vfat or mcopy is not installed.
    """
    with disk.open("xb") as file:
        file.truncate(size)
    run_program(
        "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk,
        stdin=partition_script(size, identity).encode(),
    )  # fmt: skip
    esp = work / "esp.img"
    _make_esp(esp, loaders.efi, identity, work)
    with disk.open("r+b") as file:
        file.write(loaders.boot_code)
        file.seek(BIOS_BOOT_START * SECTOR)
        file.write(loaders.core)
        _copy_sparse(esp, file, ESP_START * SECTOR)


def partition_script(size: int, identity: UUID) -> str:
    """Return what sfdisk is told, for a disk of `size` bytes."""
    from uuid import uuid5

    def entry(number: int, start: int, sectors: int, kind: str, name: str) -> str:
        uuid = uuid5(identity, name)
        return f'{number}: start={start}, size={sectors}, type={kind}, uuid={uuid}, name="{name}"'

    return "\n".join(
        (
            "label: gpt",
            f"label-id: {identity}",
            entry(ROOT_NUMBER, ROOT_START, root_size(size) // SECTOR, "linux", "root"),
            entry(
                BIOS_BOOT_NUMBER,
                BIOS_BOOT_START,
                BIOS_BOOT_SECTORS,
                "21686148-6449-6E6F-744E-656564454649",
                "bios-boot",
            ),
            entry(ESP_NUMBER, ESP_START, ESP_SECTORS, "uefi", "esp"),
            "",
        )
    )


def _make_esp(target: Path, loader: bytes, identity: UUID, work: Path) -> None:
    with target.open("xb") as file:
        file.truncate(ESP_SECTORS * SECTOR)
    volume_id = f"{identity.int & 0xFFFFFFFF:08x}"
    run_program(
        "mkfs.vfat",
        "-F",
        "32",
        "-s",
        "1",
        "-h",
        str(ESP_START),
        "-n",
        "EFI",
        "-i",
        volume_id,
        target,
    )
    program = work / "BOOTX64.EFI"
    program.write_bytes(loader)
    run_program("mmd", "-i", target, "::EFI", "::EFI/BOOT")
    run_program("mcopy", "-i", target, program, "::EFI/BOOT/BOOTX64.EFI")


def _copy_sparse(source: Path, target: BinaryIO, offset: int) -> None:
    """Copy what is not zero, so that the disk stays sparse."""
    with source.open("rb") as file:
        while chunk := file.read(64 * 1024):
            if chunk.strip(b"\0"):
                target.seek(offset)
                target.write(chunk)
            offset += len(chunk)
