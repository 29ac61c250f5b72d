"""What it costs to be shown the equivalent of a VM, beside virt-install, which makes the XML of it.

    .venv/bin/python bench/twins.py [--rounds 15]

`thinvirt install … --print-command virt-install` as a process, and Debian's virt-install with
`--print-xml --dry-run` on libvirt's test driver (no daemon is asked), in turn. Wall-clock time is
what a user waits; processor time is the steadier figure on a busy machine.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.common import Spread

HERE = Path(__file__).parents[1]
FORMS = ("thinvirt", "virt-install", "xml", "qemu", "qemu-img")


def process(*words: str) -> tuple[float, float]:
    """Run a command; return the milliseconds it took, and those of processor time."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    took = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return 1000 * took, 1000 * spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    thinvirt = str(HERE / ".venv" / "bin" / "thinvirt")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ |= {"XDG_CACHE_HOME": scratch, "THINVIRT_HOME": f"{scratch}/store"}
        image = f"{scratch}/web.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "10G"], check=True)
        asked = ["--name", "web", "--import", "--memory", "2048", "--vcpus", "2"]
        asked += ["--disk", f"{image},bus=virtio,cache=none", "--osinfo", "debian11"]
        asked += ["--network", "user", "--graphics", "vnc,listen=127.0.0.1"]
        theirs = ["virt-install", "--connect", "test:///default", *asked, "--virt-type", "test"]
        theirs += ["--print-xml", "--dry-run", "--noautoconsole"]
        commands: dict[str, Callable[[], tuple[float, float]]] = {
            f"`--print-command {form}`": lambda form=form: process(  # type: ignore[misc]
                thinvirt, "install", *asked, "--print-command", form
            )
            for form in FORMS
        }
        commands["virt-install's `--print-xml`"] = lambda: process(*theirs)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for name, run in commands.items():
            try:
                run()  # finds out what executes guests, and makes the index of systems
            except subprocess.CalledProcessError as error:
                sys.exit(f"{name}: {error.stderr.decode()}")
        for _ in range(rounds):
            for name, run in commands.items():
                found[name].append(run())
        print("| | ms | CPU ms |\n|---|---|---|")
        for name, values in found.items():
            wall, cpu = (Spread.of(column) for column in zip(*values, strict=True))
            print(f"| {name} | {wall.text()} | {cpu.text()} |")


if __name__ == "__main__":
    main()
