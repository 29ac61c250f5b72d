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


def test_checks_are_made_and_left_out(
    home: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--import", "--no-start", "--osinfo", "none", "--network"]
    mac = "user,mac=52:54:00:12:34:56"
    assert main(["install", "--name", "a", "--disk", str(image), *common, mac]) == 0
    assert "the same with virt-install: virt-install --name a" in capsys.readouterr().err
    two = ["install", "--name", "b", "--disk", "size=1M", *common]
    assert main([*two, mac.upper().replace("USER,MAC", "user,mac")]) == 4
    assert "already in use by VM 'a'" in capsys.readouterr().err
    assert main([*two, mac, "--check", "mac_in_use=off"]) == 0
    three = ["install", "--name", "c", *common, "user", "--disk"]
    assert main([*three, "size=512T,format=raw,sparse=no"]) == 75
    assert "does not fit" in capsys.readouterr().err
    assert main([*three, f"{image},backing_store={image}"]) == 4
    assert "is there already" in capsys.readouterr().err
    assert main([*three, "size=512T", "--dry-run"]) == 0
    assert "may grow beyond" in capsys.readouterr().err


def test_lists_are_printed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install", "--check", "?"]) == 0
    assert "path_in_use" in capsys.readouterr().out
    assert main(["install", "--osinfo", "list"]) == 0
    assert "generic" in capsys.readouterr().out


def test_an_installers_kernel_lies_beside_its_disk(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is shown in equivalents by its whole path, and goes with the VM."""
    (tmp_path / "cd" / "casper").mkdir(parents=True)
    for name in ("vmlinuz", "initrd"):
        (tmp_path / "cd" / "casper" / name).write_text(name)
    iso = tmp_path / "cd.iso"
    subprocess.run(["genisoimage", "-quiet", "-R", "-o", iso, tmp_path / "cd"], check=True)
    words = ["install", "--name", "box", "--location", str(iso), "-x", "a", "-x", "b"]
    words += ["--disk", "size=1M", "--osinfo", "none", "--network", "none"]
    assert main([*words, "--print-xml"]) == 0
    out, err = capsys.readouterr()
    assert out.count("<domain") == 2
    assert out.count("<cmdline>a b</cmdline>") == 1
    assert f"isoinfo -R -i {iso} -x /casper/vmlinuz > box.install-kernel" in err
    assert main([*words, "--print-xml", "2"]) == 0
    assert "<kernel>" not in capsys.readouterr().out
    assert main([*words, "--dry-run"]) == 0
    assert f"installed from {iso}" in capsys.readouterr().out
    assert main([*words, "--no-start", "-q"]) == 0
    (folder,) = (home / "disks").iterdir()
    assert (folder / "box.install-kernel").read_text() == "vmlinuz"
    assert main(["show", "box", "--as", "qemu", "--one-line"]) == 0
    assert f"-kernel {folder}/box.install-kernel" in capsys.readouterr().out
    assert main(["rm", "box"]) == 0
    assert list((home / "disks").iterdir()) == []


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
        (["--import", "--pxe", "--disk", "none"], 2, "--import and --pxe exclude each other"),
        (["--pxe", "--nodisks", "--disk", "size=1"], 2, "--nodisks and --disk exclude"),
        (["--pxe", "--nodisks", "--nonetworks", "--network", "user"], 2, "--nonetworks and"),
        (["--pxe", "--nodisks", "--nographics", "--graphics", "vnc"], 2, "--nographics and"),
        (["--pxe", "--nodisks", "--extra-args", "x"], 2, "--extra-args go with a kernel"),
        (["--install", "bootdev=hd", "-x", "x", "--nodisks"], 2, "--extra-args go with a kernel"),
        (["--install", "kernel=/nope", "--nodisks"], 3, "installer's kernel '/nope' is not there"),
        (["--pxe", "--nodisks", "--nonetworks"], 2, "from the network, and has no card"),
        (["--install", "bootdev=cdrom", "--nodisks"], 2, "from a CD-ROM drive, and has none"),
        (["--pxe", "--nodisks", "--wait", "nan"], 2, "--wait nan is no number of minutes"),
        (["--pxe", "--nodisks", "--wait", "-2"], 2, "--wait -2 is no number of minutes"),
        (["--cdrom", "/nope.iso", "--nodisks"], 3, "/nope.iso"),
        (["-c", "qemu:///system", "--nodisks"], 2, "is a libvirt URI"),
        (["--cdrom", "https://x/y.iso", "--nodisks"], 2, "is a URL"),
        (["--location", "https://x/y", "--nodisks"], 2, "read from this host"),
        (["--pxe", "--nodisks", "--autoconsole", "text"], 2, "no console is opened by itself"),
        (["--pxe", "--nodisks", "--autoconsole", "bad"], 2, "no such kind of console"),
        (["--pxe", "--nodisks", "--osinfo", "require=on"], 2, "not to be seen"),
        (["--pxe", "--nodisks", "--print-xml", "7"], 2, "invalid choice: '7'"),
        (["--boot", "hd", "--nodisks", "--print-xml", "2"], 4, "has no second phase"),
        (["--pxe", "--nodisks", "--machine", "foobar"], 2, "invalid choice: 'foobar'"),
        (["--pxe", "--nodisks", "--arch", "mips"], 2, "invalid choice: 'mips'"),
        (["--pxe", "--nodisks", "--memory", "1", "--memory", "2"], 2, "--memory is given twice"),
        (["--pxe", "--pxe", "--nodisks", "--osinfo", "a", "--osinfo", "b"], 2, "given twice"),
        (["--pxe", "--nodisks", "foobar"], 2, "unrecognized arguments: foobar"),
        (["--pxe", "--nodisks", "--grahpics", "vnc"], 2, "did you mean --graphics?"),
        (["--connect", "qemu:///system"], 2, "--connect is known to virt-install and not here"),
        (["--transient"], 2, "thinvirt run gives disposable VMs"),
        (["--pxe", "--nodisks", "--sound", "ac97"], 2, "only none"),
        (["--pxe", "--nodisks", "--network", "user,mac=53:54:00:00:00:01"], 2, "multicast"),
    ],
)
def test_what_cannot_be_is_refused(
    home: Path, words: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install", "--name", "x", *words]) == status
    assert told in capsys.readouterr().err
