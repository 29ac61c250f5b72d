"""Boot loaders and partitions, read back by the tools that know them."""

import json
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from thinvirt.build import grub
from thinvirt.errors import ThinvirtError

MIB = 1024 * 1024
IDENTITY = UUID("8d5b2c1e-0f7a-4f63-9c39-2a1d6f0b7e55")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("grub")
    path = work / "disk.raw"
    grub.write_disk(path, 256 * MIB, grub.make_loaders(work), identity=IDENTITY, work=work)
    return path


def read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def test_partitions_are_numbered_as_on_debians_images(disk: Path) -> None:
    told = subprocess.run(
        ["/sbin/sfdisk", "--json", disk], capture_output=True, check=True, text=True
    )
    table = json.loads(told.stdout)["partitiontable"]
    assert table["label"] == "gpt"
    assert UUID(table["id"]) == IDENTITY
    by_number = {int(p["node"].removeprefix(str(disk))): p for p in table["partitions"]}
    assert {n: p["name"] for n, p in by_number.items()} == {1: "root", 14: "bios-boot", 15: "esp"}
    root = by_number[1]
    assert root["start"] == max(p["start"] for p in by_number.values()), "the root cannot grow"
    assert root["start"] * 512 == grub.ROOT_START * grub.SECTOR
    assert root["size"] * 512 == grub.root_size(256 * MIB)
    assert all(p["start"] * 512 % MIB == 0 for p in by_number.values())
    assert len({p["uuid"] for p in by_number.values()}) == 3


def test_table_has_no_faults(disk: Path) -> None:
    done = subprocess.run(
        ["/sbin/sfdisk", "--verify", disk], capture_output=True, text=True, check=True
    )
    assert "No errors detected" in done.stdout


def test_boot_code_leaves_the_protective_table_alone(disk: Path) -> None:
    first = read(disk, 0, 512)
    assert first[510:] == b"\x55\xaa"
    assert first[446 + 4] == 0xEE, "no protective entry"
    assert int.from_bytes(first[0x5C:0x64], "little") == grub.BIOS_BOOT_START


def test_core_knows_where_its_rest_stands(disk: Path) -> None:
    core = read(disk, grub.BIOS_BOOT_START * 512, grub.BIOS_BOOT_SECTORS * 512)
    rest_start = int.from_bytes(core[500:508], "little")
    rest_sectors = int.from_bytes(core[508:510], "little")
    assert rest_start == grub.BIOS_BOOT_START + 1
    end = (rest_sectors + 1) * 512
    assert not core[end:].strip(b"\0"), "sectors beyond what GRUB loads"
    assert core[end - 512 : end].strip(b"\0"), "the block list reaches too far"


def test_firmware_finds_the_efi_program(disk: Path) -> None:
    esp = f"{disk}@@{grub.ESP_START * 512}"
    program = subprocess.run(
        ["mtype", "-i", esp, "::EFI/BOOT/BOOTX64.EFI"], capture_output=True, check=True
    )
    assert program.stdout[:2] == b"MZ"


def test_disk_stays_sparse(disk: Path) -> None:
    assert disk.stat().st_size == 256 * MIB
    assert disk.stat().st_blocks * 512 < 4 * MIB


def test_root_ends_before_the_backup_table() -> None:
    for size in (128 * MIB, 129 * MIB - 512, 3 * 1024 * MIB):
        end = grub.ROOT_START * 512 + grub.root_size(size)
        assert end <= size - 34 * 512
        assert size - end < 3 * MIB


def test_core_too_large_for_its_partition_is_refused() -> None:
    with pytest.raises(ThinvirtError, match="2049 sectors"):
        grub.place_core(bytes(2048 * 512 + 1), grub.BIOS_BOOT_START)
