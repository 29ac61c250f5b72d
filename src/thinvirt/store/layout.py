"""Every file name of a store, in one place. Pure paths: nothing here touches the disk.

$THINVIRT_HOME/
  catalog.sqlite3         templates, VMs, batches (WAL: -wal and -shm stand beside it)
  templates/DIGEST.qcow2  published template images, mode 0444, never changed after
  disks/BATCH/NAME.qcow2  one overlay per VM; one folder per batch, so a batch appears or
                          vanishes as a whole
  disks/BATCH/NAME.*      further disks of a VM, its UEFI variables, its TPM's state, its
                          installer's kernel
  run/ID/                 what exists only while a VM runs: sockets, seed, state, liveness lock
  log/ID/                 serial console, firmware and QEMU output of a VM, until it is removed
  locks/                  advisory locks; each file says who holds it
  incoming/               downloads, imports and builds that are not published yet
  incoming/downloads/     what was fetched so far, kept so that it can be continued
  networks/NAME/          the switch of a private LAN and its ports
  ssh/                    the store's own key pair, which every guest is given
"""

import os
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT_VARIABLE = "THINVIRT_HOME"
SYSTEM_HOME = Path("/var/lib/thinvirt")
USER_HOME_NAME = "thinvirt"  # below the XDG data directory


def default_home(environment: dict[str, str] | None = None, *, uid: int | None = None) -> Path:
    """Return the store's directory: $THINVIRT_HOME, /var/lib/thinvirt for root, else XDG data."""
    env = dict(os.environ) if environment is None else environment
    chosen = env.get(ENVIRONMENT_VARIABLE, "")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if (os.getuid() if uid is None else uid) == 0:
        return SYSTEM_HOME
    data = env.get("XDG_DATA_HOME", "")
    base = Path(data) if data.startswith("/") else Path("~/.local/share").expanduser()
    return base / USER_HOME_NAME


def cache_home(environment: dict[str, str] | None = None) -> Path:
    """Return where fetched packages and built images are kept between builds (XDG cache)."""
    env = dict(os.environ) if environment is None else environment
    cache = env.get("XDG_CACHE_HOME", "")
    base = Path(cache) if cache.startswith("/") else Path("~/.cache").expanduser()
    return base / USER_HOME_NAME


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """The files of one VM in its batch's folder, beside its first disk.

    A VM's name has no dot, so what begins with the name and a dot is that VM's alone.
    """

    folder: Path
    vm_name: str

    def disk(self, number: int) -> Path:
        """The disk with this number in the specification, from 1."""
        return self.folder / f"{self.vm_name}.disk{number}.qcow2"

    @property
    def variables(self) -> Path:
        """The variable store of its UEFI firmware."""
        return self.folder / f"{self.vm_name}.vars.fd"

    @property
    def tpm_state(self) -> Path:
        """What its TPM remembers."""
        return self.folder / f"{self.vm_name}.tpm"

    @property
    def installer_kernel(self) -> Path:
        """The kernel of its installer, while that is at work."""
        return self.folder / f"{self.vm_name}.install-kernel"

    @property
    def installer_initrd(self) -> Path:
        """The initial RAM disk of its installer."""
        return self.folder / f"{self.vm_name}.install-initrd"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths inside one store."""

    home: Path

    @property
    def catalog(self) -> Path:
        """The SQLite catalogue."""
        return self.home / "catalog.sqlite3"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that every store has."""
        return (
            self.templates,
            self.disks,
            self.run,
            self.log,
            self.locks,
            self.incoming,
            self.networks,
        )

    @property
    def templates(self) -> Path:
        """The folder of published template images."""
        return self.home / "templates"

    def template_image(self, digest: str, image_format: str) -> Path:
        """The published image with this SHA-256 (hexadecimal)."""
        return self.templates / f"{digest}.{image_format}"

    @property
    def disks(self) -> Path:
        """The folder that holds a folder of overlays per batch."""
        return self.home / "disks"

    def batch(self, batch_id: int) -> Path:
        """The folder of one batch's overlays."""
        return self.disks / str(batch_id)

    def overlay(self, batch_id: int, vm_name: str) -> Path:
        """The overlay of one VM."""
        return self.batch(batch_id) / self.overlay_name(vm_name)

    @staticmethod
    def overlay_name(vm_name: str) -> str:
        """The name of a VM's overlay in its batch's folder."""
        return f"{vm_name}.qcow2"

    def own_files(self, batch_id: int, vm_name: str) -> "OwnFiles":
        """What a VM may have beside its first disk."""
        return OwnFiles(self.batch(batch_id), vm_name)

    def backing_name(self, digest: str, image_format: str) -> str:
        """The backing file's name in an overlay: relative, so that the store can be moved."""
        return f"../../{self.templates.name}/{digest}.{image_format}"

    @property
    def run(self) -> Path:
        """The folder of what exists only while VMs run."""
        return self.home / "run"

    def run_dir(self, vm_id: int) -> Path:
        """The run-time folder of one VM."""
        return self.run / str(vm_id)

    @property
    def log(self) -> Path:
        """The folder of recorded output."""
        return self.home / "log"

    def log_dir(self, vm_id: int) -> Path:
        """The recorded output of one VM."""
        return self.log / str(vm_id)

    @property
    def locks(self) -> Path:
        """The folder of advisory locks."""
        return self.home / "locks"

    def vm_lock(self, vm_id: int) -> Path:
        """The lock a command holds while it changes one VM."""
        return self.locks / f"vm-{vm_id}.lock"

    @staticmethod
    def locked_vm(file_name: str) -> int | None:
        """The VM whose lock a file of `locks` is, by number; None for another lock."""
        number = file_name.removeprefix("vm-").removesuffix(".lock")
        return int(number) if file_name.startswith("vm-") and number.isdecimal() else None

    def maker_lock(self, maker: str) -> Path:
        """The lock a command holds while it makes or removes something in several steps."""
        return self.locks / f"maker-{maker}.lock"

    def maker_of(self, file_name: str) -> str:
        """Return the maker whose lock's file has this name, "" for other files."""
        if file_name.startswith("maker-") and file_name.endswith(".lock"):
            return file_name[len("maker-") : -len(".lock")]
        return ""

    @property
    def incoming(self) -> Path:
        """The folder of what is not published yet: one folder per maker, and `downloads`."""
        return self.home / "incoming"

    @property
    def downloads(self) -> Path:
        """The folder of downloads, finished or not, that are not imported yet."""
        return self.incoming / "downloads"

    def download_part(self, key: str) -> Path:
        """What has been fetched so far of one URL."""
        return self.downloads / f"{key}.part"

    def download_state(self, key: str) -> Path:
        """Which URL and version of it the part belongs to (JSON)."""
        return self.downloads / f"{key}.json"

    def download_unpacked(self, key: str) -> Path:
        """The image inside a compressed download, while it is imported."""
        return self.downloads / f"{key}.unpacked"

    def download_lock(self, key: str) -> Path:
        """The lock a command holds while it fetches one URL."""
        return self.locks / f"download-{key}.lock"

    @property
    def networks(self) -> Path:
        """The folder of private LANs."""
        return self.home / "networks"

    def network(self, name: str) -> Path:
        """The folder of one private LAN."""
        return self.networks / name

    @property
    def ssh(self) -> Path:
        """The folder of the store's own key pair."""
        return self.home / "ssh"
