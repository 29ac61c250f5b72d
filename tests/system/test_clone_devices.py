"""One clone with one of everything, by UEFI and a kernel of its own, seen from inside its guest."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mini_guest import thinvirt
from tests.sector_guest import kill_all

from thinvirt.build.tiny import fetch
from thinvirt.run.process import holder_of
from thinvirt.service.builds import package_cache

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

_BOOT_PARTITION = 1 << 20  # where it begins in the guest's disk, in bytes

# One line a drive: its name, sectors, write cache, whether it is read-only, and its address.
QUESTIONS = r"""
for disk in /sys/block/sd* /sys/block/sr* /sys/block/vd*; do
  echo "${disk##*/} $(cat $disk/size) $(cat $disk/queue/write_cache | tr ' ' -)" \
       "$(cat $disk/ro) $(readlink -f $disk/device)"
done
echo "serial $(cat /sys/block/vda/serial)"
echo "cpus $(nproc)"
echo "efi $(ls -d /sys/firmware/efi)"
echo "tpm $(ls /sys/class/tpm)"
echo "words $(cat /proc/cmdline)"
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_image: Path) -> Iterator[Path]:
    """Return a folder with a kernel that UEFI starts, its initial RAM disk, a raw disk, a disc."""
    kernel = fetch(package_cache())[-1].path
    files = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", kernel], stdout=subprocess.PIPE)
    with files, (tmp_path / "vmlinuz").open("wb") as file:
        unpack = ["tar", "-xO", "--wildcards", "./boot/vmlinuz-*"]
        subprocess.run(unpack, stdin=files.stdout, stdout=file, check=True)
    raw = tmp_path / "tiny.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", tiny_image, raw], check=True)
    partition = f"{raw}@@{_BOOT_PARTITION}"
    subprocess.run(["mcopy", "-n", "-i", partition, "::initrd", tmp_path / "initrd"], check=True)
    raw.unlink()
    with (tmp_path / "shared.raw").open("wb") as file:
        file.truncate(8 << 20)
    (tmp_path / "readme").write_text("on a disc\n")
    subprocess.run(
        ["genisoimage", "-quiet", "-o", tmp_path / "cd.iso", tmp_path / "readme"], check=True
    )
    yield tmp_path
    kill_all(tmp_path / "store" / "run")


def ok(home: Path, *words: str) -> str:
    done = thinvirt(home, *words)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.skipif(shutil.which("swtpm") is None, reason="swtpm is not installed")
@pytest.mark.skipif(not Path("/usr/share/OVMF").is_dir(), reason="there is no UEFI here")
def test_one_of_everything(folder: Path) -> None:
    home = folder / "store"
    ok(home, "template", "build", "tiny", "--quiet")
    boot = f"uefi,kernel={folder}/vmlinuz,initrd={folder}/initrd"
    words = "console=ttyS0 quiet no_timer_check"
    disks = (
        "bus=scsi,cache=writethrough,io=threads,iothread=on",
        "size=64M,bus=virtio,serial=DATA-1,iothread=on,detect_zeroes=unmap",
        "size=8M,bus=sata,cache=unsafe",
        f"{folder}/shared.raw,format=raw,shareable=yes,bus=scsi,readonly=yes",
        f"{folder}/cd.iso,device=cdrom",
        "size=8M,bus=usb",
    )
    ok(
        home, "clone", "tiny", "web", "-q", "--vcpus", "2,cores=2", "--memory", "256",
        "--boot", f"{boot},kernel_args={words}", "--tpm", "emulator", "--video", "qxl",
        "--graphics", "spice,password=sesame", "--start", "--wait",
        *(word for disk in disks for word in ("--disk", disk)),
    )  # fmt: skip
    (row,) = json.loads(ok(home, "ls", "--json"))
    assert row["spice"].startswith("127.0.0.1:")
    assert "sesame" not in ok(home, "show", "web") + ok(home, "show", "web", "--json")
    seen = dict(line.split(" ", 1) for line in ok(home, "ssh", "web", QUESTIONS).splitlines())
    drives = {name: facts.split() for name, facts in seen.items() if name[-1] in "abcd01"}
    if drives["sda"][2] == "1":  # the guest names its SCSI disks in the order it finds them
        drives |= {"sda": drives["sdb"], "sdb": drives["sda"]}
    assert {name: facts[:3] for name, facts in drives.items()} == {
        "sda": [str((1 << 30) // 512), "write-through", "0"],
        "sdb": [str((8 << 20) // 512), "write-through", "1"],  # nothing to be written back
        "sdc": [str((8 << 20) // 512), "write-back", "0"],
        "sr0": [drives["sr0"][0], drives["sr0"][1], "1"],  # the seed, where the first disk is
        "sr1": [drives["sr1"][0], drives["sr1"][1], "1"],
        "vda": [str((64 << 20) // 512), "write-back", "0"],
    }
    controllers = {name: facts[3].split("/")[-4:-2] for name, facts in drives.items()}
    assert controllers["sda"] == controllers["sdb"] == controllers["sr0"]
    assert "/ata" in drives["sdc"][3]
    assert "/ata" in drives["sr1"][3]
    assert (seen["serial"], seen["cpus"], seen["tpm"]) == ("DATA-1", "2", "tpm0")
    assert seen["efi"] == "/sys/firmware/efi"
    assert seen["words"].startswith(words)
    (state,) = (home / "disks").glob("*/web.tpm")
    ok(home, "stop", "web")
    assert holder_of(state) is None
    ok(home, "rm", "web")
    assert list((home / "disks").iterdir()) == []
    assert (folder / "shared.raw").exists()
