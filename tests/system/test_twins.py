"""What is shown of a VM boots: the QEMU command line, the libvirt XML, the virt-install command."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.oracle.twins.private_libvirt import Libvirt, Missing, private_libvirt

from thinvirt.service.clones import CloneRequest, clone
from thinvirt.service.launching import folder_of
from thinvirt.service.templates import import_image
from thinvirt.service.twins import Twin, twin_of
from thinvirt.store import open_store
from thinvirt.vm.spec import VmSpec

pytestmark = pytest.mark.system
BIN = Path(__file__).parents[2] / ".venv" / "bin"
LOGIN = b"login:"
LIMIT_S = 240.0


@pytest.fixture
def libvirt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirt]:
    try:
        with private_libvirt(tmp_path_factory.mktemp("v") / "v") as running:
            yield running
    except Missing as error:
        pytest.skip(str(error))


def prepare(twin: Twin) -> None:
    """Do what the equivalent says has to be done first, as a person would."""
    path = f"{BIN}:{os.environ['PATH']}"
    for need in twin.needs:
        subprocess.run(need, shell=True, check=True, env=os.environ | {"PATH": path})


def test_each_form_boots(
    home: Path,
    tiny_image: Path,
    tmp_path: Path,
    libvirt: Libvirt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(home, create=True)
    import_image(store, tiny_image, name="tiny")
    request = CloneRequest(template="tiny", name="web", count=3, spec=VmSpec())
    by_qemu, by_xml, by_virt_install = clone(store, request)
    with ExitStack() as stack:
        twin = twin_of(store, by_qemu, "qemu")
        prepare(twin)
        qemu = subprocess.Popen(twin.words, stdin=subprocess.DEVNULL)
        stack.callback(qemu.wait)
        stack.callback(qemu.send_signal, signal.SIGTERM)

        twin = twin_of(store, by_xml, "xml")
        prepare(twin)
        (tmp_path / "domain.xml").write_text(twin.text)
        libvirt.virsh("define", "--validate", str(tmp_path / "domain.xml"))
        libvirt.virsh("start", by_xml.name)

        twin = twin_of(store, by_virt_install, "virt-install")
        prepare(twin)
        more = ["--connect", libvirt.uri]
        subprocess.run([*twin.words, *more], check=True, stdin=subprocess.DEVNULL)

        logs = [folder_of(store, vm).console_log for vm in (by_qemu, by_xml, by_virt_install)]
        _wait(logs)
        for vm, log in zip((by_qemu, by_xml, by_virt_install), logs, strict=True):
            # Its seed came with it: the guest has its own name
            assert f"{vm.name} login:".encode() in log.read_bytes()


def _wait(logs: list[Path]) -> None:
    limit = time.monotonic() + LIMIT_S
    missing = set(logs)
    while missing:
        assert time.monotonic() < limit, [log.read_bytes()[-600:] for log in missing]
        missing = {log for log in missing if not log.exists() or LOGIN not in log.read_bytes()}
        time.sleep(0.3)
