"""Run by `test_devices` in a network namespace that has the bridge ``br-test``."""

import sys
import time
from pathlib import Path

import pytest
from tests.sector_guest import kill_all, write_disk

from thinvirt.errors import Conflict
from thinvirt.run import qemu
from thinvirt.run.accel import Acceleration
from thinvirt.run.bridge import ACCESS_LIST
from thinvirt.run.folder import VmFolder
from thinvirt.run.qemu import LaunchRequest
from thinvirt.vm.qemu import DiskLayer
from thinvirt.vm.spec import NetworkSpec, VmSpec

PORTS = Path("/sys/class/net/br-test/brif")


def main() -> None:
    """Start a VM on the bridge, with and without leave; print how it went."""
    folder = Path(sys.argv[1])
    request = LaunchRequest(
        name="web-001",
        uuid="6ba7b811-9dad-51d1-80b4-00c04fd430c8",
        spec=VmSpec(networks=(NetworkSpec("bridge", "br-test"),)),
        memory_mib=16,
        disks=((DiskLayer(str(write_disk(folder / "disk.raw")), "raw"),),),
        macs=("52:54:00:00:00:01",),
        folder=VmFolder(folder / "run/1", folder / "log/1"),
        accel=Acceleration("tcg", "a test"),
        seed={},
        bridges=("br-test",),
    )
    with pytest.raises(Conflict, match=f"there is no {ACCESS_LIST}"):
        qemu.launch(request)
    print("refused")
    ACCESS_LIST.parent.mkdir()
    ACCESS_LIST.write_text("allow br-test\n")
    try:
        running = qemu.launch(request)
        assert len(list(PORTS.iterdir())) == 1
        assert "spawn=deny" in " ".join(running.state.argv)
        print("allowed")
        qemu.kill(running.state)
        deadline = time.monotonic() + 30
        while list(PORTS.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        print("gone")
    finally:
        kill_all(folder)


if __name__ == "__main__":
    main()
