"""Options about what every VM here has in one way: they may say so, or learn why nothing else is.

Names and meanings are virt-install's; command lines that name what VMs have anyway work unchanged.
"""

from collections.abc import Callable

from thinvirt.vm.grammar.suboptions import Key, OptionTable
from thinvirt.vm.grammar.values import mebibytes, text, word, yes_no
from thinvirt.vm.spec.words import BootDevice


def only(*words: str, why: str) -> Callable[[str], str]:
    """Return a reader of values that all mean what VMs have; others are refused with the reason."""

    def read(value: str) -> str:
        if value.lower() not in words:
            raise ValueError(f"only {' or '.join(words)}: {why}")
        return value.lower()

    return read


_YES = ("on", "yes", "true", "1")
_NO = ("off", "no", "false", "0")

MEMORY = OptionTable(
    "--memory",
    "how much memory; MiB, or with a suffix",
    "memory",
    (
        Key("memory", "memory", mebibytes, "MiB, or 512M, 2G", ("currentMemory",)),
        Key("maxmemory", "maximum", mebibytes, "the same: memory does not grow", ("maxMemory",)),
    ),
    {
        "hotplugmemorymax": "memory is not plugged in while a VM runs",
        "hotplugmemoryslots": "memory is not plugged in while a VM runs",
        "hugepages": "the host's transparent huge pages serve guests",
    },
)

_MODES = ("host-passthrough", "host-model", "maximum", "custom")
CPU = OptionTable(
    "--cpu",
    "the CPU model",
    "model",
    (
        Key("model", "model", text, "host, max, or a model as QEMU calls it"),
        Key("mode", "mode", only(*_MODES, why="libvirt's modes"), "host-passthrough, maximum…"),
        Key("match", "match", only("exact", why="a guest gets the model named"), "exact"),
        Key("check", "check", only("none", "partial", "full", why="QEMU's own"), "none"),
        Key("model.fallback", "fallback", only("forbid", "allow", why="QEMU's own"), "forbid"),
    ),
    {
        "topology.sockets": "--vcpus N,sockets=…",
        "topology.cores": "--vcpus N,cores=…",
        "topology.threads": "--vcpus N,threads=…",
        "cache.mode": "the model brings its caches",
        "numa.cell0.memory": "guests are given one NUMA node",
        "numa.cell0.cpus": "guests are given one NUMA node",
        "require": "features are the model's: name another model",
        "disable": "features are the model's: name another model",
        "force": "features are the model's: name another model",
        "forbid": "features are the model's: name another model",
        "optional": "features are the model's: name another model",
        "vendor": "the model brings its vendor",
        "secure": "QEMU's models are as the host allows",
    },
)

LOCATION = OptionTable(
    "--location",
    "an installer's disc or tree, whose kernel is started directly",
    "location",
    (
        Key("location", "place", text, "an ISO, or a folder with the tree of files"),
        Key("kernel", "kernel", text, "path of the kernel in it"),
        Key("initrd", "initrd", text, "path of its initial RAM disk in it"),
    ),
    {},
)

INSTALL = OptionTable(
    "--install",
    "what the installer is started from",
    "os",
    (
        Key("os", "os", text, "(no installer is fetched: --location or --cdrom)"),
        Key("kernel", "kernel", text, "the installer's kernel, a file of the host"),
        Key("initrd", "initrd", text, "its initial RAM disk"),
        Key("kernel_args", "kernel_args", text, "its command line"),
        Key("kernel_args_overwrite", "overwrite", yes_no, "(nothing is added to it anyway)"),
        Key("bootdev", "boot", word(BootDevice), "what it is booted from: network, cdrom or hd"),
        Key("no_install", "no_install", yes_no, "the system is there, or comes later"),
    ),
    {"initrd_inject": "put the file on the disc, or on a server that the kernel's arguments name"},
)

_OWN_CONTROLLERS = "controllers come with the drives that need them"
CONTROLLER = OptionTable(
    "--controller",
    "controllers; they come with the drives on them",
    "type",
    (
        Key(
            "type",
            "type",
            only("usb", "usb3", "scsi", "ide", "sata", "virtio-serial", why=_OWN_CONTROLLERS),
            "usb, scsi, ide, sata or virtio-serial",
        ),
        Key(
            "model",
            "model",
            only(
                "none", "virtio-scsi", "qemu-xhci", "ich9-ahci", "piix3-ide", why=_OWN_CONTROLLERS
            ),
            "virtio-scsi, qemu-xhci or none",
        ),
        Key("index", "index", only("0", why="there is one of a kind"), "0"),
    ),
    {
        "address": "QEMU gives addresses in the order of devices",
        "driver.iothread": "--disk …,iothread=yes",
        "num_pcie_root_ports": "devices are not plugged in while a VM runs",
        "driver.queues": "QEMU gives a queue for each CPU",
    },
)

CHANNEL = OptionTable(
    "--channel",
    "the guest agent's channel; none for a VM without",
    "type",
    (
        Key(
            "type",
            "type",
            only("unix", "none", why="there is one channel, the guest agent's"),
            "unix or none",
        ),
        Key(
            "target.type",
            "target",
            only("virtio", why="that is what guest agents look for"),
            "virtio",
            ("target_type",),
        ),
        Key(
            "target.name",
            "name",
            only("org.qemu.guest_agent.0", why="there is one channel, the guest agent's"),
            "org.qemu.guest_agent.0",
            ("name",),
        ),
        Key("mode", "mode", only("bind", why="thinvirt connects to it"), "bind", ("source.mode",)),
    ),
    {
        "path": "its socket is in the VM's run folder",
        "source.path": "its socket is in the VM's run folder",
    },
)

_RECORDED = "it is recorded from the first character on: thinvirt console"
SERIAL = OptionTable(
    "--serial",
    "the serial port, ttyS0",
    "type",
    (
        Key("type", "type", only("pty", "unix", why=_RECORDED), "pty"),
        Key("target.type", "target", only("isa-serial", why="PCs have these"), "isa-serial"),
        Key("target.port", "port", only("0", why="there is one"), "0"),
    ),
    {
        "path": _RECORDED,
        "source.path": _RECORDED,
        "host": _RECORDED,
        "log.file": "thinvirt show --json tells where it is recorded",
        "log.append": "every start begins a new one",
    },
)

CONSOLE = OptionTable(
    "--console",
    "the guest's console, on the serial port",
    "type",
    (
        Key("type", "type", only("pty", "unix", why=_RECORDED), "pty"),
        Key(
            "target.type",
            "target",
            only(
                "serial", why="the console is the serial port, which firmware and loaders use too"
            ),
            "serial",
            ("target_type",),
        ),
        Key("target.port", "port", only("0", why="there is one"), "0"),
    ),
    {"path": _RECORDED, "source.path": _RECORDED, "log.file": _RECORDED},
)

SOUND = OptionTable(
    "--sound",
    "sound; VMs have none",
    "model",
    (Key("model", "model", only("none", why="there is nobody at the host to hear it"), "none"),),
    {},
)

RNG = OptionTable(
    "--rng",
    "random numbers of the host (virtio-rng); none for a VM without",
    "device",
    (
        Key(
            "device",
            "device",
            only(
                *("/dev/urandom", "/dev/random", "none", "random", "builtin"),
                why="random numbers come from the host's kernel",
            ),
            "/dev/urandom or none",
            ("backend", "type", "backend.source.path"),
        ),
        Key("model", "model", only("virtio", why="guests have a driver for it"), "virtio"),
    ),
    {
        "rate.bytes": "a guest takes what it needs",
        "rate.period": "a guest takes what it needs",
        "backend.source.host": "random numbers come from the host's kernel",
    },
)

MEMBALLOON = OptionTable(
    "--memballoon",
    "a memory balloon; VMs have none",
    "model",
    (Key("model", "model", only("none", why="a VM keeps the memory it was given"), "none"),),
    {"autodeflate": "a VM keeps the memory it was given"},
)


def _switch(name: str, field: str, value: str, why: str, *aliases: str) -> Key:
    """Return a key that is always on, or always off."""
    words = _YES if value == "on" else _NO
    return Key(name, field, only(*words, why=why), f"{value}: {why}", aliases)


FEATURES = OptionTable(
    "--features",
    "what the machine can do",
    "",
    (
        _switch("acpi", "acpi", "on", "guests power off by it"),
        _switch("apic", "apic", "on", "guests with several CPUs need it"),
        _switch("pae", "pae", "on", "every CPU model has it"),
        _switch("vmport.state", "vmport", "off", "it is VMware's", "vmport"),
        Key("smm.state", "smm", yes_no, "as secure boot needs it", ("smm",)),
    ),
    {
        "hyperv.vapic.state": "enlightenments for Windows are part of the CPU: --cpu",
        "hyperv.relaxed.state": "enlightenments for Windows are part of the CPU: --cpu",
        "hyperv.spinlocks.state": "enlightenments for Windows are part of the CPU: --cpu",
        "kvm.hidden.state": "guests may know that they are guests",
        "kvm_hidden": "guests may know that they are guests",
        "gic.version": "PCs have none",
    },
)

CLOCK = OptionTable(
    "--clock",
    "the guest's clock",
    "offset",
    (
        Key(
            "offset",
            "offset",
            only("utc", why="clones move between time zones; Windows: RealTimeIsUniversal=1"),
            "utc",
        ),
    ),
    {
        f"{timer}_{what}": "QEMU's own timers serve"
        for timer in ("rtc", "pit", "hpet", "tsc", "kvmclock", "hypervclock", "platform")
        for what in ("present", "tickpolicy")
    },
)

EVENTS = OptionTable(
    "--events",
    "what happens when the guest ends",
    "",
    (
        Key("on_poweroff", "off", only("destroy", why="a guest that is off is off"), "destroy"),
        Key(
            "on_reboot",
            "reboot",
            only("restart", why="an installation's first restart is seen to by itself"),
            "restart",
        ),
        Key(
            "on_crash",
            "crash",
            only("destroy", "preserve", why="a guest that crashed shows it: thinvirt console"),
            "preserve",
        ),
    ),
    {"on_lockfailure": "libvirt's lock manager is not at work: QEMU locks the images itself"},
)

METADATA = OptionTable(
    "--metadata",
    "what is known of the VM",
    "",
    (Key("genid_enable", "genid", yes_no, "tell the guest when it is a copy", ("genid.enable",)),),
    {
        "name": "--name",
        "uuid": "it follows from the store and the VM's number, so that no two have the same",
        "genid": "every start of a copy gets its own",
        "title": "the name is what people see",
        "description": "keep it in the file that thinvirt apply reads",
        "os_name": "--osinfo",
        "os_full_id": "--osinfo",
    },
)

INPUT = OptionTable(
    "--input",
    "keyboard and mouse",
    "type",
    (
        Key(
            "type",
            "type",
            only("keyboard", "mouse", why="every PC has these; viewers send both"),
            "keyboard or mouse",
        ),
        Key("bus", "bus", only("ps2", why="every guest has a driver for it"), "ps2"),
    ),
    {},
)

# They may be said, and decide nothing.
FIXED = (CONTROLLER, SERIAL, CONSOLE, SOUND, MEMBALLOON, FEATURES, CLOCK, EVENTS, INPUT)
