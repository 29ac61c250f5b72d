"""Facts from a QEMU command line: ours, or the one that libvirt makes of an XML.

Both grammars of options are read, ``key=value,…`` and JSON, and both ways to name drives.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tests.oracle.twins.facts import Card, Drive, Facts, Screen, ranked

Option = tuple[str, str, dict[str, Any]]  # the option, its value as text, and read

_DISKS = {
    "virtio-blk-pci": ("virtio", "disk"),
    "scsi-hd": ("scsi", "disk"),
    "scsi-cd": ("scsi", "cdrom"),
    "ide-hd": ("ide", "disk"),
    "ide-cd": ("ide", "cdrom"),
    "usb-storage": ("usb", "disk"),
}
_CARDS = {"virtio-net-pci": "virtio"} | {
    name: name for name in ("e1000", "e1000e", "rtl8139", "vmxnet3", "pcnet", "ne2k_pci")
}
_VIDEOS = {
    "VGA": "vga",
    "virtio-vga": "virtio",
    "qxl-vga": "qxl",
    "cirrus-vga": "cirrus",
    "bochs-display": "bochs",
}
_WITHOUT_VALUE = {"-nodefaults", "-no-user-config", "-no-shutdown", "-no-hpet", "-no-acpi", "-S",
                  "-enable-kvm", "-no-reboot"}  # fmt: skip
_CONTROLLERS = re.compile(
    r"pcie-root-port|pcie-pci-bridge|pci-bridge|virtio-scsi-pci|ich9-ahci|ahci|qemu-xhci|usb-bot|"
    r"virtio-serial-pci|piix3-usb-uhci|isa-debugcon"
)
_KNOWN = {
    "-name", "-nodefaults", "-no-user-config", "-sandbox", "-msg", "-uuid", "-machine", "-accel",
    "-cpu", "-smp", "-m", "-rtc", "-boot", "-action", "-device", "-object", "-blockdev", "-netdev",
    "-chardev", "-mon", "-serial", "-kernel", "-initrd", "-append", "-global", "-vnc", "-spice",
    "-display", "-tpmdev", "-overcommit", "-no-shutdown", "-S", "-audiodev", "-incoming",
    "-no-hpet", "-no-acpi", "-no-reboot", "-add-fd",
}  # fmt: skip


def parse_value(text: str) -> dict[str, Any]:
    """Return an option's value by key; what stands first without one is under ""."""
    if text.startswith("{"):
        found: dict[str, Any] = json.loads(text)
        return found
    values: dict[str, Any] = {}
    for part in _parts(text):
        key, equals, value = part.partition("=")
        if key == "hostfwd":  # the one key that may stand several times
            values.setdefault("hostfwd*", []).append(value)
        elif equals:
            values[key] = value
        else:
            values["" if not values else part] = part
    return values


def _parts(text: str) -> list[str]:
    """Return what stands between single commas; a doubled one is part of a value."""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


def options_of(words: Sequence[str]) -> list[Option]:
    """Return the options of a command line without its program."""
    found: list[Option] = []
    position = 0
    while position < len(words):
        name = words[position]
        position += 1
        if name in _WITHOUT_VALUE:
            found.append((name, "", {}))
            continue
        value = words[position]
        position += 1
        found.append((name, value, parse_value(value)))
    return found


def from_argv(words: Sequence[str]) -> Facts:
    """Return the facts of a command line, the program first."""
    options = options_of(words[1:])
    line = _Line(options)
    machine = line.one("-machine")
    smp = line.one("-smp")
    board = str(machine.get("", machine.get("type", "")))
    vcpus = int(smp.get("", smp.get("cpus", 1)))
    order = line.boot_order()
    loader, variables = line.firmware(machine)
    rtc = line.one("-rtc")
    return Facts(
        name=str(line.one("-name").get("guest") or line.one("-name").get("")),
        uuid=line.text("-uuid") or None,
        accel=str(line.one("-accel").get("") or machine.get("accel", "")),
        cpu=line.text("-cpu").partition(",")[0],
        vcpus=vcpus,
        topology="/".join(
            str(smp.get(key, vcpus if key == "sockets" else 1))
            for key in ("sockets", "dies", "cores", "threads")
        ),
        memory_mib=_memory(line.one("-m")),
        machine="q35" if "q35" in board else "pc" if board.startswith("pc") else board,
        acpi="-no-acpi" not in line.names and machine.get("acpi") != "off",
        smm=machine.get("smm") == "on",
        vmport=machine.get("vmport") != "off",
        firmware=loader,
        variables=variables,
        secure=any(
            option[2].get("property") == "secure" or "cfi.pflash01.secure" in option[2]
            for option in line.all("-global")
        )
        if loader
        else None,
        kernel=line.text("-kernel"),
        initrd=line.text("-initrd"),
        kernel_args=line.text("-append"),
        menu=line.one("-boot").get("menu") == "on",
        reboot="stop" if line.one("-action").get("reboot") == "shutdown" else None,
        clock=str(rtc.get("base", "utc")),
        timers=tuple(line.timers(rtc, machine)),
        suspend=tuple(sorted(line.no_sleep())),
        hyperv=tuple(part for part in line.text("-cpu").split(",") if part.startswith("hv-")),
        genid=bool(line.devices("vmgenid")),
        rng=line.rng(),
        tpm=line.tpm(),
        balloon=bool(line.devices("virtio-balloon-pci")),
        sound=tuple(sorted(d for d in line.drivers if "hda" in d or "ac97" in d.lower())),
        inputs=tuple(sorted(d for d in line.drivers if re.fullmatch(r"usb-(tablet|mouse|kbd)", d))),
        usb="qemu-xhci" if line.devices("qemu-xhci") else "none",
        channels=tuple(str(d.get("name", "")) for d in line.devices("virtserialport", "spicevmc")),
        redirections=len(line.devices("usb-redir")),
        serials=len(line.all("-serial")) + len(line.devices("isa-serial")),
        console_log=line.console_log(),
        video=next((_VIDEOS[name] for name in line.drivers if name in _VIDEOS), "none"),
        others=tuple(sorted(line.others())),
        screen=line.screen(),
        drives=tuple(line.drives(order)),
        cards=tuple(cards_of(options, order)),
    )


def _memory(value: dict[str, Any]) -> int:
    text = str(value.get("size") or value.get(""))
    factors = {"k": 1 / 1024, "M": 1, "G": 1024}
    return int(int(text[:-1]) * factors[text[-1]]) if text[-1] in factors else int(text)


def cards_of(options: list[Option], order: dict[str, int]) -> Iterator[Card]:
    """Yield the network cards of a command line, or of the end of one."""
    nets = {o[2].get("id"): o[2] for o in options if o[0] == "-netdev"}
    for name, _, device in options:
        driver = device.get("driver") or device.get("")
        if name != "-device" or driver not in _CARDS:
            continue
        net = nets[device["netdev"]]
        kind = str(net.get("type") or net.get(""))
        forwards = net.get("hostfwd*") or [f["str"] for f in net.get("hostfwd", [])]
        told = sorted(f for f in forwards if not re.fullmatch(r"tcp:127\.0\.0\.1:0-:22", f))
        rom = device.get("romfile")
        yield Card(
            kind={"dgram": "lan", "tap": None}.get(kind, kind),
            name={"bridge": net.get("br"), "dgram": net.get("remote.path")}.get(
                kind, "" if kind == "user" else None
            ),
            model=_CARDS[str(driver)],
            mac=device.get("mac"),
            boot=order.get(str(device.get("id"))),
            rom=rom != "",
            forwards=tuple(told),
            ssh=len(told) != len(forwards),
            hostname=str(net.get("hostname", "")),
        )


class _Line:
    """Options by their names."""

    def __init__(self, options: list[Option]) -> None:
        self.options = options
        self.names = {option[0] for option in options}
        self.drivers = [self._driver(device) for _, _, device in self.all("-device")]
        self.nodes = {str(node["node-name"]): node for _, _, node in self.all("-blockdev")}

    def all(self, name: str) -> list[Option]:
        return [option for option in self.options if option[0] == name]

    def one(self, name: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for option in self.all(name):
            merged |= option[2]
        return merged

    def text(self, name: str) -> str:
        return next((option[1] for option in self.all(name)), "")

    def devices(self, *drivers: str) -> list[dict[str, Any]]:
        return [d for _, _, d in self.all("-device") if self._driver(d) in drivers]

    @staticmethod
    def _driver(device: dict[str, Any]) -> str:
        return str(device.get("driver") or device.get(""))

    def boot_order(self) -> dict[str, int]:
        return ranked(
            {
                str(d["id"]): int(d["bootindex"])
                for _, _, d in self.all("-device")
                if "bootindex" in d
            }
        )

    def firmware(self, machine: dict[str, Any]) -> tuple[str, str]:
        found = []
        for key in ("pflash0", "pflash1"):
            node: Any = self.nodes.get(str(machine.get(key)), {})
            file = node.get("file", {})
            file = self.nodes[file] if isinstance(file, str) else file
            found.append(str(file.get("filename", "")))
        return found[0], found[1]

    def timers(self, rtc: dict[str, Any], machine: dict[str, Any]) -> Iterator[str]:
        if "-no-hpet" in self.names or machine.get("hpet") == "off":
            yield "hpet off"
        for _, text, option in self.all("-global"):
            if "lost_tick_policy" in text:
                yield f"pit {option.get('value') or text.rpartition('=')[2]}"
        if rtc.get("driftfix") == "slew":
            yield "rtc catchup"

    def no_sleep(self) -> Iterator[str]:
        """Yield the sleep states that the guest is not offered."""
        for _, text, option in self.all("-global"):
            value = option.get("value") or text.rpartition("=")[2]
            for name, word in (("disable_s3", "mem"), ("disable_s4", "disk")):
                if name in text and value in ("1", "on", "true"):
                    yield f"suspend-to-{word}"

    def rng(self) -> str:
        if not self.devices("virtio-rng-pci"):
            return ""
        return next(
            str(o["filename"])
            for _, _, o in self.all("-object")
            if (o.get("qom-type") or o.get("")) == "rng-random"
        )

    def tpm(self) -> str:
        backend = self.one("-tpmdev").get("") or self.one("-tpmdev").get("type")
        model = next((name for name in self.drivers if name.startswith("tpm-")), "")
        return f"{model} {backend} 2.0" if model else ""

    def console_log(self) -> str | None:
        serial = self.text("-serial").removeprefix("chardev:")
        wanted = {serial} | {str(d.get("chardev")) for d in self.devices("isa-serial")}
        for _, _, chardev in self.all("-chardev"):
            if chardev.get("id") in wanted:
                return str(chardev.get("logfile", ""))
        return None

    def screen(self) -> Screen:
        if "-vnc" in self.names:
            where = str(self.one("-vnc").get(""))
            address, _, number = where.rpartition(":")
            vnc = self.one("-vnc")
            return Screen(
                kind="vnc",
                listen=address.strip("[]"),
                port=None if "to" in vnc else 5900 + int(number),
                password="password" in vnc or "password-secret" in vnc,
            )
        if "-spice" in self.names:
            spice = self.one("-spice")
            return Screen(
                kind="spice",
                listen=str(spice.get("addr", "")),
                port=int(spice["port"]),
                password=spice.get("disable-ticketing") != "on",
            )
        return Screen(kind="none")

    def others(self) -> Iterator[str]:
        """Yield whatever no fact was made of: nothing shall go unseen."""
        yield from self.names - _KNOWN
        for driver in self.drivers:
            if (
                driver in _DISKS
                or driver in _CARDS
                or driver in _VIDEOS
                or _CONTROLLERS.fullmatch(driver)
                or driver.startswith(("tpm-", "usb-", "virtserialport", "spicevmc"))
                or driver in ("vmgenid", "virtio-rng-pci", "virtio-balloon-pci", "isa-serial")
                or "hda" in driver
            ):
                continue
            yield driver

    def drives(self, order: dict[str, int]) -> Iterator[Drive]:
        for _, _, device in self.all("-device"):
            driver = self._driver(device)
            if driver not in _DISKS:
                continue
            bus, kind = _DISKS[driver]
            place = str(device.get("bus", ""))
            if driver == "scsi-cd" and place.startswith(("bot", "usb")):
                bus = "usb"
            if bus == "ide" and self._is_sata(place):
                bus = "sata"
            yield self._drive(device, bus, kind, order.get(str(device.get("id"))))

    def _is_sata(self, place: str) -> bool:
        """Tell AHCI from IDE: ports of q35's controller are named ``ide.N`` as well."""
        return not place.startswith("ide.") or "q35" in self.text("-machine")

    def _drive(self, device: dict[str, Any], bus: str, kind: str, boot: int | None) -> Drive:
        node = self.nodes.get(str(device.get("drive")))
        write = device.get("write-cache")
        known: dict[str, Any] = {
            "bus": bus,
            "device": kind,
            "write_cache": (write in (None, "on", "auto", True)) if kind == "disk" else None,
            "shareable": device.get("share-rw") in ("on", True),
            "serial": str(device.get("serial", "")),
            "boot": boot,
            "thread": "iothread" in device or (bus == "scsi" and self._scsi_thread()),
        }
        if node is None:
            return Drive(**known, read_only=True)
        file = self._file(node)
        cache = node.get("cache", {}) | file.get("cache", {})
        return Drive(
            **known,
            source=str(file["filename"]),
            format=str(node["driver"]),
            access="block" if file["driver"] == "host_device" else "file",
            below=tuple(self._below(node)),
            direct=bool(cache.get("direct", False)),
            no_flush=bool(cache.get("no-flush", False)),
            io=str(file.get("aio", "threads")),
            discard=str(node.get("discard", "ignore")),
            detect_zeroes=str(node.get("detect-zeroes", "off")),
            read_only=bool(node.get("read-only", False)),
        )

    def _scsi_thread(self) -> bool:
        return any("iothread" in d for d in self.devices("virtio-scsi-pci"))

    def _file(self, node: dict[str, Any]) -> dict[str, Any]:
        file: Any = node["file"]
        return self.nodes[file] if isinstance(file, str) else dict(file)

    def _below(self, node: dict[str, Any]) -> Iterator[str]:
        below: Any = node.get("backing")
        while below:
            layer = self.nodes[below] if isinstance(below, str) else below
            yield f"{layer['driver']}:{self._file(layer)['filename']}"
            below = layer.get("backing")
