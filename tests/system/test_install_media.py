"""Real installation media: Debian's installer from a disc, by its kernel and by its own loader."""

import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests import sector_guest
from tests.mini_guest import thinvirt

from thinvirt.run.folder import VmFolder
from thinvirt.store import Store, open_store

TREE = Path("/usr/lib/debian-installer/images/12/amd64/text")
ISOLINUX = Path("/usr/lib/ISOLINUX/isolinux.bin")
MODULES = Path("/usr/lib/syslinux/modules/bios")
PATIENCE_S = 200.0
pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not TREE.is_dir(), reason="debian-installer-12-netboot-amd64"),
]
MENU = """serial 0 115200
default install
prompt 1
timeout 0
label install
  kernel /install.amd/vmlinuz
  append initrd=/install.amd/initrd.gz console=ttyS0
"""


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disc as Debian's are laid out, which boots by ISOLINUX where that is installed."""
    folder = tmp_path_factory.mktemp("disc")
    content = folder / "content"
    (content / "install.amd").mkdir(parents=True)
    (content / "isolinux").mkdir()
    boot = TREE / "debian-installer" / "amd64"
    shutil.copyfile(boot / "linux", content / "install.amd" / "vmlinuz")
    shutil.copyfile(boot / "initrd.gz", content / "install.amd" / "initrd.gz")
    options = ["-quiet", "-R", "-J", "-V", "Debian 12.0.0 amd64 n"]
    if ISOLINUX.is_file():
        shutil.copyfile(ISOLINUX, content / "isolinux" / "isolinux.bin")
        shutil.copyfile(MODULES / "ldlinux.c32", content / "isolinux" / "ldlinux.c32")
        (content / "isolinux" / "isolinux.cfg").write_text(MENU)
        options += ["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot"]
        options += ["-boot-load-size", "4", "-boot-info-table"]
    iso = folder / "debian.iso"
    subprocess.run(["genisoimage", *options, "-o", iso, content], check=True)
    return iso


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("THINVIRT_ACCEL", "tcg")
    store = open_store(home)
    yield store
    sector_guest.kill_all(home / "run")


def _until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.5)


def _said(store: Store) -> bytes:
    vm = store.catalog.find_vm("box")
    log = VmFolder(store.layout.run_dir(vm.id), store.layout.log_dir(vm.id)).console_log
    return log.read_bytes() if log.exists() else b""


def _install(store: Store, *words: str) -> None:
    common = ["--name", "box", "--disk", "size=1", "--memory", "1024", "--osinfo", "none"]
    done = thinvirt(store.layout.home, "install", *words, *common, "--network", "none")
    assert done.returncode == 0, done.stderr
    assert "virt-install --name box" in done.stderr


def _is_drawn(store: Store, picture: Path) -> bool:
    """Tell whether the VM's screen shows more than one colour."""
    done = thinvirt(store.layout.home, "screenshot", "box", str(picture))
    assert done.returncode == 0, done.stderr
    raw, at, pixels = picture.read_bytes(), 8, b""
    while at < len(raw):  # PNG: length, kind, data, checksum
        length = int.from_bytes(raw[at : at + 4])
        if raw[at + 4 : at + 8] == b"IDAT":
            pixels += raw[at + 8 : at + 8 + length]
        at += 12 + length
    return len(set(zlib.decompress(pixels))) > 3


def test_the_installer_of_a_disc_is_started_by_its_kernel(
    store: Store, disc: Path, tmp_path: Path
) -> None:
    """Its first screen is on the serial console; the kernel is copied, and goes with the VM."""
    _install(store, "--location", str(disc), "--extra-args", "console=ttyS0")
    (folder,) = store.layout.disks.iterdir()
    boot = TREE / "debian-installer" / "amd64"
    assert (folder / "box.install-kernel").read_bytes() == (boot / "linux").read_bytes()
    assert (folder / "box.install-initrd").read_bytes() == (boot / "initrd.gz").read_bytes()
    _until(lambda: b"Select a language" in _said(store))
    assert thinvirt(store.layout.home, "stop", "--force", "box").returncode == 0
    assert thinvirt(store.layout.home, "rm", "box").returncode == 0
    assert list(store.layout.disks.iterdir()) == []


@pytest.mark.skipif(not ISOLINUX.is_file(), reason="isolinux")
def test_a_disc_boots_by_itself(store: Store, disc: Path, tmp_path: Path) -> None:
    """Its loader's prompt is on the serial port, and on the screen."""
    _install(store, "--cdrom", str(disc))
    _until(lambda: b"boot:" in _said(store))
    _until(lambda: _is_drawn(store, tmp_path / "screen.png"))
