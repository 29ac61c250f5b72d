"""The commands on templates, clones and usage, as a program sees them."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from thinvirt.cli.df import bar
from thinvirt.cli.main import main
from thinvirt.cli.vm_options import TWIN_FORMS
from thinvirt.service.twins import FORMS


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.img"
    with path.open("wb") as file:
        file.write(os.urandom(65536))
        file.truncate(1 << 20)
    return path


@pytest.fixture
def tiny(home: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["template", "import", str(image), "--quiet"]) == 0
    capsys.readouterr()
    return home


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict]:
    assert main([*words, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    return value if isinstance(value, list) else [value]


def test_an_empty_host_lists_nothing_and_makes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert facts(capsys, "ls") == []
    assert facts(capsys, "template", "ls") == []
    assert [row["name"] for row in facts(capsys, "df")] == ["total"]
    assert main(["clone", "tiny", "web"]) == 3
    assert "template build tiny" in capsys.readouterr().err
    assert not home.exists()


def test_clone_list_show_remove(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = facts(capsys, "clone", "tiny", "web", "--count", "3", "--size", "2M")
    assert [vm["name"] for vm in made] == ["web-001", "web-002", "web-003"]
    assert len({vm["uuid"] for vm in made} | {vm["mac"] for vm in made}) == 6
    rows = facts(capsys, "ls", "web-*", "--template", "tiny")
    assert [(r["name"], r["state"], r["disk_bytes"]) for r in rows] == [
        (f"web-00{n}", "stopped", 12288) for n in (1, 2, 3)
    ]
    assert facts(capsys, "ls", "--running") == []
    (shown,) = facts(capsys, "show", "web-002")
    assert shown["uuid"] == made[1]["uuid"]
    assert (shown["backing_state"], shown["virtual_size"]) == ("ok", 2 << 20)
    assert main(["show", "web-002"]) == 0
    assert "backing state:   ok" in capsys.readouterr().out
    assert [r["name"] for r in facts(capsys, "rm", "web-00[12]")] == ["web-001", "web-002"]
    assert main(["show", "web-002"]) == 3
    assert "did you mean web-003" in capsys.readouterr().err


def test_a_dry_run_and_a_printed_command_make_nothing(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clone", "tiny", "web", "--count", "100", "--dry-run"]) == 0
    assert "would make 100 linked clones of tiny@1" in capsys.readouterr().out
    assert main(["clone", "tiny", "web", "--count", "2", "--print-command", "qemu-img"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert facts(capsys, "ls") == []


@pytest.mark.oracle
@pytest.mark.parametrize("plain", [[], ["--plain-l2"]])
def test_the_twin_makes_the_same_disk(
    tiny: Path, plain: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts(capsys, "clone", "tiny", "web", *plain)
    (shown,) = facts(capsys, "show", "web")
    disk = Path(shown["disk"])

    def info() -> dict:
        raw = subprocess.check_output(["qemu-img", "info", "--output=json", disk])
        told = json.loads(raw)
        return {k: v for k, v in told.items() if k not in ("actual-size", "dirty-flag")}

    ours = info()
    assert main(["show", "web", "--as", "qemu-img"]) == 0
    twin = capsys.readouterr().out
    disk.unlink()
    subprocess.run(["sh", "-c", twin], check=True)
    assert info() == ours


def test_usage_counts_both_sides_with_the_template(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clone", "tiny", "web", "--count", "10"]) == 0
    capsys.readouterr()
    used, whole = facts(capsys, "df")
    assert used["clones"] == 10
    assert used["clones_bytes"] == 10 * 12288
    assert used["full_copies_bytes"] == 11 * used["template_bytes"]
    assert used["saved_bytes"] == 10 * (used["template_bytes"] - 12288)
    assert whole == used | {"name": "total"}
    assert main(["df"]) == 0
    assert "times as much" in capsys.readouterr().out


def test_bars() -> None:
    assert bar(1.0, blocks=True, width=4) == "████"
    assert bar(0.0, blocks=True, width=4) == "░░░░"
    assert bar(0.0001, blocks=True, width=4) == "▏░░░"
    assert bar(0.5, blocks=False, width=4) == "##.."


def test_verify_tells_a_changed_template_by_its_status(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["template", "verify", "--quiet"]) == 0
    (path,) = (tiny / "templates").iterdir()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"changed")
    assert main(["template", "verify", "tiny", "--quiet"]) == 6
    assert "SHA-256 differs" in capsys.readouterr().out
    assert main(["clone", "tiny", "web"]) == 6
    assert "thinvirt template verify tiny@1" in capsys.readouterr().err


def as_nobody(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    setpriv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return subprocess.run(
        [*setpriv, sys.executable, "-m", "thinvirt", *words],
        env=os.environ | {"THINVIRT_HOME": str(home), "HOME": "/nonexistent"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def open_to_all(path: Path) -> None:
    while path != path.parent and path.stat().st_mode & 0o005 != 0o005:
        path.chmod(path.stat().st_mode | 0o055)
        path = path.parent


def test_somebody_elses_store_is_told_whose_it_is(tiny: Path) -> None:
    open_to_all(tiny.parent)
    refused = as_nobody(tiny, "ls")
    assert refused.returncode == 74
    assert "belongs to root, and this is nobody" in refused.stderr
    assert "THINVIRT_HOME" in refused.stderr


def test_a_store_that_can_only_be_read(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Readable for us but not writable: listings work, changes say why not."""
    assert main(["clone", "tiny", "web", "--count", "2"]) == 0
    for path in [tiny, *tiny.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    open_to_all(tiny.parent)
    listed = as_nobody(tiny, "ls", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [vm["name"] for vm in json.loads(listed.stdout)] == ["web-001", "web-002"]
    for words in (["show", "web-001"], ["df"], ["template", "ls"]):
        assert as_nobody(tiny, *words).returncode == 0
    refused = as_nobody(tiny, "rm", "web-001")
    assert refused.returncode == 74
    assert "belongs to root" in refused.stderr


def test_as_an_ordinary_user(tmp_path: Path, image: Path) -> None:
    image.chmod(0o644)
    open_to_all(tmp_path)
    place = tmp_path / "theirs"
    place.mkdir()
    place.chmod(0o777)
    home = place / "store"
    assert as_nobody(home, "template", "import", str(image)).returncode == 0
    assert as_nobody(home, "clone", "tiny", "web", "--count", "5").returncode == 0
    assert len(json.loads(as_nobody(home, "ls", "--json").stdout)) == 5
    assert as_nobody(home, "rm", "web-*").returncode == 0
    assert home.stat().st_uid == 65534


@pytest.mark.parametrize("form", ["virt-install", "qemu"])
def test_the_twins_are_commands_that_a_shell_reads(
    tiny: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the VM is made and after; on one line and on several."""
    words = []
    for extra in ([], ["--one-line"]):
        assert main(["clone", "tiny", "a-b", "--print-command", form, *extra]) == 0
        printed = capsys.readouterr()
        assert printed.err.startswith("thinvirt: first: qemu-img create")
        words.append(shlex.split(printed.out.replace("\\\n", " ")))
    assert words[0] == words[1]
    assert facts(capsys, "ls") == []
    facts(capsys, "clone", "tiny", "a-b")
    assert main(["show", "a-b", "--as", form]) == 0
    made = shlex.split(capsys.readouterr().out.replace("\\\n", " "))
    assert made[0] == words[0][0]
    assert len(made) >= len(words[0])


def test_the_xml_twin_names_the_whole_chain(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made,) = facts(capsys, "clone", "tiny", "web", "--bus", "sata", "--cache", "none")
    assert main(["show", "web", "--as", "xml"]) == 0
    domain = ElementTree.fromstring(capsys.readouterr().out)
    assert domain.findtext("uuid") == made["uuid"]
    disk = domain.find("devices/disk")
    assert disk is not None
    assert [source.get("file") for source in disk.iter("source")] == [
        made["disk"],
        *(str(path) for path in (tiny / "templates").iterdir()),
    ]
    assert disk.find("driver[@cache='none']") is not None
    assert disk.find("target[@bus='sata']") is not None
    seed = tmp_path / "seed.iso"
    assert main(["show", "web", "--seed", str(seed)]) == 0
    assert b"cidata" in seed.read_bytes().lower()


def test_the_forms_are_declared_alike() -> None:
    assert TWIN_FORMS == FORMS
