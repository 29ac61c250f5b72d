"""``thinvirt install``: virt-install's options, and what they make."""

import json
import subprocess
from pathlib import Path

import pytest

from thinvirt.cli.main import main
from thinvirt.store import open_store


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cirros.img"
    subprocess.run(["qemu-img", "create", "-qf", "qcow2", path, "16M"], check=True)
    return path


def test_an_image_is_imported_in_place(
    home: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its format is found by content and recorded; the file stays where it is, and stays."""
    words = ["install", "--name", "web", "--import", "--disk", str(image), "--noreboot"]
    assert main([*words, "--osinfo", "cirros0.5.2", "--network", "user", "--json"]) == 0
    vm = json.loads(capsys.readouterr().out)
    assert (vm["disk"], vm["template"], vm["state"]) == (str(image), "", "stopped")
    assert vm["spec"]["disks"] == [{"source": str(image), "format": "qcow2", "bus": "virtio"}]
    assert vm["spec"]["machine"] == "pc"  # osinfo-db: CirrOS knows no q35
    assert main(["install", "--name", "two", "--import", "--disk", str(image)]) == 4
    assert "already in use by VM 'web'" in capsys.readouterr().err
    assert main(["rm", "web"]) == 0
    assert image.exists()


def test_disks_are_made_and_go_with_the_vm(
    home: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["install", "--name", "box", "--boot", "hd", "--noreboot", "-q"]
    words += ["--disk", "size=1M", "--disk", f"backing_store={image},bus=sata"]
    words += ["--disk", f"{tmp_path}/data.raw,size=2M,format=raw", "--disk", "device=cdrom"]
    assert main(words) == 0
    (folder,) = (home / "disks").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["box.disk1.qcow2", "box.qcow2"]
    info = json.loads(
        subprocess.check_output(["qemu-img", "info", "--output=json", folder / "box.disk1.qcow2"])
    )
    assert info["full-backing-filename"] == str(image)
    assert (tmp_path / "data.raw").stat().st_size == 2 << 20
    assert main(["rm", "box"]) == 0
    assert list((home / "disks").iterdir()) == []
    assert (tmp_path / "data.raw").exists()


def test_a_failure_leaves_nothing(home: Path, tmp_path: Path) -> None:
    words = ["install", "--name", "box", "--boot", "hd", "--noreboot"]
    words += ["--disk", f"{tmp_path}/a.raw,size=1M,format=raw"]
    assert main([*words, "--disk", f"{tmp_path}/b.raw,size=8E,format=raw"]) != 0
    assert not list(tmp_path.glob("*.raw"))
    assert open_store(home).catalog.vm_count() == 0


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ([], 2, "nothing says how the VM comes to its system"),
        (["--import"], 2, "--import needs a disk"),
        (["--cdrom", "/x.iso"], 2, "no disk to install to"),
        (["--import", "--cdrom", "/x.iso", "--disk", "size=1"], 2, "exclude each other"),
        (["--import", "--disk", "/nope"], 3, "disk '/nope' is not there"),
        (["--import", "--disk", "/nope/x,size=1"], 3, "there is no folder '/nope'"),
        (["--import", "--disk", "/dev/null"], 2, "neither a file nor a block device"),
        (["--boot", "hd", "--disk", "none", "--disk", "size=1"], 2, "no other disk"),
        (["--boot", "hd", "--disk", "size=1", "--memory", "lots"], 2, "memory size"),
        (["--boot", "hd", "--disk", "size=1", "--vcpus", "0"], 2, "vcpus=0"),
        (["--boot", "hd", "--disk", "size=1", "--osinfo", "debain12"], 3, "debian12"),
        (["--boot", "hd", "--disk", "size=1,bus=ide", "--machine", "q35"], 2, "no IDE bus"),
        (["--boot", "hd", "--disk", "size=1", "--check", "foo=off"], 2, "--check: 'foo=off'"),
    ],
)
def test_what_cannot_be_is_refused(
    home: Path, words: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "--name", "x", *words]) == status
    assert told in capsys.readouterr().err
