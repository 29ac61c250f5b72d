"""How fast a durable batch of linked clones is made, beside ``qemu-img create``, interleaved.

Ours is the whole service path: checks, catalogue, overlays, one flush, commit. The peer is the
fastest way of today: one ``qemu-img create -b`` process after the other, without any catalogue.
Both make overlays with extended L2 entries over the same template, into fresh folders, and after
that into a file system whose folders have just been deleted (the churn of short-lived VMs).

    python bench/clone_batch.py [--batch N] [--peers N] [--rounds N] [--catalogue 0,10000,…]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.common import Spread, paired

from thinvirt.service.clones import CloneRequest, clone
from thinvirt.service.templates import import_image
from thinvirt.store import Store, open_store
from thinvirt.store.removal import remove_vms
from thinvirt.vm.spec import VmSpec

SIZE = 10 << 30
FILL = 20_000  # VMs per batch while the catalogue is filled


class Bench:
    """A store, a template, and both ways to make overlays of it."""

    def __init__(self, folder: Path, batch: int, peers: int) -> None:
        self.folder, self.batch, self.peers = folder, batch, peers
        image = folder / "base.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, str(SIZE)], check=True)
        self.store: Store = open_store(folder / "store")
        self.template = import_image(self.store, image, name="tiny")
        self.base = self.store.template_image(self.template)
        self.number = 0

    def ours(self, *, keep: bool = False) -> float:
        """Make one batch; return overlays per second."""
        self.number += 1
        request = CloneRequest(
            template="tiny", name=f"b{self.number}", count=self.batch, spec=VmSpec()
        )
        began = time.perf_counter()
        vms = clone(self.store, request)
        took = time.perf_counter() - began
        if not keep:
            remove_vms(self.store, vms, refuse_running=lambda _: None)
        return len(vms) / took

    def qemu_img(self) -> float:
        """Make overlays with qemu-img, one process each; return overlays per second."""
        self.number += 1
        target = self.folder / f"peer{self.number}"
        target.mkdir()
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on"]
        words += ["-b", str(self.base), "-F", "qcow2"]
        began = time.perf_counter()
        for index in range(self.peers):
            subprocess.run([*words, target / f"{index}.qcow2"], check=True)
        rate = self.peers / (time.perf_counter() - began)
        shutil.rmtree(target)
        return rate

    def fill(self, count: int) -> None:
        """Let the catalogue grow to `count` VMs."""
        while (there := self.store.catalog.vm_count()) < count:
            self.number += 1
            names = min(FILL, count - there)
            clone(
                self.store,
                CloneRequest(
                    template="tiny", name=f"fill{self.number}", count=names, spec=VmSpec()
                ),
            )


def bytes_on_disk(folder: Path, base: Path) -> tuple[int, int]:
    """Return what one overlay of ours and one of qemu-img's occupies."""
    ours = next(folder.glob("store/disks/*/*.qcow2"))
    peer = folder / "one.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", peer], check=True
    )
    return ours.stat().st_blocks * 512, peer.stat().st_blocks * 512


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--peers", type=int, default=60, help="qemu-img processes per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--catalogue", default="0,10000,100000")
    parser.add_argument("--folder", help="where (a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thinvirt-bench-", dir=args.folder) as name:
        bench = Bench(Path(name), args.batch, args.peers)
        print(f"durable batches of {args.batch}, load {os.getloadavg()[0]:.1f}")
        for size in (int(part) for part in args.catalogue.split(",")):
            bench.fill(size)
            # Kept batches: each goes into a folder whose inodes were never used before.
            mine, peer, ratio = paired(lambda: bench.ours(keep=True), bench.qemu_img, args.rounds)
            tell(f"catalogue of {size:>6}, fresh", mine, peer, ratio)
        mine, peer, ratio = paired(bench.ours, bench.qemu_img, args.rounds)
        tell("folders deleted before", mine, peer, ratio)
        ours, theirs = bytes_on_disk(Path(name), bench.base)
        print(f"on disk per clone: {ours >> 10} KiB, qemu-img {theirs >> 10} KiB")


def tell(title: str, mine: Spread, peer: Spread, ratio: Spread) -> None:
    print(
        f"{title}: {mine.text('/s', 4)}, qemu-img {peer.text('/s')}: {ratio.text(' times')}",
        flush=True,
    )


if __name__ == "__main__":
    main()
