"""The UEFI builds of this host, and the variable store that every VM has of its own."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from thinvirt.errors import ProgramMissing, StoreUnusable
from thinvirt.vm.firmware import FirmwareBuild, choose_firmware
from thinvirt.vm.qemu import FirmwareFiles
from thinvirt.vm.spec import VmSpec
from thinvirt.vm.spec.defaults import machine_of

# QEMU's docs/interop/firmware.json: of files of one name the later folder's counts, and all are
# tried in the order of their names.
FOLDERS = (Path("/usr/share/qemu/firmware"), Path("/etc/qemu/firmware"))


def firmware_build(spec: VmSpec, folders: tuple[Path, ...] = FOLDERS) -> FirmwareBuild:
    """Return the UEFI build that a VM starts with.

    Raises:
        ProgramMissing: none that fits is installed.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        files |= {path.name: path for path in folder.glob("*.json")}
    descriptors = [_read(files[name]) for name in sorted(files)]
    machine = machine_of(spec)
    build = choose_firmware(
        [found for found in descriptors if found], machine, secure_boot=spec.secure_boot
    )
    if build is None or not Path(build.code).is_file():
        secure = " with secure boot" if spec.secure_boot else ""
        raise ProgramMissing(
            f"there is no UEFI firmware{secure} for machine {machine} on this host",
            hint="apt-get install ovmf",
        )
    return build


def make_variables(spec: VmSpec, path: Path) -> None:
    """Make a VM's variable store at `path`, durably.

    Raises:
        ProgramMissing: no UEFI build that fits is installed.
    """
    shutil.copyfile(firmware_build(spec).variables, path)
    path.chmod(0o600)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def firmware_files(spec: VmSpec, variables: Path) -> FirmwareFiles | None:
    """Return the flash images of a VM; None for BIOS.

    Raises:
        ProgramMissing: no UEFI build that fits is installed.
        StoreUnusable: its variable store is gone.
    """
    if spec.firmware != "efi":
        return None
    build = firmware_build(spec)
    if not variables.is_file():
        raise StoreUnusable(
            "the UEFI variables of the VM are gone",
            path=variables,
            hint=f"without its boot entries: cp {build.variables} {variables}",
        )
    return FirmwareFiles(build.code, str(variables))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
