"""The options that describe devices, each with the keys it takes.

Names and meanings are virt-install's (virt-install(1)); where it has a short and a dotted name for
one thing both are taken.
"""

from thinvirt.vm.cache_modes import EXPLAINED
from thinvirt.vm.grammar.fixed import (
    CHANNEL,
    CPU,
    FIXED,
    INSTALL,
    LOCATION,
    MEMORY,
    METADATA,
    RNG,
)
from thinvirt.vm.grammar.suboptions import Key, OptionTable
from thinvirt.vm.grammar.values import gibibytes, mac, text, whole, word, yes_no
from thinvirt.vm.spec.words import (
    MAX_VCPUS,
    VNC_BASE_PORT,
    Bus,
    Cache,
    DetectZeroes,
    Device,
    Discard,
    DiskFormat,
    Firmware,
    GraphicsKind,
    Io,
    NetworkKind,
    NetworkModel,
    TpmModel,
    Video,
)

_ORDER = Key("boot.order", "boot_order", whole(1, 99), "its place in the boot order, from 1")
_NO_POOLS = "storage pools are libvirt's: give path=, or size= for a disk in the store"

DISK = OptionTable(
    "--disk",
    "a disk or CD-ROM; none for a VM without",
    "path",
    (
        Key("path", "source", text, "file or block device", ("source.file", "source.dev")),
        Key("size", "size", gibibytes, "GiB of a disk that is made; a suffix says otherwise"),
        Key("format", "format", word(DiskFormat), "qcow2 or raw", ("driver.type",)),
        Key("bus", "bus", word(Bus), "virtio, scsi, sata, ide or usb", ("target.bus",)),
        Key("cache", "cache", word(Cache), "cache mode", ("driver.cache",), EXPLAINED),
        Key("io", "io", word(Io), "threads, native or io_uring", ("driver.io",)),
        Key("discard", "discard", word(Discard), "unmap or ignore", ("driver.discard",)),
        Key(
            "detect_zeroes",
            "detect_zeroes",
            word(DetectZeroes),
            "whether written zeroes become holes",
            ("driver.detect_zeroes",),
        ),
        Key("device", "device", word(Device), "disk or cdrom"),
        Key("readonly", "read_only", yes_no, "refuse writes"),
        Key("shareable", "shareable", yes_no, "let other VMs write it too"),
        Key("serial", "serial", text, "serial number the guest sees"),
        Key("backing_store", "backing", text, "backing file of a disk that is made"),
        Key("backing_format", "backing_format", word(DiskFormat), "its format"),
        Key("sparse", "sparse", yes_no, "no: reserve all of its space when it is made"),
        Key("iothread", "iothread", yes_no, "a thread of its own", ("driver.iothread",)),
        _ORDER,
    ),
    {
        "pool": _NO_POOLS,
        "vol": _NO_POOLS,
        "source.pool": _NO_POOLS,
        "source.volume": _NO_POOLS,
        "driver.name": "it is always qemu",
        "target.dev": "guests name disks by themselves; serial= marks one",
        "snapshot": "thinvirt keeps snapshots in the image",
        "snapshot_policy": "thinvirt keeps snapshots in the image",
        "transient": "thinvirt run gives disposable VMs",
        "type": "a file or a block device is told by looking at it",
    },
)

NETWORK = OptionTable(
    "--network",
    "a network card; none for a VM without",
    "type",
    (
        Key(
            "type",
            "kind",
            word(NetworkKind, default="network"),
            "user, lan, network, bridge or none",
        ),
        Key("network", "network", text, "libvirt network it is on", ("source.network",)),
        Key("bridge", "bridge", text, "bridge of the host it is on", ("source.bridge",)),
        Key("lan", "lan", text, "LAN of the store it is on (not of virt-install)"),
        Key("model", "model", word(NetworkModel), "the card", ("model.type",)),
        Key("mac", "mac", mac, "hardware address", ("mac.address",)),
        _ORDER,
    ),
    {
        "source": "give network=, bridge= or lan=",
        "filterref.filter": "network filters are libvirt's",
        "virtualport.type": "virtual ports are libvirt's",
        "portgroup": "port groups are libvirt's",
        "driver.name": "QEMU is given what the bridge gives it",
        "link.state": "a card is connected while its VM runs",
        "mtu.size": "guests set it by themselves",
    },
)

GRAPHICS = OptionTable(
    "--graphics",
    "how the screen is shown",
    "type",
    (
        Key("type", "kind", word(GraphicsKind), "vnc, spice or none"),
        Key("listen", "listen", text, "address it listens on (127.0.0.1); any for all"),
        Key("port", "port", whole(-1, 65535), f"TCP port, from {VNC_BASE_PORT}; -1 for a free one"),
        Key("password", "password", text, "what a viewer has to give", ("passwd",)),
    ),
    {
        "tlsport": "put a tunnel in front: ssh -L",
        "websocket": "the web page of thinvirt brings its own",
        "keymap": "viewers send what was pressed; keymaps were for old ones",
        "gl": "there is no window on the host to draw into",
        "rendernode": "there is no window on the host to draw into",
        "socket": "give listen= and port=",
    },
)

VCPUS = OptionTable(
    "--vcpus",
    "virtual CPUs and how they are grouped",
    "vcpus",
    (
        Key("vcpus", "vcpus", whole(1, MAX_VCPUS), "how many", ("vcpu.current",)),
        Key("sockets", "sockets", whole(1, MAX_VCPUS), "sockets", ("topology.sockets",)),
        Key("dies", "dies", whole(1, MAX_VCPUS), "dies a socket", ("topology.dies",)),
        Key("cores", "cores", whole(1, MAX_VCPUS), "cores a die", ("topology.cores",)),
        Key("threads", "threads", whole(1, MAX_VCPUS), "threads a core", ("topology.threads",)),
    ),
    {
        "maxvcpus": "CPUs are not plugged in while a VM runs",
        "cpuset": "taskset or a cgroup around the command places a VM",
        "vcpu.cpuset": "taskset or a cgroup around the command places a VM",
        "vcpu.placement": "taskset or a cgroup around the command places a VM",
    },
)

BOOT = OptionTable(
    "--boot",
    "what is booted: hd, cdrom, network, uefi, or keys",
    "",
    (
        Key("hd", "hd", yes_no, "disks; in the order that kinds are named"),
        Key("cdrom", "cdrom", yes_no, "CD-ROMs"),
        Key("network", "network", yes_no, "network cards"),
        Key("uefi", "uefi", yes_no, "start by UEFI"),
        Key("firmware", "firmware", word(Firmware, uefi="efi"), "efi or bios"),
        Key("menu", "menu", yes_no, "offer a boot menu", ("bootmenu.enable",)),
        Key("kernel", "kernel", text, "a Linux kernel that is started directly"),
        Key("initrd", "initrd", text, "its initial RAM disk"),
        Key("kernel_args", "kernel_args", text, "its command line", ("cmdline", "extra_args")),
        Key("secure_boot", "secure_boot", yes_no, "UEFI with secure boot", ("loader_secure",)),
    ),
    {
        "loader": "uefi picks the build that fits; it lies where its package put it",
        "loader.readonly": "uefi sees to it",
        "loader.type": "uefi sees to it",
        "nvram": "every VM has a variable store of its own in the store",
        "nvram.template": "every VM has a variable store of its own in the store",
        "fd": "there are no floppy drives",
        "bios": "SeaBIOS comes with QEMU",
        "dtb": "PCs have none",
        "useserial": "the console is recorded from the first character on",
    },
)

CLOUD_INIT = OptionTable(
    "--cloud-init",
    "what the guest's first boot is told",
    "",
    (
        Key("user-data", "user_data", text, "file with cloud-init user-data, or a script"),
        Key("meta-data", "meta_data", text, "file with further meta-data, as JSON"),
        Key("network-config", "network_config", text, "file with the network configuration"),
        Key(
            "ssh-key",
            "ssh_key",
            text,
            "public key file for the guest's user",
            ("clouduser-ssh-key", "root-ssh-key"),
        ),
        Key("disable", "disable", yes_no, "turn cloud-init off in the guest afterwards"),
    ),
    {
        "root-password-generate": "every guest gets the store's SSH key: thinvirt ssh NAME",
        "root-password-file": "put it into user-data: chpasswd",
    },
)

VIDEO = OptionTable(
    "--video",
    "the graphics card",
    "model",
    (
        Key(
            "model",
            "video",
            word(Video),
            "vga, virtio, qxl, cirrus, bochs or none",
            ("model.type",),
        ),
    ),
    {"vram": "QEMU's sizes fit", "heads": "one screen a VM"},
)

TPM = OptionTable(
    "--tpm",
    "a TPM 2.0 of the VM's own; none for a VM without",
    "type",
    (
        Key("type", "type", text, "emulator, default or none", ("backend.type",)),
        Key("model", "model", word(TpmModel), "tpm-tis or tpm-crb"),
        Key("version", "version", text, "2.0", ("backend.version",)),
    ),
    {"path": "a TPM of the host serves one VM, and none that moves"},
)

TABLES = (
    *(DISK, NETWORK, GRAPHICS, VCPUS, BOOT, CLOUD_INIT, VIDEO, TPM),
    *(MEMORY, CPU, LOCATION, INSTALL, CHANNEL, RNG, METADATA, *FIXED),
)
