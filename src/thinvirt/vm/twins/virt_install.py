"""The ``virt-install`` command of a VM, as words: option, value, option, value.

Every choice is said, so that the command does not depend on what the OS database of the machine it
is run on knows. (virt-install(1), "GENERAL OPTIONS" to "DEVICE OPTIONS".)
"""

from collections.abc import Iterator

from thinvirt.vm.qemu.argv import AGENT_PORT, boot_order
from thinvirt.vm.qemu.launch import DiskLayer, Launch
from thinvirt.vm.spec import DiskSpec, VmSpec
from thinvirt.vm.spec.defaults import main_bus, with_defaults
from thinvirt.vm.twins.passthrough import ANY, Card, known_cards, unknown_cards

PROGRAM = "virt-install"
_SPECIAL = ",'\"\\"


def virt_install_words(launch: Launch, *, connect: str = "") -> list[str]:
    """Return the command, the program first; `thinvirt.vm.twins.shell` quotes it.

    Args:
        launch: everything about the VM.
        connect: libvirt's URI, "" to leave it to virt-install.
    """
    words = [PROGRAM]
    for option in _options(launch, connect):
        words += option
    return words


def _options(launch: Launch, connect: str) -> Iterator[tuple[str, ...]]:
    spec = with_defaults(launch.spec)
    if connect:
        yield "--connect", connect
    yield "--name", launch.name
    if launch.uuid:
        yield "--uuid", launch.uuid
    yield "--virt-type", "kvm" if launch.accel == "kvm" else "qemu"
    yield "--osinfo", spec.os or "detect=off,require=off"
    yield "--machine", str(spec.machine)
    yield "--memory", str(launch.memory_mib)
    yield "--vcpus", _vcpus(spec)
    yield "--cpu", _cpu(spec, launch.accel)
    yield from _boot(spec, launch)
    threads = sum(disk.iothread for disk in spec.disks)
    if threads:
        yield "--iothreads", str(threads)
    yield from _drives(spec, launch)
    yield from _networks(spec, launch)
    yield from _others(spec, launch)
    yield ("--noautoconsole",)


def _vcpus(spec: VmSpec) -> str:
    groups = spec.topology
    if groups is None:
        return str(spec.vcpus)
    return (
        f"{spec.vcpus},sockets={groups.sockets},dies={groups.dies},cores={groups.cores},"
        f"threads={groups.threads}"
    )


def _cpu(spec: VmSpec, accel: str) -> str:
    model = spec.cpu or ("host" if accel == "kvm" else "max")
    return {"host": "mode=host-passthrough", "max": "mode=maximum"}.get(
        model, f"mode=custom,match=exact,check=none,model={model},model.fallback=forbid"
    )


def _boot(spec: VmSpec, launch: Launch) -> Iterator[tuple[str, ...]]:
    install = spec.install
    kernel = install if install is not None and install.kernel else spec.boot
    words = [f"bootmenu.enable={'on' if spec.boot.menu else 'off'}"]
    if launch.firmware is not None:
        words += [
            f"loader={escape(launch.firmware.code)}",
            "loader.readonly=yes",
            "loader.type=pflash",
            f"loader_secure={'yes' if spec.secure_boot else 'no'}",
            f"nvram={escape(launch.firmware.variables)}",
        ]
    for key, value in (
        ("kernel", kernel.kernel),
        ("initrd", kernel.initrd),
        ("kernel_args", kernel.kernel_args),
    ):
        if value:
            words.append(f"{key}={escape(value)}")
    yield "--boot", ",".join(words)
    yield ("--import",)
    if install is not None:
        yield "--events", "on_reboot=destroy"
    features = ["vmport.state=off"] + (["smm.state=on"] if spec.secure_boot else [])
    yield "--features", ",".join(features)
    # What virt-install would set by itself: timers, sleep states, and hints for Windows.
    yield "--clock", "offset=utc,hpet_present=yes"
    yield "--pm", "suspend_to_mem.enabled=yes,suspend_to_disk.enabled=yes"
    if spec.os.startswith("win"):
        yield "--xml", "xpath.delete=./features/hyperv"
    if spec.vmgenid:
        yield "--metadata", "genid_enable=yes"


def _drives(spec: VmSpec, launch: Launch) -> Iterator[tuple[str, ...]]:
    places = boot_order(spec, media=launch.media is not None)
    thread = 0
    for number, (disk, layers) in enumerate(zip(spec.disks, launch.disks, strict=True)):
        thread += disk.iothread
        words = _drive(disk, layers, places.get(f"disk{number}"))
        if disk.iothread and disk.bus == "virtio":
            words.append(f"driver.iothread={thread}")
        yield "--disk", ",".join(words)
    if launch.media is not None:
        bus = "sata" if spec.machine == "q35" else "ide"
        disc = DiskSpec(device="cdrom", bus="sata" if bus == "sata" else "ide", read_only=True)
        yield "--disk", ",".join(_drive(disc, (launch.media,), places["media"]))
    if launch.seed:
        main = main_bus(spec)
        device = DiskSpec(
            device="cdrom" if main in ("scsi", "sata", "ide") else "disk", bus=main, read_only=True
        )
        yield "--disk", ",".join(_drive(device, (DiskLayer(launch.seed, "raw"),), None))
    if any(disk.bus == "scsi" for disk in spec.disks):
        controller = "type=scsi,index=0,model=virtio-scsi"
        for place, disk in enumerate((d for d in spec.disks if d.iothread), start=1):
            if disk.bus == "scsi":
                controller += f",driver.iothread={place}"
                break
        yield "--controller", controller


def _drive(disk: DiskSpec, layers: tuple[DiskLayer, ...], order: int | None) -> list[str]:
    words = [f"device={disk.device}", f"bus={disk.bus}"]
    if layers:
        words += [f"path={escape(layers[0].path)}", f"driver.type={layers[0].format}"]
    for key, value in (
        ("driver.cache", disk.cache),
        ("driver.io", disk.io),
        ("driver.discard", None if disk.read_only else disk.discard),
        ("driver.detect_zeroes", disk.detect_zeroes),
        ("serial", disk.serial),
    ):
        if value:
            words.append(f"{key}={value}")
    if disk.shareable:
        words.append("shareable=on")
    if disk.read_only:
        words.append("readonly=on")
    if order is not None:
        words.append(f"boot.order={order + 1}")
    return words


def _networks(spec: VmSpec, launch: Launch) -> Iterator[tuple[str, ...]]:
    places = boot_order(spec, media=launch.media is not None)
    cards = list(known_cards(launch))
    for card in cards:
        yield "--network", ",".join(_card(card, places.get(f"nic{card.number}")))
    if not cards:
        yield "--network", "none"
    handed_on = unknown_cards(launch)
    if handed_on:
        import shlex

        # One word of ours is several of QEMU's; virt-install splits it as a shell does, at blanks.
        yield "--qemu-commandline", "args=" + shlex.join(handed_on)


def _card(card: Card, order: int | None) -> list[str]:
    network = card.network
    words = [
        "type=user" if network.kind == "user" else f"{network.kind}={card.bridge}",
        f"model={network.model or 'virtio'}",
    ]
    if card.mac:
        words.append(f"mac={card.mac}")
    if order is None:  # no option of virt-install says it
        words += ["xpath1.set=./rom/@enabled", "xpath1.value=no"]
    else:
        words.append(f"boot.order={order + 1}")
    return words


def _others(spec: VmSpec, launch: Launch) -> Iterator[tuple[str, ...]]:
    log = f",log.file={escape(launch.console_log)},log.append=off" if launch.console_log else ""
    yield "--serial", f"pty{log}"
    yield "--channel", "none"  # none but those that are said
    if spec.agent:
        yield "--channel", f"unix,target.type=virtio,target.name={AGENT_PORT}"
    graphics = spec.graphics
    if graphics.kind == "none":
        yield "--graphics", "none"
    else:
        words = [graphics.kind, f"listen={graphics.listen or ANY}"]
        if graphics.port is not None:
            words.append(f"port={graphics.port}")
        if graphics.password:
            words.append(f"password={escape(graphics.password)}")
        yield "--graphics", ",".join(words)
    yield "--video", f"model={spec.video or 'vga'}"
    yield "--rng", "/dev/urandom" if spec.rng else "none"
    yield "--tpm", "none" if spec.tpm is None else f"emulator,model={spec.tpm},version=2.0"
    usb = any(disk.bus == "usb" for disk in spec.disks)
    yield "--controller", f"usb,model={'qemu-xhci' if usb else 'none'}"
    if usb and graphics.kind != "none":
        yield "--input", "mouse,bus=ps2"  # else it adds a tablet
    if usb and graphics.kind == "spice":
        yield "--redirdev", "none"
    yield "--memballoon", "none"
    yield "--sound", "none"


def escape(value: str) -> str:
    """Return a value for virt-install's ``key=value,…`` grammar.

    It splits as a POSIX shell does, at commas: what has a comma, a quote or a backslash is quoted.
    """
    if not set(value) & set(_SPECIAL):
        return value
    inner = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inner}"'
