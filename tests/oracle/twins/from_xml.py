"""Facts from a libvirt domain XML: ours, or the one that virt-install prints."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, fromstring

from tests.oracle.twins.facts import Card, Drive, Facts, Screen, ranked
from tests.oracle.twins.from_argv import Option, cards_of, options_of

_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
_OSINFO = "{http://libosinfo.org/xmlns/libvirt/domain/1.0}"
_UNITS = {"KiB": 1 / 1024, "k": 1 / 1024, "MiB": 1, "M": 1, "GiB": 1024, "G": 1024}
_CACHES = {  # as the QEMU manual has it: write cache of the device, O_DIRECT, flushes ignored
    "writeback": (True, False, False),
    "none": (True, True, False),
    "writethrough": (False, False, False),
    "directsync": (False, True, False),
    "unsafe": (True, False, True),
}
_CPUS = {"maximum": "max", "host-passthrough": "host"}


def from_xml(text: str) -> Facts:
    """Return the facts of a domain."""
    domain = fromstring(text)
    args = [arg.get("value", "") for arg in domain.findall(f"{_QEMU}commandline/{_QEMU}arg")]
    handed_on = options_of(args)
    read = _Domain(domain, handed_on)
    system = read.need("os")
    features = domain.find("features")
    memory = read.need("memory")
    kind = read.need("os/type")
    loader = system.find("loader")
    machine = kind.get("machine", "")
    reboot = domain.findtext("on_reboot") or "restart"
    clock = domain.find("clock")
    return Facts(
        name=domain.findtext("name") or "",
        uuid=domain.findtext("uuid"),
        os=next((e.get("id") for e in domain.iter(f"{_OSINFO}os")), ""),
        accel={"qemu": "tcg"}.get(domain.get("type", ""), domain.get("type", "")),
        cpu=read.cpu(),
        vcpus=int(domain.findtext("vcpu") or 1),
        topology=read.topology(),
        memory_mib=int(int(memory.text or 0) * _UNITS[memory.get("unit", "KiB")]),
        machine="q35" if "q35" in machine else "pc" if machine.startswith("pc") else machine,
        acpi=features is not None and features.find("acpi") is not None,
        smm=read.state("features/smm", absent="off") == "on",
        vmport=read.state("features/vmport", absent="on") == "on",
        firmware=(loader.text or "") if loader is not None else "",
        variables=system.findtext("nvram") or "",
        secure=None if loader is None else loader.get("secure", "no") == "yes",
        kernel=system.findtext("kernel") or "",
        initrd=system.findtext("initrd") or "",
        kernel_args=system.findtext("cmdline") or "",
        menu=read.attribute("os/bootmenu", "enable") == "yes",
        reboot={"destroy": "stop", "restart": None}.get(reboot, reboot),
        clock=clock.get("offset", "utc") if clock is not None else "utc",
        timers=tuple(sorted(read.timers())),
        suspend=tuple(sorted(e.tag for e in domain.findall("pm/*") if e.get("enabled") == "no")),
        hyperv=tuple(sorted(e.tag for e in domain.findall("features/hyperv/*"))),
        genid=domain.find("genid") is not None,
        rng=domain.findtext("devices/rng/backend") or "",
        tpm=read.tpm(),
        balloon=read.attribute("devices/memballoon", "model") != "none",
        sound=tuple(e.get("model", "") for e in domain.findall("devices/sound")),
        inputs=tuple(
            sorted(
                f"usb-{e.get('type')}"
                for e in domain.findall("devices/input")
                if e.get("bus") == "usb"
            )
        ),
        usb=read.usb(),
        channels=tuple(e.get("name", "") for e in domain.findall("devices/channel/target")),
        redirections=len(domain.findall("devices/redirdev")),
        serials=len(domain.findall("devices/serial")),
        console_log=read.attribute("devices/serial/log", "file"),
        video=read.attribute("devices/video/model", "type"),
        others=tuple(sorted(read.others())),
        screen=read.screen(),
        drives=tuple(read.drives()),
        cards=(*read.cards(), *cards_of(handed_on, read.ranks)),
    )


class _Domain:
    """Where to look for what."""

    def __init__(self, domain: Element, handed_on: list[Option]) -> None:
        self.domain = domain
        orders = {
            str(number): int(boot.get("order", "0"))
            for number, device in enumerate(domain.findall("devices/*"))
            if (boot := device.find("boot")) is not None
        }
        orders |= {
            str(option[2]["id"]): int(option[2]["bootindex"])
            for option in handed_on
            if "bootindex" in option[2]
        }
        self.ranks = ranked(orders)
        self.places = {
            id(device): self.ranks[str(number)]
            for number, device in enumerate(domain.findall("devices/*"))
            if str(number) in self.ranks
        }

    def need(self, path: str) -> Element:
        element = self.domain.find(path)
        assert element is not None, f"the domain has no {path}"
        return element

    def attribute(self, path: str, name: str) -> str:
        element = self.domain.find(path)
        return element.get(name, "") if element is not None else ""

    def state(self, path: str, *, absent: str) -> str:
        element = self.domain.find(path)
        return absent if element is None else element.get("state", "on")

    def cpu(self) -> str:
        cpu = self.domain.find("cpu")
        if cpu is None:
            return ""
        mode = cpu.get("mode", "custom")
        return _CPUS.get(mode) or cpu.findtext("model") or mode

    def topology(self) -> str:
        groups = self.domain.find("cpu/topology")
        if groups is None:
            return f"{self.domain.findtext('vcpu') or 1}/1/1/1"
        return "/".join(groups.get(key, "1") for key in ("sockets", "dies", "cores", "threads"))

    def timers(self) -> Iterator[str]:
        for timer in self.domain.findall("clock/timer"):
            what = timer.get("tickpolicy") or ("off" if timer.get("present") == "no" else "on")
            if (timer.get("name"), what) != ("hpet", "on"):  # QEMU's default
                yield f"{timer.get('name')} {what}"

    def tpm(self) -> str:
        tpm = self.domain.find("devices/tpm")
        if tpm is None:
            return ""
        backend = tpm.find("backend")
        assert backend is not None
        return f"{tpm.get('model')} {backend.get('type')} {backend.get('version', '2.0')}"

    def usb(self) -> str:
        models = [
            e.get("model", "")
            for e in self.domain.findall("devices/controller")
            if e.get("type") == "usb"
        ]
        return "+".join(models) or "unsaid"

    def others(self) -> Iterator[str]:
        known = {
            "emulator", "disk", "controller", "interface", "serial", "console", "channel",
            "graphics", "video", "rng", "tpm", "memballoon", "sound", "input", "redirdev", "audio",
        }  # fmt: skip
        for device in self.domain.findall("devices/*"):
            if device.tag not in known:
                yield device.tag

    def screen(self) -> Screen:
        graphics = self.domain.find("devices/graphics")
        if graphics is None:
            return Screen(kind="none")
        listen = graphics.find("listen")
        address = graphics.get("listen") or (
            listen.get("address", "") if listen is not None else ""
        )
        port = int(graphics.get("port", "-1"))
        return Screen(
            kind=graphics.get("type", ""),
            listen=address or "",
            port=None if port == -1 or graphics.get("autoport") == "yes" else port,
            password=bool(graphics.get("passwd")),
        )

    def drives(self) -> Iterator[Drive]:
        threads = {
            e.get("model"): e.find("driver[@iothread]") is not None
            for e in self.domain.findall("devices/controller")
            if e.get("type") == "scsi"
        }
        for disk in self.domain.findall("devices/disk"):
            target, driver, source = disk.find("target"), disk.find("driver"), disk.find("source")
            assert target is not None
            driver = Element("driver") if driver is None else driver
            bus, kind = target.get("bus", ""), disk.get("device", "disk")
            write, direct, no_flush = _CACHES[driver.get("cache", "writeback")]
            read_only = disk.find("readonly") is not None
            yield Drive(
                bus=bus,
                device=kind,
                source="" if source is None else source.get("file") or source.get("dev") or "",
                format=driver.get("type") if source is not None else None,
                access=disk.get("type", "") if source is not None else "file",
                below=self._below(disk, driver.get("type", "")) if source is not None else None,
                write_cache=write if kind == "disk" else None,
                direct=direct,
                no_flush=no_flush,
                io=driver.get("io", "threads"),
                discard=driver.get("discard", "ignore"),
                detect_zeroes=driver.get("detect_zeroes", "off"),
                read_only=read_only,
                shareable=disk.find("shareable") is not None,
                serial=disk.findtext("serial") or "",
                boot=self.places.get(id(disk)),
                thread=driver.get("iothread") is not None
                or (bus == "scsi" and threads.get("virtio-scsi", False)),
            )

    def _below(self, disk: Element, kind: str) -> tuple[str, ...] | None:
        """Return the chain; None if the XML leaves it to what the image says."""
        below, layers = disk.find("backingStore"), []
        if below is None:
            return () if kind == "raw" else None
        while below is not None and below.find("source") is not None:
            source, form = below.find("source"), below.find("format")
            assert source is not None
            assert form is not None
            layers.append(f"{form.get('type')}:{source.get('file') or source.get('dev')}")
            below = below.find("backingStore")
        return tuple(layers)

    def cards(self) -> Iterator[Card]:
        for interface in self.domain.findall("devices/interface"):
            source, mac = interface.find("source"), interface.find("mac")
            kind = interface.get("type", "")
            model, rom = interface.find("model"), interface.find("rom")
            yield Card(
                kind=kind,
                name=source.get(kind, "") if source is not None else "",
                model=model.get("type", "") if model is not None else "",
                mac=mac.get("address") if mac is not None else None,
                boot=self.places.get(id(interface)),
                rom=rom is None or rom.get("enabled") != "no",
            )
