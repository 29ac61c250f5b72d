"""Everything a QEMU command line is made of, resolved."""

from dataclasses import dataclass
from typing import Literal

from thinvirt.vm.spec import VmSpec

PROGRAM = "qemu-system-x86_64"

Endpoint = int | str
"""A listening socket: a descriptor that QEMU inherits, or a path that it creates."""


@dataclass(frozen=True, slots=True)
class DiskLayer:
    """One file of a disk's backing chain.

    Attributes:
        path: the file or block device.
        format: what is in it.
        driver: how the host gives it: "file", or "host_device" for block devices.
    """

    path: str
    format: Literal["qcow2", "raw"] = "qcow2"
    driver: Literal["file", "host_device"] = "file"


@dataclass(frozen=True, slots=True)
class LanPort:
    """The Unix datagram sockets between a network card and its switch."""

    local: str
    remote: str


@dataclass(frozen=True, slots=True)
class BridgePort:
    """A place on a bridge of the host.

    Attributes:
        bridge: the bridge.
        fd: an open tap device on it that QEMU inherits; None: QEMU's bridge helper makes one.
    """

    bridge: str
    fd: int | None = None


@dataclass(frozen=True, slots=True)
class FirmwareFiles:
    """The two flash images of UEFI: the code, and the VM's own copy of the variables."""

    code: str
    variables: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything the command line is made of.

    Attributes:
        name: the VM's name; the guest's host name too.
        uuid: SMBIOS system UUID; "" lets the tool that makes the VM choose one.
        generation: guid of this start, for the guest's vmgenid; "auto" lets QEMU make one.
        spec: what was asked for.
        memory_mib: memory, resolved.
        accel: "kvm" or "tcg".
        disks: the backing chain of every drive of `spec`, the writable layer first; () for an
            empty CD-ROM drive.
        media: the installer's disc, None where nothing is to be installed from one.
        seed: the seed disc's path, "" for none.
        macs: one hardware address for each network of `spec`, "none" left out; "" as of `uuid`.
        lan_ports: the sockets of those cards that are on a LAN, in order.
        bridge_ports: the places of those that are on a bridge or libvirt network, in order.
        firmware: the flash images of UEFI, None for BIOS.
        tpm: the path of the socket of the VM's TPM, "" for none.
        tpm_fd: instead of that, a connected socket that QEMU inherits.
        secret: a file with the password of VNC or SPICE, "" for none.
        spice_port: the port for SPICE where none was asked for.
        qmp: the control socket of commands.
        events: a second one, for whoever watches the VM for long.
        console, agent: the serial console and the guest agent's channel.
        console_log, firmware_log: files to record into, "" for none.
        event_record: where QEMU records its events (`thinvirt.run.event_record`), "" for nowhere.
        incoming: what the guest's state comes from ("defer": QMP will say), "" for a boot.
        program: the QEMU to run.
    """

    name: str
    uuid: str
    generation: str = "auto"
    spec: VmSpec
    memory_mib: int
    accel: str
    disks: tuple[tuple[DiskLayer, ...], ...]
    media: DiskLayer | None = None
    seed: str = ""
    macs: tuple[str, ...] = ()
    lan_ports: tuple[LanPort, ...] = ()
    bridge_ports: tuple[BridgePort, ...] = ()
    firmware: FirmwareFiles | None = None
    tpm: str = ""
    tpm_fd: int | None = None
    secret: str = ""
    spice_port: int = 5900
    qmp: Endpoint
    events: Endpoint
    console: Endpoint
    agent: Endpoint
    console_log: str = ""
    firmware_log: str = ""
    event_record: str = ""
    incoming: str = ""
    program: str = PROGRAM
