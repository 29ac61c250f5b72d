"""Specifications in great variety, from a seed: every two choices meet in some case.

The same seed gives the same cases; another seed gives others. Which choices exist stands in
`CHOICES`; what excludes each other is found out by the product's own rules, and such a combination
is not made.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from thinvirt.vm.spec import (
    BootSpec,
    DiskSpec,
    Forward,
    GraphicsSpec,
    InstallSpec,
    NetworkSpec,
    SeedSpec,
    Topology,
    VmSpec,
)
from thinvirt.vm.spec.validate import problems_of
from thinvirt.vm.spec.words import VNC_BASE_PORT

CHOICES: dict[str, tuple[str, ...]] = {
    "method": ("import", "cdrom", "kernel", "installer-kernel"),
    "bus": ("", "virtio", "sata", "ide", "scsi", "usb"),
    "cache": ("", "writeback", "none", "writethrough", "directsync", "unsafe"),
    "io": ("", "threads", "native", "io_uring"),
    "discard": ("", "unmap", "ignore"),
    "zeroes": ("", "off", "on", "unmap"),
    "image": ("qcow2", "overlay", "three-layers", "raw", "awkward", "new", "new-overlay"),
    "more": ("", "raw-disk", "empty-cdrom", "disc", "read-only", "shareable", "four", "usb-cdrom"),
    "serial": ("", "WD-1_a+b"),
    "iothread": ("no", "yes"),
    "network": ("none", "user", "network", "bridge", "lan", "user+bridge",
                "forwards", "lan+network"),
    "model": ("", "virtio", "e1000", "e1000e", "rtl8139", "vmxnet3", "pcnet", "ne2k_pci"),
    "mac": ("no", "yes"),
    "graphics": ("none", "vnc", "vnc-all", "vnc-port", "vnc-password", "vnc-v6", "spice",
                 "spice-port", "spice-password"),
    "video": ("", "vga", "virtio", "qxl", "cirrus", "bochs", "none"),
    "os": ("", "centos6.10", "centos7.0", "cirros0.5.2", "debian11", "ubuntu22.04", "win10",
           "linux2020"),
    "seed": ("no", "yes"),
    "cpus": ("1", "2", "3", "4:1/1/2/2", "4:2/1/2/1", "8:1/2/2/2"),
    "memory": ("", "256", "1000", "4096"),
    "cpu": ("", "qemu64", "Nehalem", "max"),
    "machine": ("", "pc", "q35"),
    "firmware": ("bios", "efi", "secure"),
    "tpm": ("", "tpm-tis", "tpm-crb"),
    "devices": ("all", "no-rng", "no-agent", "no-genid", "bare"),
    "boot": ("", "hd", "cdrom,hd", "network,hd", "disk-first", "card-first", "menu"),
}  # fmt: skip
_CANDIDATES = 30  # tried for each case; the one with most new pairs is taken
_MACS = ("52:54:00:12:34:56", "52:54:00:ab:cd:ef")


@dataclass(frozen=True, slots=True)
class Case:
    """One specification, with the choices it was made of."""

    number: int
    choices: dict[str, str]
    spec: VmSpec

    @property
    def name(self) -> str:
        """Return the VM's name."""
        return f"case-{self.number:03}"

    def __str__(self) -> str:
        """Return the choices that are not the first of theirs."""
        told = (f"{k}={v}" for k, v in self.choices.items() if v != CHOICES[k][0])
        return f"{self.name}: {' '.join(told)}"


def cases(seed: int, count: int) -> list[Case]:
    """Return so many cases; pairs of choices that have not met yet go first."""
    dice = random.Random(seed)
    met: set[tuple[str, ...]] = set()
    made = []
    for number in range(count):
        best: tuple[int, dict[str, str], VmSpec] | None = None
        for choices, spec in _candidates(dice):
            new = sum(pair not in met for pair in _pairs(choices))
            if best is None or new > best[0]:
                best = (new, choices, spec)
        assert best is not None
        met.update(_pairs(best[1]))
        made.append(Case(number, best[1], best[2]))
    return made


def pairs_met(made: list[Case]) -> int:
    """Return how many different pairs of choices occur."""
    return len({pair for case in made for pair in _pairs(case.choices)})


def _pairs(choices: dict[str, str]) -> Iterator[tuple[str, ...]]:
    for (a, b), (c, d) in combinations(choices.items(), 2):
        yield a, b, c, d


def _candidates(dice: random.Random) -> Iterator[tuple[dict[str, str], VmSpec]]:
    found = 0
    while found < _CANDIDATES:
        choices = {name: dice.choice(values) for name, values in CHOICES.items()}
        spec = spec_of(choices)
        if spec is not None and not list(problems_of(spec)):
            found += 1
            yield choices, spec


def spec_of(choices: dict[str, str]) -> VmSpec | None:
    """Return the specification that the choices mean; None where they cannot go together."""
    word = choices.__getitem__
    bus = word("bus") or None
    if word("iothread") == "yes" and bus not in ("virtio", "scsi"):
        return None
    if word("firmware") == "secure" and (word("machine") == "pc" or bus == "ide"):
        return None
    if word("bus") == "ide" and (word("machine") == "q35" or word("more") == "four"):
        return None
    if word("os") == "win10" and word("machine") == "" and bus is None:
        return None  # the advice's own bus: covered with bus=sata
    if word("image") == "raw" and word("cache") == "" and word("io") == "native":
        return None
    vcpus, topology = _cpus(word("cpus"))
    disks = (_main_disk(choices), *_more_disks(word("more")))
    networks = tuple(_networks(choices))
    boot, disks, networks = _boot(word("boot"), disks, networks)
    if boot is None:
        return None
    install = None
    match word("method"):
        case "cdrom":
            install = InstallSpec(media="disc.iso")
        case "installer-kernel":
            install = InstallSpec(kernel="kernel", initrd="initrd", kernel_args="quiet a=b,c")
        case "kernel":
            boot = replace(boot, kernel="kernel", initrd="initrd", kernel_args="console=ttyS0")
    bare = word("devices") == "bare"
    return VmSpec(
        os=word("os"),
        vcpus=vcpus,
        topology=topology,
        cpu=word("cpu"),
        memory_mib=int(word("memory")) if word("memory") else None,
        machine=word("machine") or ("q35" if word("firmware") == "secure" else None),  # type: ignore[arg-type]
        firmware="bios" if word("firmware") == "bios" else "efi",
        secure_boot=word("firmware") == "secure",
        boot=boot,
        install=install,
        disks=disks,
        networks=networks,
        forwards=(Forward(8080, 80), Forward(5353, 53, "udp"))
        if word("network") == "forwards"
        else (),
        graphics=_graphics(word("graphics")),
        video=word("video") or None,  # type: ignore[arg-type]
        seed=SeedSpec() if word("seed") == "yes" else None,
        agent=not bare and word("devices") != "no-agent",
        rng=not bare and word("devices") != "no-rng",
        vmgenid=not bare and word("devices") != "no-genid",
        tpm=word("tpm") or None,  # type: ignore[arg-type]
    )


def _cpus(text: str) -> tuple[int, Topology | None]:
    count, _, groups = text.partition(":")
    if not groups:
        return int(count), None
    sockets, dies, cores, threads = map(int, groups.split("/"))
    return int(count), Topology(sockets=sockets, dies=dies, cores=cores, threads=threads)


def _main_disk(choices: dict[str, str]) -> DiskSpec:
    files: dict[str, dict[str, Any]] = {
        "qcow2": {"source": "plain.qcow2"},
        "overlay": {"source": "overlay.qcow2"},
        "three-layers": {"source": "top.qcow2"},
        "raw": {"source": "plain.raw"},
        "awkward": {"source": "it's a, b & c=d.qcow2"},
        "new": {"size": 4 << 20},
        "new-overlay": {"backing": "overlay.qcow2"},
    }
    return DiskSpec(
        **files[choices["image"]],
        bus=choices["bus"] or None,  # type: ignore[arg-type]
        cache=choices["cache"] or None,  # type: ignore[arg-type]
        io=choices["io"] or None,  # type: ignore[arg-type]
        discard=choices["discard"] or None,  # type: ignore[arg-type]
        detect_zeroes=choices["zeroes"] or None,  # type: ignore[arg-type]
        iothread=choices["iothread"] == "yes",
        serial=choices["serial"],
    )


def _more_disks(text: str) -> tuple[DiskSpec, ...]:
    raw = DiskSpec(source="data.raw", format="raw", bus="virtio", cache="directsync")
    empty = DiskSpec(device="cdrom", read_only=True)
    return {
        "": (),
        "raw-disk": (raw,),
        "empty-cdrom": (empty,),
        "disc": (DiskSpec(source="other.iso", device="cdrom", read_only=True),),
        "read-only": (DiskSpec(source="data.qcow2", read_only=True, bus="virtio"),),
        "shareable": (replace(raw, shareable=True, bus="scsi", cache="none"),),
        "four": (
            DiskSpec(source="data.qcow2", bus="scsi", serial="s2", cache="unsafe"),
            replace(raw, bus="usb", cache=None),
            DiskSpec(bus="sata", size=1 << 20, format="raw", detect_zeroes="unmap"),
            replace(empty, bus="scsi", source="other.iso"),
        ),
        "usb-cdrom": (replace(empty, bus="usb", source="other.iso"),),
    }[text]


def _networks(choices: dict[str, str]) -> Iterator[NetworkSpec]:
    macs = iter(_MACS if choices["mac"] == "yes" else ("", ""))
    model: Any = choices["model"] or None
    named = {
        "none": NetworkSpec("none"),
        "user": NetworkSpec("user"),
        "forwards": NetworkSpec("user"),
        "network": NetworkSpec("network", "default"),
        "bridge": NetworkSpec("bridge", "br0"),
        "lan": NetworkSpec("lan", "back"),
    }
    for number, kind in enumerate(choices["network"].split("+")):
        card = named[kind]
        if kind == "none":
            yield card
        else:
            yield replace(card, mac=next(macs), model="e1000" if number else model)


def _boot(
    text: str, disks: tuple[DiskSpec, ...], networks: tuple[NetworkSpec, ...]
) -> tuple[BootSpec | None, tuple[DiskSpec, ...], tuple[NetworkSpec, ...]]:
    if text == "menu":
        return BootSpec(menu=True), disks, networks
    if text == "disk-first":
        last = replace(disks[-1], boot_order=1) if len(disks) > 1 else disks[0]
        return (
            BootSpec(),
            (replace(disks[0], boot_order=2), *disks[1:-1], last)[: len(disks)],
            networks,
        )
    if text == "card-first":
        if networks[0].kind == "none":
            return None, disks, networks
        card = replace(networks[0], boot_order=1)
        return BootSpec(), (replace(disks[0], boot_order=3), *disks[1:]), (card, *networks[1:])
    order: Any = tuple(text.split(",")) if text else ()
    return BootSpec(order=order), disks, networks


def _graphics(text: str) -> GraphicsSpec:
    kind: Any = text.partition("-")[0]
    match text.partition("-")[2]:
        case "all":
            return GraphicsSpec(kind, listen="")
        case "v6":
            return GraphicsSpec(kind, listen="::1", port=VNC_BASE_PORT + 7)
        case "port":
            return GraphicsSpec(kind, port=VNC_BASE_PORT + 41)
        case "password":
            return GraphicsSpec(kind, listen="0.0.0.0", port=VNC_BASE_PORT + 3, password="s3,cret")
    return GraphicsSpec(kind)
