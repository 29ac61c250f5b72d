"""``thinvirt apply``: files that describe VMs, and what is made of them."""

import json
import os
from pathlib import Path

import pytest

from thinvirt.cli.main import main
from thinvirt.store import open_store


@pytest.fixture
def tiny(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "tiny.img"
    with path.open("wb") as file:
        file.write(os.urandom(65536))
        file.truncate(1 << 20)
    assert main(["template", "import", str(path), "--quiet"]) == 0
    capsys.readouterr()
    return home


LAB = """
vms:
  - name: web
    template: tiny
    count: 2
    memory: 512M
    disks: [{size: 2M, cache: none}]
  - {name: db, template: tiny, vcpus: 2}
  - {name: own, disks: [{size: 1M}], boot: {order: [network]}}
"""


def test_what_is_missing_is_made_and_then_unchanged(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(LAB)
    assert main(["apply", str(file), "--dry-run", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in rows} == {"would be made"}
    assert open_store(tiny).catalog.vm_count() == 0
    assert main(["apply", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "web-001: made", "web-002: made", "db: made", "own: made"
    ]  # fmt: skip
    vm = open_store(tiny).catalog.find_vm("web-002")
    assert (vm.spec.memory_mib, vm.batch.virtual_size) == (512, 2 << 20)
    assert main(["apply", str(file), "--json"]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"unchanged"}


def test_what_differs_is_refused_and_nothing_is_made(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(LAB)
    assert main(["apply", str(file)]) == 0
    file.write_text(LAB.replace("vcpus: 2", "vcpus: 4").replace("count: 2", "count: 3"))
    assert main(["apply", str(file)]) == 4
    assert "'db': vcpus: now '2', written '4'" in capsys.readouterr().err
    assert open_store(tiny).catalog.vm_count() == 4


def test_all_problems_are_told_with_their_places(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(
        "vms:\n  - name: a\n    template: tiny\n    vcpus: two\n"
        "  - name: b\n    template: tiny\n    memry: 5\n    disks:\n      - cache: fast\n"
    )
    assert main(["apply", str(file)]) == 2
    told = capsys.readouterr().err
    assert f"{file}:4:12: vms[0].vcpus" in told
    assert "did you mean 'memory'" in told
    assert "lab.yaml:9:16: vms[1].disks[0].cache" in told
    assert "writethrough" in told
    assert open_store(tiny).catalog.vm_count() == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vms: [\n  {name: a", ":3:1: not YAML"),
        ("name: a\nname: b\n", ":2:1: key 'name' stands twice"),
        ("name: !!python/name:os.system x", "is not possible here"),
        ("a: &a " + "[" * 40, "nested deeper"),
        ("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
         + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
         "means more than"),
    ],
)  # fmt: skip
def test_texts_that_are_no_files_of_vms(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert main(["apply", str(file)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_vm_is_shown_as_the_file_that_makes_it(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(LAB)
    assert main(["apply", str(file)]) == 0
    capsys.readouterr()
    for name in ("web-001", "db", "own"):
        assert main(["show", name, "--as", form]) == 0
        shown = tmp_path / f"{name}.{form}"
        shown.write_text(capsys.readouterr().out)
        assert main(["apply", str(shown)]) == 0
        assert capsys.readouterr().out == f"{name}: unchanged\n"


def test_a_migration_is_judged_before_anything_moves(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "vm.json"
    vm = {"name": "db", "template": "tiny", "networks": [{"kind": "lan", "name": "a"}]}
    file.write_text(json.dumps(vm))
    assert main(["apply", str(file)]) == 0
    capsys.readouterr()
    assert main(["migrate", "db", "--check", "--json"]) == 1
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["disks"][0]["rule"] == "not-shared"
    assert verdict["disks"][0]["ways_out"]
    stops = {each["what"] for each in verdict["obstacles"] if each["stops"]}
    assert stops == {"cpu", "networks", "disks"}  # the base lies in the store, as the disk does
    assert main(["migrate", "db", "--check", "--to", "this-host", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["disks"][0]["rule"] == "same-host"


def test_two_vms_of_a_file_do_not_write_to_one_disk(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.raw").write_bytes(bytes(1 << 20))
    (tmp_path / "link.raw").symlink_to(tmp_path / "data.raw")
    file = tmp_path / "vms.yaml"
    file.write_text(
        "vms:\n"
        + "".join(
            f"- name: {name}\n  disks: [{{source: {tmp_path}/{disk}.raw, format: raw}}]\n"
            for name, disk in (("a", "data"), ("b", "link"))
        )
    )
    assert main(["template", "ls"]) == 0
    assert main(["apply", str(file)]) == 2
    told = capsys.readouterr().err
    assert "vms[1].disks[0].source" in told
    assert "is that of VM 'a' too" in told
