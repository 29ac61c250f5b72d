"""``thinvirt advise``: as people and programs see it."""

import json
from pathlib import Path

import pytest

from thinvirt.cli.main import main


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Only what thinvirt itself knows, and a user's file."""
    for name in ("OSINFO_SYSTEM_DIR", "OSINFO_LOCAL_DIR", "OSINFO_USER_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "config" / "thinvirt" / "os.toml"
    file.parent.mkdir(parents=True)
    file.write_text(
        '[os.house-1]\nname = "House Linux 1"\nfamily = "linux"\nlike = "linux2024"\n'
        'min_memory = "512M"\nmemory = "1G"\nmedia = [{ volume_id = "^HOUSE 1" }]\n'
    )
    return file


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["advise", *words, "--json"]) == 0
    found: dict = json.loads(capsys.readouterr().out)
    return found


def test_advice_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "house-1"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "House Linux 1 (house-1)"
    assert any(line.split()[:3] == ["disk", "bus", "virtio"] for line in lines)
    assert any(line.split()[:2] == ["memory", "1024"] for line in lines)
    assert "osinfo-db is not installed" in err


def test_advice_for_programs(capsys: pytest.CaptureFixture[str], own_places: Path) -> None:
    found = facts(capsys, "house-1")
    assert found["name"] == "house-1"
    assert found["source"] == str(own_places)
    assert found["bus"]["value"] == "virtio"
    assert found["bus"]["reason"]
    assert found["minimum"]["memory_bytes"] == 512 << 20
    assert found["buses"]["virtio"]["support"] == "good"


def test_virt_installs_spelling(capsys: pytest.CaptureFixture[str]) -> None:
    assert facts(capsys, "--osinfo", "house-1") == facts(capsys, "house-1")
    assert facts(capsys, "--os-variant", "house-1") == facts(capsys, "house-1")
    assert main(["advise", "house-1", "--osinfo", "generic"]) == 2


@pytest.mark.parametrize("words", [[], ["list"], ["--list"], ["--osinfo", "list"]])
def test_the_list(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["advise", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["NAME", "SYSTEM"]
    assert {"generic", "linux2024", "house-1", "debian13"} <= {line.split()[0] for line in lines}


def test_a_part_of_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "--list", "DEBIAN*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["debian12", "debian13"]
    assert rows[1]["aliases"] == ["debiantrixie"]
    assert main(["advise", "--list", "hous", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["house-1"]
    assert main(["advise", "--list", "zebra*"]) == 3


def test_an_unknown_system(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", "hose-1"]) == 3
    err = capsys.readouterr().err
    assert "no operating system 'hose-1' is known" in err
    assert "did you mean house-1" in err


def test_a_disc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    iso = tmp_path / "house.iso"
    descriptor = bytearray(2048)
    descriptor[0:7] = b"\x01CD001\x01"
    descriptor[40:72] = b"HOUSE 1.2".ljust(32)
    iso.write_bytes(bytes(16 * 2048) + descriptor)
    found = facts(capsys, "--media", str(iso))
    assert (found["name"], found["media"]["volume_id"]) == ("house-1", "HOUSE 1.2")
    assert main(["advise", "--media", str(iso), "debian13"]) == 0
    assert "looks like a disc of house-1, not of debian13" in capsys.readouterr().err
    assert main(["advise", "--media", str(iso), "--list"]) == 2
    assert main(["advise", "--media", str(tmp_path / "none.iso")]) == 3
    assert main(["advise", "--media", str(tmp_path)]) == 1
