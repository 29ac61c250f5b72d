"""What has to be there before an equivalent of a VM is run, as commands where there are such."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinvirt.service.drives import disk_path
from thinvirt.service.firmware import firmware_build
from thinvirt.service.new_disks import NewDisk
from thinvirt.store import Store, Vm
from thinvirt.vm.qemu import Launch
from thinvirt.vm.twins.thinvirt_command import OwnCommand

if TYPE_CHECKING:
    from thinvirt.service.installing import InstallPlan


def own_disk_commands(store: Store, vm: Vm) -> Iterator[str]:
    """Yield the qemu-img commands that make disks like those the store made for a VM, elsewhere.

    They are made in the current folder, empty: what the VM's own hold is not theirs.
    """
    from thinvirt.image import open_image

    for number, disk in enumerate(vm.spec.disks):
        if not disk.of_the_store:
            continue
        with open_image(disk_path(store, vm, disk, number), force_share=True) as image:
            size, chain_below = image.size, image.backing_chain[1:2]
        words = ["qemu-img", "create", "-q", "-f", disk.format or "qcow2"]
        for below in chain_below:
            words += ["-b", str(Path(below.filename).absolute()), "-F", below.format]
        yield shlex.join([*words, new_name(vm.name, number), str(size)])


def file_commands(vm: Vm, own: OwnCommand) -> Iterator[str]:
    """Yield the commands that write the files which a VM's own command names."""
    for file in own.files:
        part = file.removeprefix(f"{vm.name}-")
        key = ".ssh_keys[]" if part == "keys.pub" else "." + part.replace("-", "_")
        show = shlex.join(["thinvirt", "show", vm.name, "--json"])
        yield f"{show} | jq -r .spec.seed{key} > {shlex.quote(file)}"


def copied_disks(vm: Vm) -> Iterator[str]:
    """Yield a warning where a VM's own command makes its disks anew."""
    installed = vm.template is None and vm.spec.install is None
    if installed and any(disk.of_the_store for disk in vm.spec.disks):
        yield "its disks are made anew, empty: thinvirt template import keeps what is on them"


def files_to_be_there(own: OwnCommand) -> Iterator[str]:
    """Yield what the files have to hold that a command names."""
    for file, text in own.files.items():
        yield f"{shlex.quote(file)} holds what was given ({len(text)} characters)"


def helpers(launch: Launch, form: str) -> Iterator[str]:
    """Yield what else has to be there: libvirt does these by itself, or the form says them."""
    log = Path(launch.console_log).parent
    if launch.console_log and not log.is_dir():
        yield shlex.join(["mkdir", "-p", str(log)])
    if launch.firmware is not None and not Path(launch.firmware.variables).exists():
        template = firmware_build(launch.spec).variables
        yield shlex.join(["cp", template, launch.firmware.variables])
    if form != "qemu":
        return
    if launch.secret:
        yield f"{shlex.quote(launch.secret)} holds the password, readable for you alone"
    if launch.tpm:
        state = str(launch.tpm).removesuffix(".sock")
        yield shlex.join(["mkdir", "-p", state])
        words = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--terminate"]
        yield shlex.join([*words, "--daemon", "--ctrl", f"type=unixio,path={launch.tpm}"])


def seed_words(launch: Launch) -> Iterator[str]:
    """Yield what the seed of a VM is that is not there yet."""
    if launch.seed:
        yield f"{shlex.quote(launch.seed)} is a NoCloud disc (ISO 9660 with the label cidata)"


def new_name(name: str, number: int) -> str:
    """Return what a disk of the store is called in the current folder."""
    return f"{name}.qcow2" if number == 0 else f"{name}.disk{number}.qcow2"


def create_commands(disks: Sequence[NewDisk], name: str, here: Path) -> Iterator[str]:
    """Yield the qemu-img commands that make the new disks of a VM of this name."""
    for disk in disks:
        words = ["qemu-img", "create", "-q", "-f", disk.format]
        if disk.backing is not None:
            words += ["-b", str(disk.backing), "-F", str(disk.backing_format)]
        if not disk.sparse:
            words += ["-o", "preallocation=falloc"]
        words.append(str(disk.path or here / new_name(name, disk.number)))
        if disk.size is not None:
            words.append(str(disk.size))
        yield shlex.join(words)


def copy_commands(planned: "InstallPlan") -> Iterator[str]:
    """Yield the commands that copy the installer's kernel out of its disc."""
    install, files = planned.spec.install, planned.installer
    if install is None or files is None:
        return
    for name, copy in ((files.kernel, install.kernel), (files.initrd, install.initrd)):
        words = ["isoinfo", "-R", "-i", str(files.place), "-x", f"/{name}"]
        yield f"{shlex.join(words)} > {shlex.quote(copy)}"
