"""How long commands take beside a catalogue of 100,000 VMs, as processes, start to end.

python bench/catalogue.py [--vms 100000] [--rounds 7]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.common import Spread

from thinvirt.service.clones import CloneRequest, clone
from thinvirt.service.templates import import_image
from thinvirt.store import open_store
from thinvirt.vm.spec import VmSpec

FILL = 20_000


def fill(home: Path, image: Path, count: int) -> None:
    store = open_store(home)
    import_image(store, image, name="tiny")
    for number, first in enumerate(range(0, count, FILL)):
        size = min(FILL, count - first)
        clone(
            store,
            CloneRequest(template="tiny", name=f"vm{number}", count=size, spec=VmSpec()),
        )
    store.close()


def measure(home: Path, words: list[str], rounds: int, *, lines: int | None = None) -> Spread:
    """Return the seconds until the command ended, or until so many lines had come."""
    command = [str(Path(sys.executable).with_name("thinvirt")), *words]
    environment = os.environ | {"THINVIRT_HOME": str(home)}
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            for _ in range(lines or 0):
                process.stdout.readline()
            if lines is None:
                process.stdout.read()
                process.wait()
            times.append(time.perf_counter() - began)
            process.stdout.close()
    return Spread.of(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vms", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="where (a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thinvirt-bench-", dir=args.folder) as name:
        home, image = Path(name) / "store", Path(name) / "base.img"
        with image.open("wb") as file:
            file.write(os.urandom(1 << 20))
            file.truncate(1 << 30)
        began = time.perf_counter()
        fill(home, image, args.vms)
        took = time.perf_counter() - began
        size = (home / "catalog.sqlite3").stat().st_size
        print(f"{args.vms} clones in {took:.1f} s; catalogue {size / args.vms:.0f} bytes per VM")
        cases: list[tuple[str, list[str], int | None]] = [
            ("--version (start-up alone)", ["--version"], None),
            ("ls, first 40 lines", ["ls"], 40),
            ("ls --limit 40", ["ls", "--limit", "40"], None),
            ("ls 'vm1-0000*'", ["ls", "vm1-0000*"], None),
            ("ls --running", ["ls", "--running"], None),
            ("ls, all", ["ls"], None),
            ("show of one", ["show", "vm3-12345"], None),
            ("show of none, with near names", ["show", "vm3-12345x"], None),
            ("template ls", ["template", "ls"], None),
            ("df", ["df"], None),
        ]
        for title, words, lines in cases:
            spread = measure(home, words, args.rounds, lines=lines)
            print(f"{title:<32} {spread.text(' s')}", flush=True)
        began = time.perf_counter()
        measure(home, ["rm", "vm0-*"], 1)
        print(f"rm of {min(FILL, args.vms)} VMs{'':<14} {time.perf_counter() - began:.3g} s")


if __name__ == "__main__":
    main()
