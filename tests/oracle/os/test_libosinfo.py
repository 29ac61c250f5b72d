"""Every system of osinfo-db comes out as libosinfo has it, inheritance and all."""

import shutil
import subprocess
from typing import Any

import pytest
from tests.oracle.os.conftest import Ask

from thinvirt.service.os_knowledge import OsKnowledge
from thinvirt.vm.osinfo.records import RESOURCE_KINDS, OsInfo

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def libosinfo(ask: Ask) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = ask(
        "ask_libosinfo.py",
        needs="import gi; gi.require_version('Libosinfo', '1.0'); "
        "from gi.repository import Libosinfo; Libosinfo.Os.get_complete_firmware_list",
    )
    return found


def figures(info: OsInfo, kind: str) -> list[list[Any]]:
    def number(value: int | None) -> int:
        return -1 if value is None else value

    return sorted(
        [r.architecture, *map(number, (r.cpus, r.cpu_hz, r.memory_bytes, r.disk_bytes))]
        for r in info.resources
        if r.kind == kind
    )


def as_libosinfo_says(info: OsInfo) -> dict[str, Any]:
    texts = (
        "name", "vendor", "version", "family", "distro", "codename", "release_date", "eol_date",
        "status", "kernel_url_argument", "cloud_image_username",
    )  # fmt: skip
    facts: dict[str, Any] = {name: getattr(info, name) for name in texts}
    facts |= {kind: figures(info, kind) for kind in RESOURCE_KINDS}
    return facts | {
        "short_ids": list(info.short_ids),
        "devices": [device.id for device in info.devices],
        "firmware": sorted([f.architecture, f.kind, f.supported] for f in info.firmware),
        "images": sorted([i.architecture, i.format, i.url, i.cloud_init] for i in info.images),
    }


def test_every_system_is_what_libosinfo_says(
    knowledge: OsKnowledge, libosinfo: dict[str, dict[str, Any]]
) -> None:
    assert len(libosinfo) > 700
    differing = {}
    for os_id, expected in libosinfo.items():
        ours = as_libosinfo_says(knowledge.find(os_id))
        wrong = {k: (ours[k], expected[k]) for k in ours if ours[k] != expected[k]}
        if wrong:
            differing[os_id] = wrong
    assert not differing


def test_nothing_is_known_that_libosinfo_does_not_know(
    knowledge: OsKnowledge, libosinfo: dict[str, dict[str, Any]]
) -> None:
    ours = {s.id for s in knowledge.summaries(today="2026-01-01")}
    from_database = {i for i in ours if knowledge.find(i).source == "osinfo-db"}
    assert from_database == libosinfo.keys()
    assert knowledge.notes == []


@pytest.mark.skipif(shutil.which("osinfo-query") is None, reason="libosinfo-bin is not installed")
def test_osinfo_query_lists_the_same(
    knowledge: OsKnowledge, osinfo_environment: dict[str, str]
) -> None:
    done = subprocess.run(
        ["osinfo-query", "--fields=short-id,name,version,release-date,eol-date,id", "os"],
        env=osinfo_environment,
        check=True,
        capture_output=True,
        text=True,
    )
    rows = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines()[2:]]
    rows = [row for row in rows if len(row) == 6]
    assert len(rows) > 700
    for short_id, name, version, release, end, os_id in rows:
        info = knowledge.find(short_id)
        assert (info.name, info.version, info.id) == (name, version, os_id)
        assert (info.release_date, info.eol_date) == (release, end)
