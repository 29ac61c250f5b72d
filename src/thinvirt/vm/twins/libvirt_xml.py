"""The libvirt domain XML of a VM (libvirt's "Domain XML format").

Nothing is left to libvirt's guessing that changes what the guest sees: every drive has its format
and its whole backing chain, every device its model.
"""

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from thinvirt.vm.qemu.argv import AGENT_PORT, boot_order
from thinvirt.vm.qemu.launch import DiskLayer, Launch
from thinvirt.vm.spec import DiskSpec, VmSpec
from thinvirt.vm.spec.defaults import main_bus, with_defaults
from thinvirt.vm.spec.words import Bus
from thinvirt.vm.twins.passthrough import ANY, Card, known_cards, unknown_cards

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
OSINFO_NAMESPACE = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
DEFAULT_EMULATOR = "/usr/bin/qemu-system-x86_64"
_PREFIXES: dict[Bus, str] = {"virtio": "vd", "ide": "hd", "scsi": "sd", "sata": "sd", "usb": "sd"}


def libvirt_xml(launch: Launch, *, os_id: str = "", emulator: str = DEFAULT_EMULATOR) -> str:
    """Return the domain XML, two blanks of indentation a level, ending in a line feed.

    Args:
        launch: everything about the VM.
        os_id: the guest's OS as osinfo-db identifies it (``http://debian.org/debian/12``).
        emulator: the QEMU to run, as an absolute path.
    """
    spec = with_defaults(launch.spec)
    handed_on = unknown_cards(launch)
    domain = Element("domain", {"type": "kvm" if launch.accel == "kvm" else "qemu"})
    if handed_on:
        domain.set("xmlns:qemu", QEMU_NAMESPACE)
    _text(domain, "name", launch.name)
    if launch.uuid:
        _text(domain, "uuid", launch.uuid)
    if spec.vmgenid:
        SubElement(domain, "genid")
    if os_id:
        _osinfo(domain, os_id)
    _text(domain, "memory", str(launch.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.vcpus))
    threads = sum(disk.iothread for disk in spec.disks)
    if threads:
        _text(domain, "iothreads", str(threads))
    _boot(domain, spec, launch)
    _features(domain, spec)
    _cpu(domain, spec, launch.accel)
    SubElement(domain, "clock", offset="utc")
    _text(domain, "on_reboot", "destroy" if spec.install is not None else "restart")
    devices = SubElement(domain, "devices")
    _text(devices, "emulator", emulator)
    _drives(devices, spec, launch)
    places = boot_order(spec, media=launch.media is not None)
    for card in known_cards(launch):
        _card(devices, card, places.get(f"nic{card.number}"))
    _channels(devices, spec, launch)
    _screen(devices, spec)
    _others(devices, spec)
    if handed_on:
        arguments = SubElement(domain, "qemu:commandline")
        for word in handed_on:
            SubElement(arguments, "qemu:arg", value=word)
    indent(domain)
    return tostring(domain, encoding="unicode") + "\n"


def _text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    element = SubElement(parent, tag, attributes)
    element.text = text
    return element


def _osinfo(domain: Element, os_id: str) -> None:
    metadata = SubElement(domain, "metadata")
    library = SubElement(metadata, "libosinfo:libosinfo", {"xmlns:libosinfo": OSINFO_NAMESPACE})
    SubElement(library, "libosinfo:os", id=os_id)


def _boot(domain: Element, spec: VmSpec, launch: Launch) -> None:
    system = SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine=str(spec.machine))
    if launch.firmware is not None:
        secure = "yes" if spec.secure_boot else "no"
        _text(system, "loader", launch.firmware.code, readonly="yes", secure=secure, type="pflash")
        _text(system, "nvram", launch.firmware.variables)
    what = spec.install if spec.install is not None and spec.install.kernel else spec.boot
    for tag, value in (
        ("kernel", what.kernel),
        ("initrd", what.initrd),
        ("cmdline", what.kernel_args),
    ):
        if value:
            _text(system, tag, value)
    SubElement(system, "bootmenu", enable="yes" if spec.boot.menu else "no")


def _features(domain: Element, spec: VmSpec) -> None:
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    if spec.secure_boot:
        SubElement(features, "smm", state="on")
    SubElement(features, "vmport", state="off")


def _cpu(domain: Element, spec: VmSpec, accel: str) -> None:
    model = spec.cpu or ("host" if accel == "kvm" else "max")
    modes = {"host": "host-passthrough", "max": "maximum"}
    if model in modes:
        cpu = SubElement(domain, "cpu", mode=modes[model])
    else:
        cpu = SubElement(domain, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", model, fallback="forbid")
    groups = spec.topology
    if groups is not None:
        SubElement(
            cpu,
            "topology",
            sockets=str(groups.sockets),
            dies=str(groups.dies),
            cores=str(groups.cores),
            threads=str(groups.threads),
        )


class _Targets:
    """Names for drives: vda, vdb, sda… one letter row a prefix."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def next(self, bus: Bus) -> str:
        prefix = _PREFIXES[bus]
        number = self._used.get(prefix, 0)
        self._used[prefix] = number + 1
        return prefix + chr(ord("a") + number)


def _drives(devices: Element, spec: VmSpec, launch: Launch) -> None:
    targets = _Targets()
    places = boot_order(spec, media=launch.media is not None)
    thread = 0
    for number, (disk, layers) in enumerate(zip(spec.disks, launch.disks, strict=True)):
        thread += disk.iothread
        on_disk = disk.iothread and disk.bus == "virtio"
        _drive(
            devices,
            disk,
            layers,
            target=targets.next(disk.bus or "virtio"),
            order=places.get(f"disk{number}"),
            iothread=thread if on_disk else None,
        )
    if launch.media is not None:
        bus: Bus = "sata" if spec.machine == "q35" else "ide"
        disc = DiskSpec(device="cdrom", bus=bus, read_only=True)
        _drive(devices, disc, (launch.media,), target=targets.next(bus), order=places["media"])
    if launch.seed:
        bus = main_bus(spec)
        cdrom = bus in ("scsi", "sata", "ide")
        disc = DiskSpec(device="cdrom" if cdrom else "disk", bus=bus, read_only=True)
        _drive(devices, disc, (DiskLayer(launch.seed, "raw"),), target=targets.next(bus))
    if any(disk.bus == "scsi" for disk in spec.disks):
        controller = SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
        for place, disk in enumerate((d for d in spec.disks if d.iothread), start=1):
            if disk.bus == "scsi":
                SubElement(controller, "driver", iothread=str(place))
                break


def _drive(
    devices: Element,
    disk: DiskSpec,
    layers: tuple[DiskLayer, ...],
    *,
    target: str,
    order: int | None = None,
    iothread: int | None = None,
) -> None:
    block = bool(layers) and layers[0].driver == "host_device"
    element = SubElement(devices, "disk", type="block" if block else "file", device=disk.device)
    driver = SubElement(element, "driver", name="qemu", type=layers[0].format if layers else "raw")
    for key, value in (
        ("cache", disk.cache),
        ("io", disk.io),
        ("discard", None if disk.read_only else disk.discard),
        ("detect_zeroes", disk.detect_zeroes),
        ("iothread", None if iothread is None else str(iothread)),
    ):
        if value is not None:
            driver.set(key, value)
    if layers:
        SubElement(element, "source", _source(layers[0]))
        _backing(element, layers)
    SubElement(element, "target", dev=target, bus=disk.bus or "virtio")
    if disk.serial:
        _text(element, "serial", disk.serial)
    if disk.shareable:
        SubElement(element, "shareable")
    if disk.read_only:
        SubElement(element, "readonly")
    if order is not None:
        SubElement(element, "boot", order=str(order + 1))


def _source(layer: DiskLayer) -> dict[str, str]:
    return {"dev" if layer.driver == "host_device" else "file": layer.path}


def _backing(parent: Element, layers: tuple[DiskLayer, ...]) -> None:
    """Spell the chain out to its end: an empty element says that nothing comes below."""
    for layer in layers[1:]:
        kind = "block" if layer.driver == "host_device" else "file"
        parent = SubElement(parent, "backingStore", type=kind)
        SubElement(parent, "format", type=layer.format)
        SubElement(parent, "source", _source(layer))
    if layers[-1].format == "qcow2":
        SubElement(parent, "backingStore")


def _card(devices: Element, card: Card, order: int | None) -> None:
    element = SubElement(devices, "interface", type=card.network.kind)
    if card.mac:
        SubElement(element, "mac", address=card.mac)
    if card.network.kind in ("network", "bridge"):
        SubElement(element, "source", {card.network.kind: card.bridge})
    SubElement(element, "model", type=card.network.model or "virtio")
    if order is not None:
        SubElement(element, "boot", order=str(order + 1))
    else:
        SubElement(element, "rom", enabled="no")


def _channels(devices: Element, spec: VmSpec, launch: Launch) -> None:
    serial = SubElement(devices, "serial", type="pty")
    if launch.console_log:
        SubElement(serial, "log", file=launch.console_log, append="off")
    SubElement(serial, "target", type="isa-serial", port="0")
    console = SubElement(devices, "console", type="pty")
    SubElement(console, "target", type="serial", port="0")
    if spec.agent:
        channel = SubElement(devices, "channel", type="unix")
        SubElement(channel, "target", type="virtio", name=AGENT_PORT)


def _screen(devices: Element, spec: VmSpec) -> None:
    graphics = spec.graphics
    if graphics.kind != "none":
        element = SubElement(
            devices,
            "graphics",
            type=graphics.kind,
            port=str(-1 if graphics.port is None else graphics.port),
            autoport="yes" if graphics.port is None else "no",
        )
        if graphics.password:
            element.set("passwd", graphics.password)
        SubElement(element, "listen", type="address", address=graphics.listen or ANY)
    video = SubElement(devices, "video")
    SubElement(video, "model", type=spec.video or "vga")


def _others(devices: Element, spec: VmSpec) -> None:
    if spec.rng:
        rng = SubElement(devices, "rng", model="virtio")
        _text(rng, "backend", "/dev/urandom", model="random")
    if spec.tpm is not None:
        tpm = SubElement(devices, "tpm", model=spec.tpm)
        SubElement(tpm, "backend", type="emulator", version="2.0")
    usb = any(disk.bus == "usb" for disk in spec.disks)
    SubElement(devices, "controller", type="usb", model="qemu-xhci" if usb else "none")
    SubElement(devices, "memballoon", model="none")
