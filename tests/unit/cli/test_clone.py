"""``thinvirt clone`` with virt-install's options: what they ask for, and what they make."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from thinvirt.cli.main import main
from thinvirt.store import open_store

UEFI = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.write(os.urandom(65536))
        file.truncate(1 << 20)
    return path


@pytest.fixture
def base(home: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["template", "import", str(image), "--name", "base", "--quiet"]) == 0
    capsys.readouterr()
    return home


def spec_of(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["show", name, "--json"]) == 0
    spec: dict[str, Any] = json.loads(capsys.readouterr().out)["spec"]
    return spec


def test_every_option_reaches_the_specification(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"kernel")
    meta = tmp_path / "meta.json"
    meta.write_text('{"role": "db"}')
    words = ["clone", "base", "web", "-q", "--vcpus", "4,cores=2", "--cpu", "max"]
    words += ["--disk", "bus=scsi,cache=none,size=2M", "--disk", "size=1M,serial=DATA,iothread=on"]
    words += ["--disk", "device=cdrom", "--network", "lan=lab", "--network", "user,model=e1000"]
    words += ["--graphics", "spice,port=5999", "--video", "qxl", "--tpm", "emulator"]
    words += ["--boot", f"kernel={kernel},kernel_args=a=b,,c", "--osinfo", "debian12"]
    assert main([*words, "--cloud-init", f"meta-data={meta}"]) == 0
    assert spec_of("web", capsys) == {
        "os": "debian12",
        "vcpus": 4,
        "topology": {"sockets": 2, "cores": 2},
        "cpu": "max",
        "boot": {"kernel": str(kernel), "kernel_args": "a=b,c"},
        "disks": [
            {"bus": "scsi", "cache": "none"},
            {"size": 1 << 20, "format": "qcow2", "serial": "DATA", "iothread": True},
            {"device": "cdrom"},
        ],
        "networks": [{"kind": "lan", "name": "lab"}, {"kind": "user", "model": "e1000"}],
        "graphics": {"kind": "spice", "port": 5999},
        "video": "qxl",
        "seed": {"meta_data": '{"role": "db"}'},
        "tpm": "tpm-crb",
    }


def test_every_clone_gets_disks_of_its_own_and_they_go_with_it(
    base: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    further = ["--disk", "cache=none", "--disk", "size=2M,format=raw"]
    further += ["--disk", f"backing_store={image}", "--disk", f"{image},readonly=yes"]
    assert main(["clone", "base", "web", "--count", "2", *further]) == 0
    (folder,) = (base / "disks").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        f"web-00{n}{kind}.qcow2" for n in (1, 2) for kind in ("", ".disk1", ".disk2")
    }
    out = subprocess.check_output(
        ["qemu-img", "info", "--output=json", folder / "web-002.disk2.qcow2"]
    )
    assert json.loads(out)["full-backing-filename"] == str(image)
    assert (folder / "web-001.disk1.qcow2").stat().st_size == 2 << 20
    assert main(["rm", "web-001"]) == 0
    assert len(list(folder.iterdir())) == 3
    assert main(["rm", "web-002"]) == 0
    assert not folder.exists()
    assert image.exists()


def test_a_clone_that_cannot_be_made_whole_is_not_made(base: Path) -> None:
    words = ["clone", "base", "web", "--count", "3", "--disk", "bus=virtio", "--disk"]
    assert main([*words, "size=8E,format=raw"]) != 0
    assert open_store(base).catalog.vm_count() == 0
    assert list((base / "disks").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--bus", "scsi", "--disk", "bus=scsi"], "--bus and --disk bus= say the same"),
        (["--cache", "none", "--disk", "cache=none"], "--cache and --disk cache="),
        (["--size", "2M", "--disk", "size=2M"], "--size and --disk size="),
        (["--vnc", "off", "--graphics", "none"], "--graphics and --vnc both"),
        (["--disk", "/dev/sda"], "path does not go with a clone's first disk"),
        (["--disk", "device=cdrom"], "device=cdrom does not go"),
        (["--disk", "format=raw"], "format=raw does not go"),
        (["--disk", "none"], "a clone has a disk"),
        (["--disk", "bus=scsi", "--disk", "cashe=none"], "Unknown --disk options: ['cashe']"),
        (["--disk", "bus=scsi", "--disk", "bus=scsi"], "neither a file nor a size"),
        (["--disk", "bus=scsi", "--disk", "/nope"], "disk '/nope' is not there"),
        (["--tpm", "passthrough"], "type=passthrough is not possible"),
        (["--vcpus", "2", "--vcpus", "3"], "--vcpus is given twice"),
        (["--vcpus", "0"], "vcpus=0 is not possible"),
        (["--osinfo", "debian99"], "debian99"),
        (["--boot", "kernel=/nope"], "kernel '/nope' is not there"),
        (["--cloud-init", "user-data=/nope"], "there is no file '/nope'"),
        (["--network", "lan=a b"], "'a b' cannot name a LAN"),
        (["--network", "user,bridge=br0"], "contradict each other"),
    ],
)
def test_what_cannot_be_is_told_by_name(
    base: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["clone", "base", "web", *words]) in (2, 3)
    assert told in capsys.readouterr().err
    assert open_store(base).catalog.vm_count() == 0


def test_one_file_is_not_given_to_many(
    base: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["clone", "base", "web", "--disk", "cache=none", "--disk"]
    assert main([*words, f"{image},format=raw", "--count", "2"]) == 4
    assert "all would write to it" in capsys.readouterr().err
    assert main([*words, f"{image},format=raw"]) == 0
    assert main(["clone", "base", "two", *words[3:], f"{image},format=raw"]) == 4
    assert "in use by VM 'web'" in capsys.readouterr().err


def test_its_equivalents_have_the_further_disks(
    base: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["clone", "base", "web", "--disk", "bus=scsi", "--disk", "size=2M,format=raw"]
    words += ["--disk", f"backing_store={image},bus=virtio", "--disk", "device=cdrom", "--one-line"]
    assert main([*words, "--print-command", "qemu-img"]) == 0
    commands = capsys.readouterr().out.splitlines()
    assert [
        next(Path(word).name for word in line.split() if Path(word).name.startswith("web"))
        for line in commands
    ] == ["web.qcow2", "web.disk1.qcow2", "web.disk2.qcow2"]
    assert f"-b {image} -F raw" in commands[2]
    assert main([*words, "--print-command", "virt-install"]) == 0
    command = capsys.readouterr().out
    assert command.count("--disk ") == 5, "with the empty drive and the seed"
    assert main([*words, "--print-command", "qemu"]) == 0
    nodes = [json.loads(w) for w in shlex.split(capsys.readouterr().out) if w.startswith("{")]
    assert [node["driver"] for node in nodes] == ["qcow2", "raw", "qcow2", "raw"]  # and the seed
    assert nodes[2]["backing"]["file"]["filename"] == str(image)


@pytest.mark.parametrize("option", ["disk", "network", "graphics", "boot", "tpm", "vcpus"])
def test_a_question_mark_lists_the_keys(capsys: pytest.CaptureFixture[str], option: str) -> None:
    """Before anything else is asked for."""
    assert main(["clone", f"--{option}", "?"]) == 0
    assert capsys.readouterr().out.startswith(f"--{option} options:")


def test_a_template_says_how_its_guest_is_attached(
    home: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Windows has no virtio drivers of its own; what was asked for counts more, with a warning."""
    words = ["template", "import", str(image), "--name", "win", "-q", "--osinfo", "win10"]
    assert main(words) == 0
    assert main(["clone", "win", "a", "-q"]) == 0
    spec = spec_of("a", capsys)
    assert spec["os"] == "win10"
    assert spec["disks"] == [{"bus": "sata"}]
    assert spec["networks"][0]["model"].startswith("e1000")
    assert main(["clone", "win", "b", "--bus", "virtio", "--dry-run"]) == 0
    assert "virtio" in capsys.readouterr().err


def test_a_screen_open_to_all_is_told_before(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for listen, told in (("0.0.0.0", "without a password"), ("0.0.0.0,password=x", "8 char")):
        assert (
            main(["clone", "base", "web", "--graphics", f"vnc,listen={listen}", "--dry-run"]) == 0
        )
        assert told in capsys.readouterr().err
    assert main(["clone", "base", "web", "--dry-run"]) == 0
    assert "VNC" not in capsys.readouterr().err


def test_a_bridge_that_is_not_there_yet_is_told(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clone", "base", "web", "--network", "bridge=br-nope"]) == 0
    assert "there is no bridge 'br-nope'" in capsys.readouterr().err
    assert spec_of("web", capsys)["networks"] == [{"kind": "bridge", "name": "br-nope"}]


@pytest.mark.skipif(not UEFI.exists(), reason="there is no UEFI firmware here")
def test_templates_remember_uefi(
    home: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every clone has variables of its own; what was promoted from one starts by UEFI too."""
    words = ["template", "import", str(image), "--name", "efi", "-q", "--firmware", "uefi"]
    assert main(words) == 0
    assert main(["clone", "efi", "web", "--count", "2", "-q"]) == 0
    (folder,) = (home / "disks").iterdir()
    assert len(list(folder.glob("*.vars.fd"))) == 2
    assert spec_of("web-001", capsys)["firmware"] == "efi"
    assert main(["template", "promote", "web-001", "--name", "next"]) == 0
    assert main(["clone", "next", "more", "-q"]) == 0
    assert spec_of("more", capsys)["firmware"] == "efi"
    assert main(["clone", "next", "old", "--boot", "firmware=bios"]) == 0
    assert "has no boot loader for BIOS" in capsys.readouterr().err


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_a_vm_that_is_no_clone_becomes_a_template_too(
    home: Path, image: Path, tmp_path: Path, image_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was installed once is cloned from then on; its own disk stays."""
    disk = tmp_path / "own.img"
    subprocess.run(["qemu-img", "convert", "-O", image_format, image, disk], check=True)
    words = ["install", "--name", "box", "--import", "--disk", str(disk), "--osinfo", "win10"]
    assert main([*words, "--noreboot", "-q"]) == 0
    before = disk.read_bytes()
    assert main(["template", "promote", "box", "--name", "win"]) == 0
    assert disk.read_bytes() == before
    assert main(["clone", "win", "a", "-q"]) == 0
    assert spec_of("a", capsys)["os"] == "win10"
    backing = open_store(home).catalog.find_template("win")
    copy = home / "templates" / backing.file_name
    out = subprocess.run(["qemu-img", "compare", copy, image, "-F", "raw"], check=True)
    assert out.returncode == 0
