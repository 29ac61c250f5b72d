"""The QEMU command line of a VM, from values that are all known: a pure function.

Nothing is left to QEMU's guessing: every layer of the disk has its format, so that no file's
content is ever probed (a guest could otherwise write a qcow2 header into its raw disk and have the
next start open what it names), and every device is named (``-nodefaults``).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from thinvirt.vm.spec import LOOPBACK, Bus, Cache, Machine, VmSpec

PROGRAM = "qemu-system-x86_64"
AGENT_PORT = "org.qemu.guest_agent.0"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
SSH_GUEST_PORT = 22
DEBUG_PORT = 0x402  # where SeaBIOS and OVMF write what they do
VNC_BASE_PORT = 5900
VNC_SEARCH = 9999  # with "auto": how many ports above 5900 are tried

Endpoint = int | str
"""A listening socket: a descriptor that QEMU inherits, or a path that it creates."""


@dataclass(frozen=True, slots=True)
class DiskLayer:
    """One file of the disk's backing chain."""

    path: str
    format: Literal["qcow2", "raw"] = "qcow2"


@dataclass(frozen=True, slots=True)
class LanPort:
    """The Unix datagram sockets between a network card and its switch."""

    local: str
    remote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything the command line is made of.

    Attributes:
        name: the VM's name; the guest's host name too.
        uuid: SMBIOS system UUID.
        generation: guid of this start, for the guest's vmgenid; "auto" lets QEMU make one.
        spec: what was asked for.
        memory_mib: memory, resolved.
        accel: "kvm" or "tcg".
        disk: the backing chain, the writable overlay first.
        seed: the seed disc's path, "" for none.
        macs: one hardware address for each network of `spec`, "none" left out.
        lan_ports: the sockets of those cards that are on a LAN, in order.
        qmp: the control socket of commands.
        events: a second one, for whoever watches the VM for long.
        console, agent: the serial console and the guest agent's channel.
        console_log, firmware_log: files to record into, "" for none.
        program: the QEMU to run.
    """

    name: str
    uuid: str
    generation: str = "auto"
    spec: VmSpec
    memory_mib: int
    accel: str
    disk: tuple[DiskLayer, ...]
    seed: str = ""
    macs: tuple[str, ...] = ()
    lan_ports: tuple[LanPort, ...] = ()
    qmp: Endpoint
    events: Endpoint
    console: Endpoint
    agent: Endpoint
    console_log: str = ""
    firmware_log: str = ""
    program: str = PROGRAM


def qemu_argv(launch: Launch) -> list[str]:
    """Return the command line, the program first."""
    return [launch.program, *_flatten(_options(launch))]


Option = tuple[str, str] | tuple[str]


def _options(launch: Launch) -> Iterator[Option]:
    yield from _base(launch)
    yield from _disk(launch)
    if launch.seed:
        yield from _seed(launch)
    yield from _networks(launch)
    yield from _channels(launch)
    yield from _screen(launch.spec.vnc)


def _base(launch: Launch) -> Iterator[Option]:
    spec = launch.spec
    name = _escape(launch.name)
    yield "-name", f"guest={name},process=qemu-{name[:10]}"  # the kernel keeps 15 characters
    yield ("-nodefaults",)
    yield ("-no-user-config",)
    yield "-sandbox", SANDBOX
    yield "-msg", "timestamp=on"
    yield "-uuid", launch.uuid
    yield "-machine", f"{spec.machine_type},usb=off,vmport=off,dump-guest-core=off"
    yield "-accel", launch.accel
    yield "-cpu", "host" if launch.accel == "kvm" else "max"
    yield "-smp", str(spec.vcpus)
    yield "-m", f"size={launch.memory_mib}M"
    yield "-rtc", "base=utc"
    # The boot order is fixed by bootindex, and SeaBIOS does not wait for a key.
    yield "-boot", "menu=off,strict=on"
    yield "-device", f"vmgenid,guid={launch.generation}"
    yield "-object", "rng-random,id=rng0,filename=/dev/urandom"
    yield "-device", "virtio-rng-pci,rng=rng0"


def cache_flags(cache: Cache | None) -> tuple[bool, bool, bool]:
    """Return what a cache mode means: (write cache seen by the guest, O_DIRECT, flushes ignored).

    The table stands in QEMU's manual under ``-drive cache=``.
    """
    return {
        "writeback": (True, False, False),
        "none": (True, True, False),
        "writethrough": (False, False, False),
        "directsync": (False, True, False),
        "unsafe": (True, False, True),
    }[cache or "writeback"]


def blockdev(launch: Launch) -> dict[str, object]:
    """Return the disk's node: the overlay, with every layer below it spelled out to the last."""
    _, direct, no_flush = cache_flags(launch.spec.cache)
    cache = {"direct": direct, "no-flush": no_flush}
    node: dict[str, object] | None = None
    for depth in reversed(range(len(launch.disk))):
        layer = launch.disk[depth]
        below, top = node, depth == 0
        file: dict[str, object] = {
            "driver": "file",
            "filename": layer.path,
            "node-name": f"disk0-file{depth}",
            "cache": cache,
            "read-only": not top,
        }
        node = {
            "driver": layer.format,
            "node-name": f"disk0-layer{depth}",
            "cache": cache,
            "read-only": not top,
            "file": file,
        }
        if top and launch.spec.discard:
            node["discard"] = file["discard"] = launch.spec.discard
        if layer.format == "qcow2":
            node["backing"] = below  # null at the end: whatever its header names is not opened
    if node is None:
        raise ValueError("a disk has at least one layer")
    return node


def _disk(launch: Launch) -> Iterator[Option]:
    bus = launch.spec.bus
    yield "-blockdev", _json(blockdev(launch))
    yield from _controllers(bus, launch.spec.machine_type)
    write_cache = "on" if cache_flags(launch.spec.cache)[0] else "off"
    common = f"drive=disk0-layer0,id=disk0,bootindex=0,write-cache={write_cache}"
    device = {
        "virtio": "virtio-blk-pci",
        "scsi": "scsi-hd,bus=scsi0.0",
        "sata": f"ide-hd,bus={_sata_bus(launch.spec.machine_type)}.0",
        "ide": "ide-hd,bus=ide.0,unit=0",
    }[bus]
    yield "-device", f"{device},{common}"


def _controllers(bus: Bus, machine: Machine) -> Iterator[Option]:
    if bus == "scsi":
        yield "-device", "virtio-scsi-pci,id=scsi0"
    elif bus == "sata" and machine == "pc":
        yield "-device", "ich9-ahci,id=ahci"


def _sata_bus(machine: Machine) -> str:
    return "ide" if machine == "q35" else "ahci"


def _seed(launch: Launch) -> Iterator[Option]:
    """Attach the seed to the disk's own bus: the one the guest certainly has a driver for.

    Debian's cloud kernel, for one, knows neither IDE nor AHCI; guests find the disc by its label,
    so it need not be a CD-ROM.
    """
    yield (
        "-blockdev",
        _json(
            {
                "driver": "raw",
                "node-name": "seed",
                "read-only": True,
                "file": {"driver": "file", "filename": launch.seed, "read-only": True},
            }
        ),
    )
    device = {
        "virtio": "virtio-blk-pci",
        "scsi": "scsi-cd,bus=scsi0.0",
        "sata": f"ide-cd,bus={_sata_bus(launch.spec.machine_type)}.1",
        "ide": "ide-cd,bus=ide.1,unit=0",
    }[launch.spec.bus]
    yield "-device", f"{device},drive=seed,id=seed0"


def _networks(launch: Launch) -> Iterator[Option]:
    cards = [network for network in launch.spec.networks if network.kind != "none"]
    ports = iter(launch.lan_ports)
    for number, (network, mac) in enumerate(zip(cards, launch.macs, strict=True)):
        if network.kind == "user":
            yield "-netdev", _user_network(launch, number)
        else:
            port = next(ports)
            yield (
                "-netdev",
                f"dgram,id=net{number},local.type=unix,local.path={_escape(port.local)},"
                f"remote.type=unix,remote.path={_escape(port.remote)}",
            )
        # Without its option ROM: nobody boots from here, and running it costs boot time.
        yield "-device", f"virtio-net-pci,netdev=net{number},id=nic{number},mac={mac},romfile="


def _user_network(launch: Launch, number: int) -> str:
    """Return the user network; port 0 lets the kernel choose the SSH port, free of races."""
    forwards = [f"hostfwd=tcp:{LOOPBACK}:0-:{SSH_GUEST_PORT}"]
    forwards += [
        f"hostfwd={f.protocol}:{_escape(f.host_address)}:{f.host_port}-:{f.guest_port}"
        for f in launch.spec.forwards
    ]
    hostname = _escape(launch.name)
    return ",".join([f"user,id=net{number},hostname={hostname}", *forwards])


def _channels(launch: Launch) -> Iterator[Option]:
    for name, endpoint in (("qmp", launch.qmp), ("events", launch.events)):
        yield "-chardev", f"socket,id={name},{_listening(endpoint)}"
        yield "-mon", f"chardev={name},mode=control"
    log = f",logfile={_escape(launch.console_log)},logappend=off" if launch.console_log else ""
    yield "-chardev", f"socket,id=console,{_listening(launch.console)}{log}"
    yield "-serial", "chardev:console"
    yield "-device", "virtio-serial-pci,id=serial0,max_ports=2"
    yield "-chardev", f"socket,id=agent,{_listening(launch.agent)}"
    yield "-device", f"virtserialport,bus=serial0.0,nr=1,chardev=agent,name={AGENT_PORT}"
    if launch.firmware_log:
        yield "-chardev", f"file,id=firmware,path={_escape(launch.firmware_log)}"
        yield "-device", f"isa-debugcon,iobase={DEBUG_PORT:#x},chardev=firmware"


def _listening(endpoint: Endpoint) -> str:
    where = f"fd={endpoint}" if isinstance(endpoint, int) else f"path={_escape(endpoint)}"
    return f"{where},server=on,wait=off"


def _screen(vnc: str) -> Iterator[Option]:
    yield "-device", "VGA,id=video0"
    if vnc == "off":
        yield "-display", "none"
    elif vnc == "auto":
        yield "-vnc", f"{LOOPBACK}:0,to={VNC_SEARCH}"
    else:
        address, _, port = vnc.rpartition(":")
        yield "-vnc", f"{_escape(address)}:{int(port) - VNC_BASE_PORT}"


def _escape(value: str) -> str:
    """Return a value for QEMU's ``key=value,…`` grammar, where a comma is written twice."""
    return value.replace(",", ",,")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _flatten(options: Iterator[Option]) -> Iterator[str]:
    for option in options:
        yield from option
