"""QEMU's command line, whole, for one VM per disk bus and for what else changes it.

THINVIRT_REGENERATE=1 rewrites the files; a missing one fails.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from thinvirt.vm.qemu import DiskLayer, LanPort, Launch, qemu_argv
from thinvirt.vm.qemu.disks import blockdev
from thinvirt.vm.spec import DiskSpec, Forward, GraphicsSpec, NetworkSpec, VmSpec
from thinvirt.vm.spec.words import Bus, Cache

FOLDER = Path(__file__).parent / "qemu_argv"


def on_bus(bus: Bus) -> VmSpec:
    return VmSpec(disks=(DiskSpec(bus=bus),))


USER, LAN = NetworkSpec("user"), NetworkSpec("lan", "lab")
PLAIN = Launch(
    name="web-001",
    uuid="6ba7b811-9dad-51d1-80b4-00c04fd430c8",
    spec=VmSpec(),
    memory_mib=256,
    accel="tcg",
    disks=((DiskLayer("/store/disks/1/web-001.qcow2"), DiskLayer("/store/templates/ab.qcow2")),),
    seed="/store/run/1/seed.iso",
    macs=("52:54:00:aa:00:01",),
    qmp=10,
    events=11,
    console=12,
    agent=13,
    console_log="/store/log/1/console.log",
    firmware_log="/store/log/1/firmware.log",
)
CASES = {
    "virtio": PLAIN,
    "scsi": replace(PLAIN, spec=on_bus("scsi")),
    "sata": replace(PLAIN, spec=on_bus("sata")),
    "sata-on-pc": replace(PLAIN, spec=replace(on_bus("sata"), machine="pc")),
    "ide": replace(PLAIN, spec=on_bus("ide")),
    "kvm-q35-smp": replace(PLAIN, accel="kvm", spec=VmSpec(machine="q35", vcpus=4)),
    "three-layers-raw-base": replace(
        PLAIN, disks=((*PLAIN.disks[0], DiskLayer("/store/templates/cd.raw", "raw")),)
    ),
    "no-network-no-screen-no-seed": replace(
        PLAIN,
        spec=VmSpec(networks=(NetworkSpec("none"),), graphics=GraphicsSpec("none")),
        macs=(),
        seed="",
    ),
    "lan-and-forwards": replace(
        PLAIN,
        spec=VmSpec(
            networks=(USER, LAN),
            forwards=(Forward(8080, 80), Forward(5353, 53, "udp", "0.0.0.0")),
            graphics=GraphicsSpec("vnc", "192.0.2.1", 5907),
        ),
        macs=("52:54:00:aa:00:01", "52:54:01:aa:00:01"),
        lan_ports=(LanPort("/proc/self/fd/9/port-1-0.sock", "/proc/self/fd/9/switch.sock"),),
    ),
    "awkward-paths": replace(
        PLAIN,
        disks=((DiskLayer('/a,b/"c"/x.qcow2'), DiskLayer("/a,b/é.qcow2")),),
        console_log="/a,b/console.log",
        qmp="/a,b/qmp.sock",
    ),
}
MODES: tuple[Cache, ...] = ("writeback", "none", "writethrough", "directsync", "unsafe")


def as_text(argv: list[str]) -> str:
    """One option a line, its value on the same."""
    lines: list[str] = []
    for word in argv:
        if lines and not word.startswith("-") and lines[-1].startswith("-"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_command_line(name: str) -> None:
    text, golden = as_text(qemu_argv(CASES[name])), FOLDER / f"{name}.txt"
    if os.environ.get("THINVIRT_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_no_layer_is_left_to_probing() -> None:
    """Whatever a file's header names, QEMU opens what we name, and nothing after the last."""
    three = CASES["three-layers-raw-base"].disks[0]
    node = blockdev(DiskSpec(), three, 0)
    formats = []
    while node:
        formats.append((node["driver"], node["read-only"]))
        assert isinstance(node["file"], dict)
        assert node["file"]["driver"] == "file"
        assert ("backing" in node) == (node["driver"] == "qcow2")
        node = node.get("backing")  # type: ignore[assignment]
    assert formats == [("qcow2", False), ("qcow2", True), ("raw", True)]
    single = blockdev(DiskSpec(), three[:1], 0)
    assert single["backing"] is None


@pytest.mark.parametrize("cache", MODES)
def test_cache_modes_stand_on_every_node(cache: Cache) -> None:
    disk = DiskSpec(cache=cache)
    launch = replace(PLAIN, spec=VmSpec(disks=(disk,)))
    direct, no_flush = cache in ("none", "directsync"), cache == "unsafe"
    node: object = blockdev(disk, PLAIN.disks[0], 0)
    while isinstance(node, dict):
        assert node["cache"] == node["file"]["cache"] == {"direct": direct, "no-flush": no_flush}
        node = node.get("backing")
    write_cache = "off" if cache in ("writethrough", "directsync") else "on"
    assert f"write-cache={write_cache}" in as_text(qemu_argv(launch))


@pytest.mark.oracle
@pytest.mark.parametrize("name", [name for name in CASES if name != "kvm-q35-smp"])
def test_qemu_accepts_it(name: str, tmp_path: Path) -> None:
    """The real QEMU takes the command line, with files and sockets that are there."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed")
    folder = tmp_path / "a,b"
    folder.mkdir()
    launch = CASES[name]
    layers: list[DiskLayer] = []
    for number, layer in enumerate(launch.disks[0]):
        path = folder / f"{number}.img"
        subprocess.run(["qemu-img", "create", "-qf", layer.format, path, "1M"], check=True)
        layers.append(replace(layer, path=str(path)))
    seed = folder / "seed.iso"
    seed.write_bytes(bytes(4096))
    graphics = GraphicsSpec(launch.spec.graphics.kind)
    forwards = tuple(replace(f, host_port=0) for f in launch.spec.forwards)
    argv = qemu_argv(
        replace(
            launch,
            spec=replace(launch.spec, graphics=graphics, forwards=forwards),
            disks=(tuple(layers),),
            seed=str(seed) if launch.seed else "",
            lan_ports=tuple(LanPort("p.sock", "s.sock") for _ in launch.lan_ports),
            qmp="q.sock",
            events="e.sock",
            console="c.sock",
            agent="a.sock",
            console_log=f"{folder}/console.log",
            firmware_log=f"{folder}/firmware.log",
        )
    )
    # A second monitor on standard input says quit, with the guest never let run.
    done = subprocess.run(
        [*argv, "-S", "-qmp", "stdio"],
        input='{"execute":"qmp_capabilities"}{"execute":"quit"}',
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
