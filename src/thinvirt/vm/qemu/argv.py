"""The QEMU command line of a VM, from values that are all known: a pure function.

Nothing is left to QEMU's guessing: every device is named (``-nodefaults``).
"""

from collections.abc import Iterator
from dataclasses import replace

from thinvirt.vm.qemu.disks import drive_options
from thinvirt.vm.qemu.launch import PROGRAM, Endpoint, Launch
from thinvirt.vm.qemu.text import Option, as_json, escape
from thinvirt.vm.spec import BootSpec, GraphicsSpec, InstallSpec, NetworkSpec, VmSpec
from thinvirt.vm.spec.defaults import with_defaults
from thinvirt.vm.spec.words import LOOPBACK, VNC_BASE_PORT, BootDevice, NetworkModel, Video

__all__ = ["PROGRAM", "qemu_argv"]

AGENT_PORT = "org.qemu.guest_agent.0"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn={spawn},resourcecontrol=deny"
SSH_GUEST_PORT = 22
DEBUG_PORT = 0x402  # where SeaBIOS and OVMF write what they do
VNC_SEARCH = 9999  # without a port: how many above 5900 are tried
_CARDS: dict[NetworkModel, str] = {"virtio": "virtio-net-pci"}  # others: as they are called
_VIDEOS: dict[Video, str] = {
    "vga": "VGA",
    "virtio": "virtio-vga",
    "qxl": "qxl-vga",
    "cirrus": "cirrus-vga",
    "bochs": "bochs-display",
}


def qemu_argv(launch: Launch) -> list[str]:
    """Return the command line, the program first."""
    launch = replace(launch, spec=with_defaults(launch.spec))
    return [launch.program, *(word for option in _options(launch) for word in option)]


def boot_order(spec: VmSpec, *, media: bool = False) -> dict[str, int]:
    """Return the places of ``disk0``…, ``nic0``… and ``media`` among what is booted from, from 0.

    Args:
        spec: what was asked for.
        media: whether an installer's disc is there: it comes first.
    """
    drives = {f"disk{n}": disk for n, disk in enumerate(spec.disks)}
    cards = {f"nic{n}": card for n, card in enumerate(spec.cards)}
    wishes = {name: drive.boot_order for name, drive in drives.items()}
    wishes |= {name: card.boot_order for name, card in cards.items()}
    asked = [(number, name) for name, number in wishes.items() if number is not None]
    if asked:
        names = [name for _, name in sorted(asked)]
    else:
        kinds = {
            "hd": [name for name, drive in drives.items() if drive.device == "disk"],
            "cdrom": [name for name, drive in drives.items() if drive.device == "cdrom"],
            "network": list(cards),
        }
        order: tuple[BootDevice, ...] = spec.boot.order or ("hd", "cdrom")
        if spec.install is not None and spec.install.boot is not None:
            first = spec.install.boot
            order = (first, *(kind for kind in order if kind != first))
        names = [name for kind in order for name in kinds[kind]]
    return {name: place for place, name in enumerate([*(["media"] if media else []), *names])}


def _options(launch: Launch) -> Iterator[Option]:
    places = boot_order(launch.spec, media=launch.media is not None)
    if _kernel_of(launch.spec).kernel:  # QEMU gives its loader the first place
        places = {name: place + 1 for name, place in places.items()}
    yield from _base(launch)
    yield from _kernel(launch.spec)
    yield from drive_options(launch, places)
    yield from network_options(launch, places)
    yield from _channels(launch)
    yield from _tpm(launch)
    yield from _screen(launch)
    if launch.incoming:
        yield "-incoming", launch.incoming


def _base(launch: Launch) -> Iterator[Option]:
    spec = launch.spec
    name = escape(launch.name)
    yield "-name", f"guest={name},process=qemu-{name[:10]}"  # the kernel keeps 15 characters
    yield ("-nodefaults",)
    yield ("-no-user-config",)
    helper = any(port.fd is None for port in launch.bridge_ports)
    yield "-sandbox", SANDBOX.format(spawn="allow" if helper else "deny")
    yield "-msg", "timestamp=on"
    if launch.uuid:
        yield "-uuid", launch.uuid
    yield from _machine(launch)
    yield "-accel", launch.accel
    yield "-cpu", spec.cpu or ("host" if launch.accel == "kvm" else "max")
    yield "-smp", _cpus(spec)
    yield "-m", f"size={launch.memory_mib}M"
    yield "-rtc", "base=utc"
    # The boot order is fixed by bootindex, and SeaBIOS does not wait for a key.
    yield "-boot", f"menu={'on' if spec.boot.menu else 'off'},strict=on"
    if spec.install is not None:
        yield "-action", "reboot=shutdown"  # the second phase starts without the installer
    if spec.vmgenid:
        yield "-device", f"vmgenid,guid={launch.generation}"
    if spec.rng:
        yield "-object", "rng-random,id=rng0,filename=/dev/urandom"
        yield "-device", "virtio-rng-pci,rng=rng0"


def _machine(launch: Launch) -> Iterator[Option]:
    words = f"{launch.spec.machine},usb=off,vmport=off,dump-guest-core=off"
    if launch.firmware is None:
        yield "-machine", words
        return
    files = (launch.firmware.code, launch.firmware.variables)
    for number, path in enumerate(files):
        node = {
            "driver": "raw",
            "node-name": f"pflash{number}",
            "read-only": number == 0,
            "file": {"driver": "file", "filename": path, "read-only": number == 0},
        }
        yield "-blockdev", as_json(node)
    smm = ",smm=on" if launch.spec.secure_boot else ""
    yield "-machine", f"{words}{smm},pflash0=pflash0,pflash1=pflash1"
    if launch.spec.secure_boot:
        yield "-global", "driver=cfi.pflash01,property=secure,value=on"


def _cpus(spec: VmSpec) -> str:
    groups = spec.topology
    if groups is None:
        return str(spec.vcpus)
    dies = f",dies={groups.dies}" if groups.dies > 1 else ""
    return (
        f"{spec.vcpus},sockets={groups.sockets}{dies},cores={groups.cores},threads={groups.threads}"
    )


def _kernel_of(spec: VmSpec) -> BootSpec | InstallSpec:
    """Return what names the kernel that is started directly, if there is one."""
    return spec.install if spec.install is not None and spec.install.kernel else spec.boot


def _kernel(spec: VmSpec) -> Iterator[Option]:
    what = _kernel_of(spec)
    for option, value in (
        ("-kernel", what.kernel),
        ("-initrd", what.initrd),
        ("-append", what.kernel_args),
    ):
        if value:
            yield option, value


def network_options(launch: Launch, places: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield two options for each card: its network, and the device.

    Args:
        launch: everything about the VM.
        places: of the cards among what is booted from (`boot_order`).
    """
    lan_ports, bridge_ports = iter(launch.lan_ports), iter(launch.bridge_ports)
    for number, (network, mac) in enumerate(zip(launch.spec.cards, launch.macs, strict=True)):
        net = f"net{number}"
        match network.kind:
            case "user":
                yield "-netdev", _user_network(launch, net)
            case "lan":
                port = next(lan_ports)
                yield (
                    "-netdev",
                    f"dgram,id={net},local.type=unix,local.path={escape(port.local)},"
                    f"remote.type=unix,remote.path={escape(port.remote)}",
                )
            case _:
                place = next(bridge_ports)
                how = f"bridge,id={net},br={escape(place.bridge)}"
                yield "-netdev", how if place.fd is None else f"tap,id={net},fd={place.fd}"
        yield "-device", _card(network, number, mac, places.get(f"nic{number}"))


def _card(network: NetworkSpec, number: int, mac: str, order: int | None) -> str:
    model = network.model or "virtio"
    # Without its option ROM unless the guest boots from it: running it costs boot time.
    boot = "romfile=" if order is None else f"bootindex={order}"
    address = f"mac={mac}," if mac else ""
    return f"{_CARDS.get(model, model)},netdev=net{number},id=nic{number},{address}{boot}"


def _user_network(launch: Launch, net: str) -> str:
    """Return the user network; port 0 lets the kernel choose the SSH port, free of races."""
    forwards = [f"hostfwd=tcp:{LOOPBACK}:0-:{SSH_GUEST_PORT}"]
    forwards += [
        f"hostfwd={f.protocol}:{escape(f.host_address)}:{f.host_port}-:{f.guest_port}"
        for f in launch.spec.forwards
    ]
    hostname = escape(launch.name)
    return ",".join([f"user,id={net},hostname={hostname}", *forwards])


def _channels(launch: Launch) -> Iterator[Option]:
    for name, endpoint in (("qmp", launch.qmp), ("events", launch.events)):
        yield "-chardev", f"socket,id={name},{_listening(endpoint)}"
        yield "-mon", f"chardev={name},mode=control"
    if launch.event_record:
        yield "-chardev", f"pipe,id=record,path={escape(launch.event_record)}"
        yield "-mon", "chardev=record,mode=control"
    log = f",logfile={escape(launch.console_log)},logappend=off" if launch.console_log else ""
    yield "-chardev", f"socket,id=console,{_listening(launch.console)}{log}"
    yield "-serial", "chardev:console"
    if launch.spec.agent:
        yield "-device", "virtio-serial-pci,id=serial0,max_ports=2"
        yield "-chardev", f"socket,id=agent,{_listening(launch.agent)}"
        yield "-device", f"virtserialport,bus=serial0.0,nr=1,chardev=agent,name={AGENT_PORT}"
    if launch.firmware_log:
        yield "-chardev", f"file,id=firmware,path={escape(launch.firmware_log)}"
        yield "-device", f"isa-debugcon,iobase={DEBUG_PORT:#x},chardev=firmware"


def _listening(endpoint: Endpoint) -> str:
    where = f"fd={endpoint}" if isinstance(endpoint, int) else f"path={escape(endpoint)}"
    return f"{where},server=on,wait=off"


def _tpm(launch: Launch) -> Iterator[Option]:
    if launch.spec.tpm is None or (not launch.tpm and launch.tpm_fd is None):
        return
    where = f"path={escape(launch.tpm)}" if launch.tpm else f"fd={launch.tpm_fd}"
    yield "-chardev", f"socket,id=tpm-socket,{where}"
    yield "-tpmdev", "emulator,id=tpm0,chardev=tpm-socket"
    yield "-device", f"{launch.spec.tpm},tpmdev=tpm0"


def _screen(launch: Launch) -> Iterator[Option]:
    video = launch.spec.video or "vga"
    if video != "none":
        yield "-device", f"{_VIDEOS[video]},id=video0"
    graphics = launch.spec.graphics
    if launch.secret and graphics.kind != "none":
        yield "-object", f"secret,id=screen-password,file={escape(launch.secret)}"
    match graphics.kind:
        case "none":
            yield "-display", "none"
        case "vnc":
            password = ",password-secret=screen-password" if launch.secret else ""
            yield "-vnc", f"{_vnc_display(graphics)}{password}"
        case _:
            ticket = "password-secret=screen-password" if launch.secret else "disable-ticketing=on"
            port = graphics.port or launch.spice_port
            yield "-spice", f"addr={escape(graphics.listen)},port={port},{ticket}"


def _vnc_display(graphics: GraphicsSpec) -> str:
    address = escape(graphics.listen)
    if ":" in address and not address.startswith("["):
        address = f"[{address}]"
    if graphics.port is None:
        return f"{address}:0,to={VNC_SEARCH}"
    return f"{address}:{graphics.port - VNC_BASE_PORT}"
