"""From an option's value to a part of a VM's specification."""

from dataclasses import dataclass, replace
from typing import Any

from thinvirt.vm.grammar.fixed import CHANNEL, CPU, INSTALL, LOCATION, MEMORY, METADATA, RNG
from thinvirt.vm.grammar.suboptions import BadOption, parse, split
from thinvirt.vm.grammar.tables import (
    BOOT,
    CLOUD_INIT,
    DISK,
    GRAPHICS,
    NETWORK,
    TPM,
    VCPUS,
    VIDEO,
)
from thinvirt.vm.spec import (
    BootSpec,
    DiskSpec,
    GraphicsSpec,
    InstallSpec,
    NetworkSpec,
    Topology,
)
from thinvirt.vm.spec.words import DEFAULT_LAN, BootDevice, Firmware, NetworkKind, TpmModel, Video

_BOOT_DEVICES: tuple[BootDevice, ...] = ("hd", "cdrom", "network")
_TARGETS: tuple[NetworkKind, ...] = ("network", "bridge", "lan")


@dataclass(frozen=True, slots=True)
class Boot:
    """What ``--boot`` says."""

    boot: BootSpec
    firmware: Firmware
    secure_boot: bool


@dataclass(frozen=True, slots=True)
class CloudInit:
    """What ``--cloud-init`` names: files, "" for none."""

    user_data: str = ""
    meta_data: str = ""
    network_config: str = ""
    ssh_key: str = ""


def disk(text: str) -> DiskSpec | None:
    """Return the drive that ``--disk`` describes; None for "none".

    Raises:
        BadOption: it cannot be read, or says two things that exclude each other.
    """
    if text == "none":
        return None
    found = DiskSpec(**parse(DISK, text))
    if found.device == "disk" and not found.source and found.size is None and not found.backing:
        raise BadOption(
            "--disk: there is neither a file nor a size",
            hint="path=FILE, size=GIB for a new disk, or backing_store=FILE for an overlay of it",
        )
    return found


def cdrom(path: str) -> DiskSpec:
    """Return the drive that ``--cdrom`` or a driver disc means."""
    return DiskSpec(source=path, device="cdrom", read_only=True)


def network(text: str) -> NetworkSpec:
    """Return the card that ``--network`` describes.

    Raises:
        BadOption: it cannot be read, or names several networks.
    """
    head, colon, name = text.partition(":")
    if colon and head in _TARGETS and "=" not in head:  # bridge:br0, virt-install's older form
        text = f"{head}={name}"
    found = parse(NETWORK, text)
    named = {kind: found.pop(kind) for kind in _TARGETS if kind in found}
    if len(named) > 1:
        raise BadOption(f"--network: a card is on one network, not on {' and '.join(named)}")
    kind, name = next(iter(named.items()), (found.get("kind", "user"), ""))
    if found.pop("kind", kind) != kind:
        raise BadOption(f"--network: type and {kind}= contradict each other")
    if not name and kind in ("lan", "network"):
        name = DEFAULT_LAN
    return NetworkSpec(kind=kind, name=name, **found)


def graphics(text: str) -> GraphicsSpec:
    """Return the screen that ``--graphics`` describes.

    Raises:
        BadOption: it cannot be read.
    """
    found = parse(GRAPHICS, text)
    if found.get("port") == -1:
        del found["port"]
    if found.get("listen") == "none":
        raise BadOption(
            "--graphics: a screen that listens nowhere cannot be seen", hint="--graphics none"
        )
    if found.get("listen") == "localhost":
        del found["listen"]
    if found.get("listen") == "any":
        found["listen"] = ""
    return GraphicsSpec(**found)


def vcpus(text: str) -> tuple[int, Topology | None]:
    """Return how many CPUs ``--vcpus`` means, and how they are grouped.

    Raises:
        BadOption: it cannot be read.
    """
    found = parse(VCPUS, text)
    groups = {key: value for key, value in found.items() if key != "vcpus"}
    topology = Topology(**groups) if groups else None
    count = found.get("vcpus")
    if topology is None:
        return count or 1, None
    if count is not None and "sockets" not in groups and count % topology.vcpus == 0:
        topology = replace(topology, sockets=count // topology.vcpus)
    return count or topology.vcpus, topology


def boot(text: str) -> Boot:
    """Return what ``--boot`` says; kinds of device count in the order they are named.

    Raises:
        BadOption: it cannot be read.
    """
    found = parse(BOOT, text)
    names = [part.partition("=")[0] for part in split(text)]
    order = tuple(name for name in names if name in _BOOT_DEVICES and found.get(name))
    secure = bool(found.get("secure_boot"))
    efi = bool(found.get("uefi")) or found.get("firmware") == "efi" or secure
    kept: dict[str, Any] = {
        key: found[key] for key in ("menu", "kernel", "initrd", "kernel_args") if key in found
    }
    return Boot(
        BootSpec(order=tuple(dict.fromkeys(order)), **kept),
        "efi" if efi else "bios",
        secure,
    )


def cloud_init(text: str) -> CloudInit:
    """Return the files that ``--cloud-init`` names.

    Raises:
        BadOption: it cannot be read.
    """
    found = parse(CLOUD_INIT, text)
    found.pop("disable", None)
    return CloudInit(**found)


def video(text: str) -> Video:
    """Return the graphics card that ``--video`` means.

    Raises:
        BadOption: it cannot be read.
    """
    card: Video = parse(VIDEO, text).get("video", "vga")
    return card


def tpm(text: str) -> TpmModel | None:
    """Return the TPM that ``--tpm`` means; None for "none".

    Raises:
        BadOption: it cannot be read, or cannot be had.
    """
    found = parse(TPM, text)
    kind = found.get("type", "emulator")
    if kind == "none":
        return None
    if kind not in ("emulator", "default"):
        raise BadOption(f"--tpm: type={kind} is not possible", hint="emulator or none")
    if found.get("version", "2.0") != "2.0":
        raise BadOption("--tpm: only version 2.0 is emulated")
    model: TpmModel = found.get("model", "tpm-crb")
    return model


def memory(text: str) -> int:
    """Return how many MiB ``--memory`` means.

    Raises:
        BadOption: it cannot be read, or is to grow.
    """
    found = parse(MEMORY, text)
    size = found.get("memory", found.get("maximum"))
    if size is None:
        raise BadOption("--memory: no size is given", hint="--memory 2048, or 2G")
    if found.get("maximum", size) != size:
        raise BadOption(
            "--memory: memory does not grow while a VM runs: maxmemory has to be the same",
            hint=f"--memory {found['maximum']}",
        )
    return int(size)


def cpu(text: str) -> str:
    """Return the CPU model that ``--cpu`` means, "" for what suits the host.

    Raises:
        BadOption: it cannot be read, or switches features of a model.
    """
    switched = [part for part in split(text) if part[0] in "+-"]
    if switched:
        raise BadOption(
            f"--cpu: features of a model are not switched singly: {', '.join(switched)}",
            hint="name another model: qemu-system-x86_64 -cpu help",
        )
    found = parse(CPU, text)
    modes = {"host-passthrough": "host", "host-model": "host", "host": "host", "maximum": "max"}
    model, mode = found.get("model", ""), found.get("mode", "")
    if model and mode in modes:
        raise BadOption(f"--cpu: mode={mode} and model={model} exclude each other")
    return str(modes.get(mode or model, model))


def agent(text: str) -> bool:
    """Return whether ``--channel`` gives the VM a guest agent's channel.

    Raises:
        BadOption: it cannot be read, or is to be another channel.
    """
    found = parse(CHANNEL, text)
    return bool(found.get("type") != "none")


def rng(text: str) -> bool:
    """Return whether ``--rng`` gives the VM random numbers of the host.

    Raises:
        BadOption: it cannot be read, or names another source.
    """
    return bool(parse(RNG, text).get("device") != "none")


def vmgenid(text: str) -> bool:
    """Return whether ``--metadata`` has the guest told that it is a copy.

    Raises:
        BadOption: it cannot be read.
    """
    return bool(parse(METADATA, text).get("genid", True))


@dataclass(frozen=True, slots=True)
class Place:
    """What ``--location`` says: a disc or tree, with kernel and initrd in it if they are named."""

    place: str
    kernel: str = ""
    initrd: str = ""


def location(text: str) -> Place:
    """Return what ``--location`` names.

    Raises:
        BadOption: it cannot be read, or names half of it.
    """
    found = parse(LOCATION, text)
    if "place" not in found:
        raise BadOption(
            "--location: kernel and initrd are paths in a disc or tree, and there is none",
            hint="--location ISO,kernel=…,initrd=…; files of the host: --install kernel=…,initrd=…",
        )
    if ("kernel" in found) != ("initrd" in found):
        raise BadOption("--location: kernel= and initrd= go together")
    return Place(**found)


def installer(text: str) -> InstallSpec | None:
    """Return what ``--install`` starts the installer from; None: nothing is to be installed.

    Raises:
        BadOption: it cannot be read, or names an OS, half of it, or too much.
    """
    found = parse(INSTALL, text)
    if "os" in found:
        raise BadOption(
            f"--install {found['os']}: no installer is fetched",
            hint=f"thinvirt template pull {found['os']} for an image that is ready, or its disc: "
            "--cdrom ISO, --location ISO",
        )
    found.pop("overwrite", None)
    nothing = found.pop("no_install", False)
    if nothing and found:
        raise BadOption(f"--install: no_install=yes goes with no {', '.join(found)}")
    if nothing:
        return None
    if not found.get("kernel") and ("initrd" in found or "kernel_args" in found):
        raise BadOption("--install: initrd and kernel_args go with kernel=")
    if "kernel" in found and "boot" in found:
        raise BadOption("--install: kernel and bootdev exclude each other")
    if not found:
        raise BadOption("--install: nothing says what is installed", hint="--install ? lists it")
    return InstallSpec(**found)
