"""Overlays per second and bytes per overlay: ours beside ``qemu-img create -b -F``.

    .venv/bin/python bench/clone_overlays.py [--count 1000] [--rounds 5] [--json]

Both make the same overlay (64 KiB clusters, extended L2, 10 GiB disk) of one template, and both
are durable when their time is taken: qemu-img flushes each of its files itself, ours flushes the
batch. qemu-img is slow, so it makes fewer per round, and rates are compared.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.common import Spread, paired

from thinvirt.image.ops.overlay import OverlayOptions, create_overlays

VIRTUAL_SIZE = 10 << 30
PEER_COUNT = 40  # qemu-img runs per round
OPTIONS = OverlayOptions(
    virtual_size=VIRTUAL_SIZE, backing_name="../base.qcow2", backing_format="qcow2"
)


def ours(directory: Path, count: int) -> None:
    create_overlays(directory, [f"vm-{i:05}.qcow2" for i in range(count)], OPTIONS)


def peers(directory: Path, count: int) -> None:
    directory.mkdir()
    for i in range(count):
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on"]
        command += ["-b", OPTIONS.backing_name, "-F", OPTIONS.backing_format]
        subprocess.run([*command, directory / f"vm-{i:05}.qcow2"], check=True)


class Rounds:
    """Makes folders of overlays below one root, and takes the time of each."""

    def __init__(self, root: Path, *, churn: int) -> None:
        self.root, self.churn, self.made = root, churn, 0

    def rate(self, make: Callable[[Path, int], None], count: int) -> float:
        """Return overlays per second; right after `churn` others were deleted there."""
        self.made += 1
        directory = self.root / str(self.made)
        if self.churn:
            create_overlays(directory, [f"old-{i:05}.qcow2" for i in range(self.churn)], OPTIONS)
            shutil.rmtree(directory)
        os.sync()  # what others have written is not on our bill
        start = time.perf_counter()
        make(directory, count)
        return count / (time.perf_counter() - start)


def compare(root: Path, count: int, rounds: int, *, churn: int) -> tuple[Spread, Spread, Spread]:
    state = Rounds(root, churn=churn)
    return paired(lambda: state.rate(ours, count), lambda: state.rate(peers, PEER_COUNT), rounds)


def bytes_on_disk(root: Path) -> tuple[int, int]:
    """Return what one overlay of ours, and one of qemu-img's, occupies."""
    sizes = []
    for name, make in (("ours", ours), ("peers", peers)):
        make(root / name, 1)
        sizes.append(sum(p.stat().st_blocks * 512 for p in (root / name).iterdir()))
    return sizes[0], sizes[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1000, help="overlays in one batch of ours")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where to measure (default: here)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    where = arguments.directory or Path.cwd()
    with tempfile.TemporaryDirectory(dir=where, prefix=".bench-overlays-") as name:
        results = {}
        for title, churn in (("fresh folders", 0), ("churn", arguments.count)):
            root = Path(name) / title
            root.mkdir()
            base = root / "base.qcow2"
            subprocess.run(
                ["qemu-img", "create", "-q", "-f", "qcow2", base, str(VIRTUAL_SIZE)], check=True
            )
            results[title] = compare(root, arguments.count, arguments.rounds, churn=churn)
        our_bytes, peer_bytes = bytes_on_disk(root)
    if arguments.json:
        print(json.dumps(as_facts(results, our_bytes, peer_bytes), indent=2))
        return
    print(f"{'durable overlays per second':<28}{'thinvirt':>26}{'qemu-img':>24}{'ratio':>22}")
    for title, (mine, other, ratio) in results.items():
        texts = mine.text(digits=4), other.text(), ratio.text("x")
        print(f"{title:<28}{texts[0]:>26}{texts[1]:>24}{texts[2]:>22}")
    row = f"{our_bytes // 1024} KiB", f"{peer_bytes // 1024} KiB", f"{our_bytes / peer_bytes:.2f}x"
    print(f"{'bytes on disk, each':<28}{row[0]:>26}{row[1]:>24}{row[2]:>22}")


def as_facts(
    results: dict[str, tuple[Spread, Spread, Spread]], our_bytes: int, peer_bytes: int
) -> dict[str, object]:
    facts: dict[str, object] = {
        title: {
            name: {"low": spread.low, "median": spread.median, "high": spread.high}
            for name, spread in zip(("thinvirt", "qemu_img", "ratio"), spreads, strict=True)
        }
        for title, spreads in results.items()
    }
    return facts | {"bytes_on_disk": {"thinvirt": our_bytes, "qemu_img": peer_bytes}}


if __name__ == "__main__":
    main()
