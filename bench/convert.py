"""Plain and encrypted images, and shared blocks: copied by thin-img and by qemu-img.

    .venv/bin/python bench/convert.py [--rounds 5] [--folder DIR] [--reflink DIR] [--only NAME …]

The image is that of `bench/compressed.py`. `--reflink` names a folder of a file system that shares
blocks (XFS, btrfs); without it those rows are left out. Both run in turn, with page cache, into
files that do not exist yet. Key derivation is set to 10 ms, so that it is the cipher that counts.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.copying import HEADER, PROGRAM, Pairs, os_like_image, run, same, taken

SECRET = ("--object", "secret,id=s,data=bench")
LUKS = ("-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10")
UNLOCK = "driver=qcow2,file.filename={},encrypt.key-secret=s"
PLAIN = {
    "to-qcow2": ("raw to qcow2", "raw", "qcow2", ()),
    "to-raw": ("qcow2 to raw", "qcow2", "raw", ()),
    "qcow2": ("qcow2 to qcow2", "qcow2", "qcow2", ()),
}
SHARED = {
    "share-to-qcow2": ("raw to qcow2, -C on a reflink file system", "raw", "qcow2", ("-C",)),
    "share-to-raw": ("qcow2 to raw, -C on a reflink file system", "qcow2", "raw", ("-C",)),
}
ENCRYPTED = {"encrypt": "raw to qcow2 with LUKS", "decrypt": "qcow2 with LUKS to raw"}


def copy(folder: Path, row: tuple[str, str, str, tuple[str, ...]], rounds: int) -> str:
    title, source_format, target_format, options = row
    image, mine, peer = folder / f"os.{source_format}", folder / "mine", folder / "peer"
    if not image.exists():
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "os.raw", image])
    common: list[str | Path] = [
        "convert",
        "-f",
        source_format,
        "-O",
        target_format,
        *options,
        image,
    ]
    pairs = Pairs()
    for _ in range(rounds):
        mine.unlink(missing_ok=True)
        peer.unlink(missing_ok=True)
        pairs.add(run([PROGRAM, *common, mine]), run(["qemu-img", *common, peer]))
    same(mine, image)
    size = f"{taken(mine) / taken(peer):.3f}"
    return pairs.row(title, size)


def encrypted(folder: Path, name: str, rounds: int) -> str:
    image, mine, peer = folder / "os.raw", folder / "mine", folder / "peer"
    make: list[str | Path] = ["convert", *SECRET, "-f", "raw", "-O", "qcow2", *LUKS, image]
    locked = folder / "locked.qcow2"
    if name == "encrypt":
        command = make
    else:
        run(["qemu-img", *make, locked])
        opened = UNLOCK.format(locked)
        command = ["convert", *SECRET, "--image-opts", "-O", "raw", opened]
    pairs = Pairs()
    for _ in range(rounds):
        mine.unlink(missing_ok=True)
        peer.unlink(missing_ok=True)
        pairs.add(run([PROGRAM, *command, mine]), run(["qemu-img", *command, peer]))
    if name == "decrypt":
        same(mine, image)
    return pairs.row(ENCRYPTED[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where, and where the image is kept")
    parser.add_argument("--reflink", type=Path, help="a folder whose file system shares blocks")
    parser.add_argument("--only", nargs="+", default=[*PLAIN, *ENCRYPTED, *SHARED])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thinvirt-bench-") as temporary:
        folder = args.folder or Path(temporary)
        image = os_like_image(folder)
        print(HEADER)
        for name in args.only:
            if name in PLAIN:
                print(copy(folder, PLAIN[name], args.rounds), flush=True)
            elif name in ENCRYPTED:
                print(encrypted(folder, name, args.rounds), flush=True)
            elif args.reflink:
                if not (args.reflink / image.name).exists():
                    shutil.copyfile(image, args.reflink / image.name)
                print(copy(args.reflink, SHARED[name], args.rounds), flush=True)


if __name__ == "__main__":
    main()
