"""Disks put together from files, held against the programs that read them."""

import os
import subprocess
from pathlib import Path

import pytest

from thinvirt.build.cpio import pack_tree
from thinvirt.build.disk import Partition, assemble, boot_record, make_ext4, make_fat_boot
from thinvirt.build.programs import ProgramFailed, find_program
from thinvirt.units import MIB

UUID = "01234567-89ab-4def-8123-456789abcdef"


def output(program: str, *arguments: str | Path, stdin: bytes = b"") -> str:
    command = [find_program(program), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, input=stdin).stdout.decode()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a directory with what a root file system has: modes, links, depth, a hole."""
    tree = tmp_path / "a tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    (tree / "usr/bin/tool").write_bytes(os.urandom(70_000))
    (tree / "usr/bin/tool").chmod(0o755)
    (tree / "usr/secret").write_text("s")
    (tree / "usr/secret").chmod(0o600)
    (tree / "bin").symlink_to("usr/bin")
    for number in range(300):  # more than one block of directory
        (tree / "usr/bin" / f"link-{number}").symlink_to("tool")
    return tree


def test_ext4_holds_the_tree_and_root_owns_it(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "with space.ext4"
    make_ext4(image, tree, size_bytes=32 * MIB, label="x", uuid=UUID)
    for path, mode in (("/tmp", "01777"), ("/usr/bin/tool", "0755"), ("/usr/secret", "0600")):
        facts = output("debugfs", "-R", f"stat {path}", image)
        assert f"Mode:  {mode}" in facts
        assert "User:     0   Group:     0" in facts
    output("debugfs", "-R", f'dump /usr/bin/tool "{tmp_path}/tool"', image)
    assert (tmp_path / "tool").read_bytes() == (tree / "usr/bin/tool").read_bytes()
    assert 'Fast link dest: "usr/bin"' in output("debugfs", "-R", "stat /bin", image)
    assert output("debugfs", "-R", "ls -p /usr/bin", image).count("/link-") == 300


def test_ext4_is_the_same_each_time(tree: Path, tmp_path: Path) -> None:
    images = [tmp_path / name for name in ("a", "b")]
    for image in images:
        make_ext4(image, tree, size_bytes=32 * MIB, label="x", uuid=UUID)
        (tree / "usr/secret").write_text("s")  # another time stamp, the same content
    assert images[0].read_bytes() == images[1].read_bytes()


def test_a_tree_that_does_not_fit_is_an_error(tree: Path, tmp_path: Path) -> None:
    with (tree / "big").open("wb") as file:
        for _ in range(20):
            file.write(os.urandom(MIB))
    with pytest.raises(ProgramFailed, match="debugfs"):
        make_ext4(tmp_path / "image", tree, size_bytes=16 * MIB, label="x", uuid=UUID)


def test_fat_holds_the_files_and_is_the_same_each_time(tmp_path: Path) -> None:
    source = tmp_path / "kernel"
    source.write_bytes(os.urandom(MIB))
    images = [tmp_path / "a" / "fat", tmp_path / "b@@1M" / "a fat"]
    for image in images:
        image.parent.mkdir()
        sectors = make_fat_boot(image, [("vmlinuz", source)], start_sector=2048, volume_id=0x1234)
        assert sectors * 512 == image.stat().st_size
    assert images[0].read_bytes() == images[1].read_bytes()
    output("mcopy", "-i", images[0], "::vmlinuz", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_sfdisk_reads_the_partition_table(tmp_path: Path) -> None:
    table = (
        Partition(Partition.FAT16_LBA, 2048, 40960, bootable=True),
        Partition(Partition.LINUX, 43008, 20480),
    )
    part = tmp_path / "part"
    part.write_bytes(b"A" * 4096)
    os.truncate(part, MIB)
    disk = tmp_path / "disk"
    assemble(disk, [(43008, part)], record=boot_record(table, 0x796E6974), size=64 * MIB)
    dump = output("sfdisk", "--dump", disk)
    assert "label-id: 0x796e6974" in dump
    assert "start=        2048, size=       40960, type=e, bootable" in dump
    assert "start=       43008, size=       20480, type=83" in dump
    assert disk.stat().st_size == 64 * MIB
    assert disk.stat().st_blocks * 512 < MIB
    with disk.open("rb") as file:
        file.seek(43008 * 512)
        assert file.read(5000) == b"A" * 4096 + bytes(904)


def test_cpio_unpacks_the_archive(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    archive = pack_tree(tree)
    subprocess.run(["cpio", "-idm", "--quiet"], input=archive, cwd=out, check=True)
    assert (out / "usr/bin/tool").read_bytes() == (tree / "usr/bin/tool").read_bytes()
    assert (out / "tmp").stat().st_mode == (tree / "tmp").stat().st_mode
    assert (out / "bin").readlink() == Path("usr/bin")
    assert pack_tree(out) == archive  # neither times nor owners are in it
