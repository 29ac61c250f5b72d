"""Compressed images: made and unpacked by thin-img and by qemu-img, sizes beside speeds.

    .venv/bin/python bench/compressed.py [--rounds 5] [--folder DIR] [--only NAME …]

The image is 2 GiB of ext4 with 1.2 GiB of this machine's /usr (see `copying.os_like_image`). Both
run in turn, with page cache. Read the columns together: CPU time is the steadier one on a busy
machine, wall-clock time counts how well the processors are used.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.copying import HEADER, PROGRAM, Cost, Pairs, os_like_image, run, same, taken

# name: (title, creation options, THIN_IMG_COMPRESSION, qemu-img's further options)
PACKING = {
    "zlib": ("convert -c, zlib", (), "fast", ()),
    "zlib-parallel": ("the same beside `qemu-img convert -c -W -m 16`", (), "fast", ("-W", "-m16")),
    "zlib-small": ("convert -c, zlib, `THIN_IMG_COMPRESSION=small`", (), "small", ()),
    "zstd": ("convert -c, zstd", ("-o", "compression_type=zstd"), "fast", ()),
}
UNPACKING = {
    "read-zlib": ("zlib to raw", ()),
    "read-zstd": ("zstd to raw", ("-o", "compression_type=zstd")),
}


def pack(folder: Path, name: str, rounds: int) -> str:
    title, options, effort, theirs = PACKING[name]
    image, mine, peer = folder / "os.raw", folder / "mine.qcow2", folder / "peer.qcow2"
    common = ["convert", "-c", "-f", "raw", "-O", "qcow2", *options]
    pairs = Pairs()
    for _ in range(rounds):
        pairs.add(
            run([PROGRAM, *common, image, mine], THIN_IMG_COMPRESSION=effort),
            run(["qemu-img", *common, *theirs, image, peer]),
        )
    same(mine, image)
    return pairs.row(title, f"{taken(mine) / taken(peer):.3f}")


def unpack(folder: Path, name: str, rounds: int) -> str:
    title, options = UNPACKING[name]
    image, packed = folder / "os.raw", folder / "packed.qcow2"
    run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", *options, image, packed])
    pairs = Pairs()

    def once(program: str) -> Cost:
        target = folder / "unpacked.raw"
        target.unlink(missing_ok=True)
        return run([program, "convert", "-f", "qcow2", "-O", "raw", packed, target])

    for _ in range(rounds):
        ours = once(PROGRAM)
        same(folder / "unpacked.raw", image)
        pairs.add(ours, once("qemu-img"))
    return pairs.row(title)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where, and where the image is kept")
    parser.add_argument("--only", nargs="+", default=[*PACKING, *UNPACKING])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thinvirt-bench-") as temporary:
        folder = args.folder or Path(temporary)
        os_like_image(folder)
        print(HEADER)
        for name in args.only:
            work = pack if name in PACKING else unpack
            print(work(folder, name, args.rounds), flush=True)


if __name__ == "__main__":
    main()
