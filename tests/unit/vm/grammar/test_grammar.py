"""virt-install's option grammar, as its users write it."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinvirt.vm.grammar import parts
from thinvirt.vm.grammar.fixed import (
    CLOCK,
    CONTROLLER,
    EVENTS,
    FEATURES,
    MEMBALLOON,
    SERIAL,
    SOUND,
)
from thinvirt.vm.grammar.suboptions import BadOption, listing, parse, split
from thinvirt.vm.grammar.tables import TABLES
from thinvirt.vm.spec import (
    BootSpec,
    DiskSpec,
    GraphicsSpec,
    InstallSpec,
    NetworkSpec,
    Topology,
)

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/x.img", DiskSpec(source="/x.img")),
        ("path=/x.img,bus=sata", DiskSpec(source="/x.img", bus="sata")),
        ("size=10", DiskSpec(size=10 * GIB)),
        ("size=512M,format=raw,sparse=no", DiskSpec(size=GIB // 2, format="raw", sparse=False)),
        ("size=0.5", DiskSpec(size=GIB // 2)),
        ("/a,,b.img,readonly=on", DiskSpec(source="/a,b.img", read_only=True)),
        ("/a=b.img", DiskSpec(source="/a=b.img")),
        ("/x,driver.cache=none,driver.io=native", DiskSpec(source="/x", cache="none", io="native")),
        (
            "/x,target.bus=scsi,serial=A,shareable",
            DiskSpec(source="/x", bus="scsi", serial="A", shareable=True),
        ),
        (
            "backing_store=/b.qcow2,backing_format=qcow2",
            DiskSpec(backing="/b.qcow2", backing_format="qcow2"),
        ),
        ("device=cdrom", DiskSpec(device="cdrom")),
        (
            "/x,boot.order=2, detect_zeroes=unmap",
            DiskSpec(source="/x", boot_order=2, detect_zeroes="unmap"),
        ),
        ("none", None),
    ],
)
def test_disks(text: str, wanted: DiskSpec | None) -> None:
    assert parts.disk(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("user", NetworkSpec("user")),
        ("default", NetworkSpec("network", "default")),
        ("network=lab,model=e1000", NetworkSpec("network", "lab", "e1000")),
        (
            "bridge=br0,mac=52:54:00:AB:00:01",
            NetworkSpec("bridge", "br0", None, "52:54:00:ab:00:01"),
        ),
        ("bridge:br0", NetworkSpec("bridge", "br0")),
        ("type=bridge,source.bridge=br0", NetworkSpec("bridge", "br0")),
        ("lan", NetworkSpec("lan", "default")),
        ("lan=lab", NetworkSpec("lan", "lab")),
        ("none", NetworkSpec("none")),
        ("model=rtl8139", NetworkSpec("user", model="rtl8139")),
    ],
)
def test_networks(text: str, wanted: NetworkSpec) -> None:
    assert parts.network(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("vnc", GraphicsSpec()),
        ("vnc,listen=0.0.0.0,port=5901,password=x", GraphicsSpec("vnc", "0.0.0.0", 5901, "x")),
        ("type=spice,port=-1", GraphicsSpec("spice")),
        ("none", GraphicsSpec("none")),
    ],
)
def test_graphics(text: str, wanted: GraphicsSpec) -> None:
    assert parts.graphics(text) == wanted


def test_the_others() -> None:
    assert parts.vcpus("4") == (4, None)
    assert parts.vcpus("4,cores=2") == (4, Topology(sockets=2, cores=2))
    assert parts.vcpus("sockets=1,cores=2,threads=2") == (4, Topology(cores=2, threads=2))
    assert parts.boot("network,hd") == parts.Boot(BootSpec(order=("network", "hd")), "bios", False)
    assert parts.boot("uefi,menu=on") == parts.Boot(BootSpec(menu=True), "efi", False)
    assert parts.boot("kernel=/k,initrd=/i,kernel_args=a b") == parts.Boot(
        BootSpec(kernel="/k", initrd="/i", kernel_args="a b"), "bios", False
    )
    assert parts.cloud_init("user-data=u,meta-data=m") == parts.CloudInit("u", "m")
    assert parts.video("qxl") == "qxl"
    assert (parts.tpm("none"), parts.tpm("emulator,model=tpm-tis")) == (None, "tpm-tis")


def test_what_every_vm_has_may_be_said() -> None:
    """Command lines that name what VMs have anyway work unchanged."""
    assert parts.memory("1024") == parts.memory("1G") == parts.memory("1024,maxmemory=1024") == 1024
    assert parts.memory("maxmemory=512M") == 512
    for text in ("host", "host-passthrough", "mode=host-passthrough", "host-model"):
        assert parts.cpu(text) == "host"
    assert parts.cpu("mode=maximum") == "max"
    assert parts.cpu("mode=custom,match=exact,check=none,model=Nehalem") == "Nehalem"
    assert parts.agent("unix,target.type=virtio,target.name=org.qemu.guest_agent.0")
    assert not parts.agent("none")
    assert parts.rng("/dev/urandom")
    assert not parts.rng("none")
    assert parts.vmgenid("genid_enable=yes")
    assert parts.location("/x.iso") == parts.Place("/x.iso")
    assert parts.location("/x,kernel=k,initrd=i") == parts.Place("/x", "k", "i")
    assert parts.installer("no_install=yes") is None
    assert parts.installer("bootdev=network") == InstallSpec(boot="network")
    assert parts.installer("kernel=/k,initrd=/i,kernel_args=a=b") == InstallSpec(
        kernel="/k", initrd="/i", kernel_args="a=b"
    )
    said = "usb,model=none pty none none acpi=on,vmport.state=off utc on_crash=destroy"
    tables = (CONTROLLER, SERIAL, SOUND, MEMBALLOON, FEATURES, CLOCK, EVENTS)
    for table, text in zip(tables, said.split(), strict=True):
        assert parse(table, text)


@pytest.mark.parametrize(
    ("read", "text", "told"),
    [
        (parts.memory, "", "no size is given"),
        (parts.memory, "512K", "whole number of MiB"),
        (parts.memory, "-5", "--memory: memory=-5 is not possible"),
        (parts.memory, "1024,maxmemory=2048", "does not grow while a VM runs"),
        (parts.memory, "1024,hugepages=yes", "known to virt-install and not here"),
        (parts.memory, "1024,2048", "Unknown --memory options: ['2048']"),
        (parts.cpu, "host,+vmx,-svm", "not switched singly: +vmx, -svm"),
        (parts.cpu, "mode=host-passthrough,model=qemu64", "exclude each other"),
        (parts.cpu, "host,modle=x", "Unknown --cpu options: ['modle']"),
        (parts.agent, "spicevmc", "type=spicevmc is not possible: only unix or none"),
        (parts.rng, "egd", "device=egd is not possible"),
        (parts.vmgenid, "title=x", "known to virt-install and not here"),
        (parts.location, "kernel=k,initrd=i", "paths in a disc or tree"),
        (parts.location, "/x,kernel=k", "go together"),
        (parts.installer, "fedora40", "no installer is fetched"),
        (parts.installer, "initrd=/i", "go with kernel="),
        (parts.installer, "kernel=/k,bootdev=hd", "exclude each other"),
        (parts.installer, "bootdev=fd", "one of hd, cdrom, network"),
        (parts.installer, "no_install=yes,bootdev=hd", "goes with no"),
        (parts.installer, "no_install=no", "nothing says what is installed"),
        (partial(parse, SOUND), "ac97", "only none"),
        (partial(parse, CLOCK), "localtime", "only utc"),
        (partial(parse, CLOCK), "foo_tickpolicy=merge", "Unknown --clock options"),
        (partial(parse, FEATURES), "acpi=off", "only on"),
        (partial(parse, EVENTS), "on_reboot=destroy", "only restart"),
        (partial(parse, SERIAL), "pty,path=/x", "known to virt-install and not here"),
        (parts.disk, "/x,cashe=none", "Unknown --disk options: ['cashe']"),
        (parts.disk, "/x,foo=1,bar=2", "Unknown --disk options: ['foo', 'bar']"),
        (parts.disk, "/x,bus=foo", "--disk: bus=foo is not possible: one of virtio, scsi"),
        (parts.disk, "/x,cache=none,driver.cache=none", "--disk: cache is given twice"),
        (parts.disk, "size=-1", "size=-1 is not possible"),
        (parts.disk, "size=x", "size=x is not possible"),
        (parts.disk, "bus=ide", "neither a file nor a size"),
        (parts.disk, "", "neither a file nor a size"),
        (parts.disk, "vol=p/v", "known to virt-install and not here"),
        (parts.network, "bridge=a,network=b", "a card is on one network"),
        (parts.network, "foo", "type=foo is not possible"),
        (parts.network, "user,mac=12:34", "mac=12:34 is not possible: six bytes"),
        (parts.network, "user,modle=x", "Unknown --network options: ['modle']"),
        (parts.graphics, "sdl", "type=sdl is not possible"),
        (parts.graphics, "vnc,port=x", "port=x is not possible"),
        (parts.vcpus, "0", "vcpus=0 is not possible"),
        (parts.vcpus, "foo", "vcpus=foo is not possible"),
        (parts.boot, "floppy", "Unknown --boot options: ['floppy']"),
        (parts.tpm, "passthrough", "type=passthrough is not possible"),
    ],
)
def test_what_cannot_be_is_named(read: Callable[[str], object], text: str, told: str) -> None:
    with pytest.raises(BadOption) as raised:
        read(text)
    assert told in str(raised.value)


def test_every_table_lists_itself() -> None:
    for table in TABLES:
        lines = list(listing(table))
        assert len(lines) == len(table.keys) + 1 + sum(len(key.words or {}) for key in table.keys)
        spellings = [name for key in table.keys for name in (key.name, *key.aliases)]
        assert len(spellings) == len(set(spellings))
        assert not set(spellings) & set(table.foreign)
        assert not table.first or table.find(table.first)


@given(st.lists(st.text(min_size=1).map(str.strip).filter(bool), min_size=1))
def test_commas_survive(values: list[str]) -> None:
    assert split(",".join(value.replace(",", ",,") + " " for value in values)) == values
