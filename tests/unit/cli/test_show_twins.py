"""``show --as`` of VMs that were installed or imported, and what is not shown."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from thinvirt.cli.main import main


@pytest.fixture
def vm(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THINVIRT_ACCEL", "tcg")
    (tmp_path / "user-data").write_text("#cloud-config\nusers: []\n")
    words = ["install", "--name", "box", "--boot", "hd", "--no-start", "-q"]
    words += ["--disk", "size=1M", "--graphics", "vnc,port=5907,password=s3cret"]
    words += ["--cloud-init", "user-data=user-data"]
    assert main(words) == 0
    return "box"


def shown(form: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["show", "box", "--as", form, "--one-line"]) == 0
    output = capsys.readouterr()
    return output.out, output.err


def test_passwords_are_where_they_are_needed(vm: str, capsys: pytest.CaptureFixture[str]) -> None:
    """QEMU's command line is seen by everybody on the host: it names a file."""
    assert "s3cret" in shown("virt-install", capsys)[0]
    assert "s3cret" in shown("xml", capsys)[0]
    qemu, needs = shown("qemu", capsys)
    assert "s3cret" not in qemu + needs
    assert "box-password" in qemu
    assert "box-password holds the password" in needs
    assert main(["show", "box"]) == 0
    assert "s3cret" not in capsys.readouterr().out


def test_commands_for_disks_of_the_store(
    vm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = shlex.split(shown("qemu-img", capsys)[0])
    subprocess.run(command, check=True)
    info = subprocess.check_output(
        ["qemu-img", "info", "--output=json", tmp_path / "box.qcow2"], text=True
    )
    assert json.loads(info)["virtual-size"] == 1 << 20


def test_what_a_command_needs_is_told(
    vm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, needs = shown("thinvirt", capsys)
    assert "--cloud-init user-data=box-user-data" in command
    assert "thinvirt show box --json | jq -r .spec.seed.user_data > box-user-data" in needs
    assert "its disks are made anew" in needs
    assert "thinvirt show box --seed" in shown("xml", capsys)[1]
