import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from thinvirt.errors import ProgramMissing, UsageError
from thinvirt.run import accel
from thinvirt.run.accel import Acceleration
from thinvirt.vm.qemu import PROGRAM

needs_qemu = pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="QEMU is not installed")


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """Something that can be opened like /dev/kvm."""
    path = tmp_path / "kvm"
    path.touch()
    return path


def fake_qemu(folder: Path, *, kvm: str, tcg: str = "exit 67") -> str:
    """A program in QEMU's place: a host's KVM cannot be broken to order."""
    path = folder / "qemu"
    path.write_text(f'#!/bin/sh\ncase "$*" in *"-accel kvm"*) {kvm};; *) {tcg};; esac\n')
    path.chmod(0o755)
    return str(path)


def test_the_sum_is_that_of_the_loop() -> None:
    value = 1
    for _ in range(accel.ROUNDS):
        value = (value * 1664525 + 1013904223) & 0xFFFFFFFF
    assert accel.expected_sum() == value


def test_the_image_is_a_firmware() -> None:
    image = accel.probe_firmware()
    assert len(image) == 65536
    assert image[0xFFF0:0xFFF5] == b"\xea\x00\x00\x00\xf0"  # the reset vector jumps to its start
    assert image[0x98:0xA8] == bytes(8) + (0x0020_9A00_0000_0000).to_bytes(8, "little")


@needs_qemu
def test_emulation_passes_the_test() -> None:
    outcome, seconds = accel.run_probe(PROGRAM, "tcg", 60.0)
    assert outcome == ""
    assert seconds > 0


def test_fast_kvm_is_taken(tmp_path: Path, device: Path) -> None:
    found, settled = accel.probe(fake_qemu(tmp_path, kvm="exit 67"), device)
    assert (found.name, settled) == ("kvm", True)


def test_slow_kvm_is_not(tmp_path: Path, device: Path) -> None:
    found, settled = accel.probe(fake_qemu(tmp_path, kvm="exec sleep 30"), device)
    assert (found.name, settled) == ("tcg", True)
    assert "times slower than emulation" in found.reason


def test_wrong_arithmetic_is_not_taken(tmp_path: Path, device: Path) -> None:
    found, _ = accel.probe(fake_qemu(tmp_path, kvm="exit 3"), device)
    assert found.name == "tcg"
    assert "status 3" in found.reason


def test_what_qemu_says_is_told(tmp_path: Path, device: Path) -> None:
    found, _ = accel.probe(fake_qemu(tmp_path, kvm="echo no entry >&2; exit 1"), device)
    assert found == Acceleration("tcg", f"{device} is there but QEMU cannot use it: no entry")


def test_a_host_too_busy_to_tell_is_asked_again(tmp_path: Path, device: Path) -> None:
    program = fake_qemu(tmp_path, kvm="exec sleep 30", tcg="exec sleep 30")
    found, settled = accel.probe(program, device)
    assert (found.name, settled) == ("tcg", False)


def test_no_device(tmp_path: Path) -> None:
    assert "there is no" in accel.kvm_obstacle(tmp_path / "kvm")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_no_permission(device: Path) -> None:
    device.chmod(stat.S_IRUSR)
    assert "no permission" in accel.kvm_obstacle(device)


def test_the_answer_is_kept_until_qemu_changes(
    tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "KVM_DEVICE", device)
    monkeypatch.delenv(accel.OVERRIDE, raising=False)
    program, cache, said = fake_qemu(tmp_path, kvm="exit 67"), tmp_path / "cache", list[str]()

    def choose() -> Acceleration:
        return accel.choose(program, cache_dir=cache, say=said.append)

    first = choose()
    kept = cache / accel.CACHE_FILE
    facts = json.loads(kept.read_text())
    facts["found"]["reason"] = "kept"
    kept.write_text(json.dumps(facts))
    assert choose().reason == "kept"
    kept.write_text("{ no JSON")
    assert choose().name == first.name
    kept.write_text(json.dumps(facts))
    os.utime(program, ns=(0, 0))
    assert choose().reason != "kept"
    assert len(said) == 3, "told when found anew, and only then"


def test_the_override_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(accel.OVERRIDE, "tcg")
    assert accel.choose("no-qemu", cache_dir=tmp_path).name == "tcg"
    monkeypatch.setenv(accel.OVERRIDE, "xen")
    with pytest.raises(UsageError, match="xen"):
        accel.choose("no-qemu", cache_dir=tmp_path)


def test_no_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(accel.OVERRIDE, raising=False)
    with pytest.raises(ProgramMissing, match="not installed"):
        accel.choose(str(tmp_path / "qemu"), cache_dir=tmp_path)
