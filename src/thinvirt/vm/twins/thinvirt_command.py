"""thinvirt's own command for a VM: what `thinvirt install` or `thinvirt clone` is to be told.

Read back by those commands it gives the same specification (tests/property/test_own_command.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from thinvirt.errors import Conflict
from thinvirt.vm.spec import DiskSpec, InstallSpec, NetworkSpec, SeedSpec, VmSpec
from thinvirt.vm.spec.parts import GraphicsSpec

PROGRAM = "thinvirt"
_KEYS = {  # fields of a drive whose key has another name
    "source": "path",
    "backing": "backing_store",
    "boot_order": "boot.order",
    "read_only": "readonly",
}


@dataclass(frozen=True, slots=True)
class OwnCommand:
    """A command of thinvirt's.

    Attributes:
        words: the program first.
        files: what has to be in files that the command names, by their names.
    """

    words: tuple[str, ...]
    files: dict[str, str]


def install_command(name: str, spec: VmSpec) -> OwnCommand:
    """Return the ``thinvirt install`` that makes a VM with disks of its own.

    Args:
        name: the VM's.
        spec: its specification.
    """
    files: dict[str, str] = {}
    words = [PROGRAM, "install", "--name", name]
    words += ["--osinfo", spec.os or "none"]
    if spec.install is None:
        words.append("--import")
    else:
        words += _installer(spec.install)
    for option in _hardware(spec):
        words += option
    for disk in spec.disks:
        words += ["--disk", _drive(disk)]
    if not spec.disks:
        words += ["--disk", "none"]
    for option in (*_devices(spec), *_channels(spec), *_seed(name, spec.seed, files)):
        words += option
    return OwnCommand(tuple(words), files)


def clone_command(
    template: str,
    name: str,
    spec: VmSpec,
    *,
    count: int | None = None,
    size: int | None = None,
    extended_l2: bool = True,
) -> OwnCommand:
    """Return the ``thinvirt clone`` that makes linked clones.

    Args:
        template: which, with its version.
        name: the VM's, or the beginning of the names of several.
        spec: their specification; its first disk describes the overlay.
        count: how many; None: one, named exactly so.
        size: bytes of the overlay; None: the template's.
        extended_l2: whether overlays have subclusters.

    Raises:
        Conflict: a part of the specification has no option.
    """
    unsaid = [
        what
        for what, plain in (
            ("a clone without a seed", spec.seed is not None),
            ("a clone that is to be installed", spec.install is None),
            ("a clone without an agent's channel", spec.agent),
            ("a clone without random numbers", spec.rng),
            ("a clone without vmgenid", spec.vmgenid),
        )
        if not plain
    ]
    if unsaid:
        raise Conflict(
            f"no option of thinvirt clone makes {' or '.join(unsaid)}",
            hint="a file for thinvirt apply says everything",
        )
    files: dict[str, str] = {}
    words = [PROGRAM, "clone", template, name]
    if count is not None:
        words += ["--count", str(count)]
    if size is not None:
        words += ["--size", f"{size}b"]
    if not extended_l2:
        words.append("--plain-l2")
    if spec.os:
        words += ["--osinfo", spec.os]
    for option in _hardware(spec):
        words += option
    first = _drive(spec.disks[0])
    if first or len(spec.disks) > 1:
        words += ["--disk", first or "device=disk"]
    for disk in spec.disks[1:]:
        words += ["--disk", _drive(disk)]
    for option in (*_devices(spec), *_seed(name, spec.seed, files)):
        words += option
    return OwnCommand(tuple(words), files)


def _installer(install: InstallSpec) -> list[str]:
    return [*_medium(install), *([] if install.reboot else ["--noreboot"])]


def _medium(install: InstallSpec) -> list[str]:
    if install.location:
        words = ["--location", escape(install.location)]
        return words + (["--extra-args", install.kernel_args] if install.kernel_args else [])
    if install.kernel:
        named = {"kernel": install.kernel, "initrd": install.initrd}
        named["kernel_args"] = install.kernel_args
        return ["--install", _keys(named)]
    if install.media:
        return ["--cdrom", install.media]
    return ["--install", f"bootdev={install.boot}"]


def _hardware(spec: VmSpec) -> Iterator[tuple[str, str]]:
    if spec.memory_mib is not None:
        yield "--memory", str(spec.memory_mib)
    groups = spec.topology
    if groups is not None:
        parts = {f.name: getattr(groups, f.name) for f in fields(groups)}
        yield "--vcpus", ",".join([str(spec.vcpus), *(f"{k}={v}" for k, v in parts.items())])
    elif spec.vcpus != 1:
        yield "--vcpus", str(spec.vcpus)
    if spec.cpu:
        yield "--cpu", spec.cpu
    if spec.machine is not None:
        yield "--machine", spec.machine
    boot = spec.boot
    words = [*boot.order, "uefi" if spec.firmware == "efi" else "firmware=bios"]
    if spec.secure_boot:
        words.append("secure_boot=on")
    if boot.menu:
        words.append("menu=on")
    direct = {"kernel": boot.kernel, "initrd": boot.initrd, "kernel_args": boot.kernel_args}
    if boot.kernel:
        words.append(_keys(direct))
    yield "--boot", ",".join(words)


def _drive(disk: DiskSpec) -> str:
    """Return what differs from a plain disk, by the keys of ``--disk``."""
    words = []
    for field in fields(disk):
        value = getattr(disk, field.name)
        if value == field.default:
            continue
        text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
        if field.name == "size":
            text += "b"
        words.append(f"{_KEYS.get(field.name, field.name)}={escape(text)}")
    return ",".join(words)


def _devices(spec: VmSpec) -> Iterator[tuple[str, str]]:
    for network in spec.networks or (NetworkSpec("none"),):
        yield "--network", _card(network)
    for forward in spec.forwards:
        protocol = "/udp" if forward.protocol == "udp" else ""
        ports = f"{forward.host_port}:{forward.guest_port}{protocol}"
        yield "--forward", f"{forward.host_address}:{ports}"
    yield "--graphics", _screen(spec.graphics)
    if spec.video is not None:
        yield "--video", spec.video
    if spec.tpm is not None:
        yield "--tpm", f"emulator,model={spec.tpm}"


def _card(network: NetworkSpec) -> str:
    named: dict[str, str] = {network.kind: network.name}
    if network.kind in ("user", "none"):
        named = {"type": network.kind}
    order = "" if network.boot_order is None else str(network.boot_order)
    return _keys(named | {"model": network.model or "", "mac": network.mac, "boot.order": order})


def _screen(graphics: GraphicsSpec) -> str:
    port = "" if graphics.port is None else str(graphics.port)
    named = {"listen": graphics.listen or "any", "port": port, "password": graphics.password}
    return f"{graphics.kind},{_keys(named)}"


def _channels(spec: VmSpec) -> Iterator[tuple[str, str]]:
    if not spec.agent:
        yield "--channel", "none"
    if not spec.rng:
        yield "--rng", "none"
    if not spec.vmgenid:
        yield "--metadata", "genid_enable=no"


def _seed(name: str, seed: SeedSpec | None, files: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the options of the seed, and put what it holds into `files`."""
    if seed is None:
        yield "--cloud-init", "none"
        return
    named = {
        "user-data": ("user-data", seed.user_data),
        "meta-data": ("meta-data", seed.meta_data),
        "network-config": ("network-config", seed.network_config),
    }
    words = {}
    for key, (suffix, text) in named.items():
        if text:
            words[key] = f"{name}-{suffix}"
            files[words[key]] = text
    if words:
        yield "--cloud-init", _keys(words)
    if seed.ssh_keys:
        file = f"{name}-keys.pub"
        files[file] = "".join(f"{key}\n" for key in seed.ssh_keys)
        yield "--ssh-key", file


def _keys(named: dict[str, str]) -> str:
    return ",".join(f"{key}={escape(value)}" for key, value in named.items() if value)


def escape(value: str) -> str:
    """Return a value for thinvirt's ``key=value,…`` grammar, where a comma is written twice."""
    return value.replace(",", ",,")
