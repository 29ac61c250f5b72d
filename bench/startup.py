"""What a command costs as a process: every command of `thin-img` beside that of qemu-img.

    .venv/bin/python bench/startup.py [--rounds 21] [--only info map …] [--program thin-img]

The images are tiny, so that nearly all is start-up. Both run in turn; a command that changes an
image gets a fresh one each time, not counted. Wall-clock time is what a user waits; processor time
is the steadier figure on a busy machine.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.common import Spread

HERE = Path(__file__).parents[1]

# What comes after the command's name; {} is the folder. The images there are made by `prepare`.
COMMANDS: dict[str, tuple[str, ...]] = {
    "info": ("{}/plain.qcow2",),
    "info --output=json": ("{}/plain.qcow2",),
    "info --backing-chain": ("{}/top.qcow2",),
    "map": ("{}/top.qcow2",),
    "map --output=json": ("{}/top.qcow2",),
    "check": ("{}/plain.qcow2",),
    "compare": ("{}/plain.qcow2", "{}/same.qcow2"),
    "measure": ("-O", "qcow2", "{}/plain.qcow2"),
    "snapshot -l": ("{}/plain.qcow2",),
    "create": ("-q", "-f", "qcow2", "{}/new.qcow2", "64M"),
    "convert": ("-O", "qcow2", "{}/plain.qcow2", "{}/new.qcow2"),
    "dd": ("if={}/small.raw", "of={}/new.raw", "bs=64k"),
    "resize": ("-q", "{}/top.qcow2", "+64M"),
    "commit": ("-q", "{}/top.qcow2"),
    "rebase": ("-b", "", "{}/top.qcow2"),
    "amend": ("-o", "lazy_refcounts=on", "{}/plain.qcow2"),
    "bitmap": ("--add", "{}/plain.qcow2", "b"),
    "snapshot -c": ("s", "{}/plain.qcow2"),
    "--version": (),
    "--help": (),
}


def prepare(folder: Path) -> None:
    """Make the images that the commands are tried on."""
    create = ["qemu-img", "create", "-q", "-f"]
    for arguments in (
        ["qcow2", f"{folder}/plain.qcow2", "64M"],
        ["qcow2", f"{folder}/same.qcow2", "64M"],
        ["qcow2", "-b", "plain.qcow2", "-F", "qcow2", f"{folder}/top.qcow2"],
        ["raw", f"{folder}/small.raw", "64k"],
    ):
        subprocess.run([*create, *arguments], check=True)


def cost(program: str, name: str, pristine: Path, folder: Path) -> tuple[float, float]:
    """Run a command once in a fresh copy of the images; return wall and processor seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pristine, folder)
    words = [program, *name.split(), *(word.format(folder) for word in COMMANDS[name])]
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
    begun = time.perf_counter()
    child = os.posix_spawn(program, words, os.environ, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begun
    os.close(null)
    if status:
        sys.exit(f"{' '.join(words)}: exit status {os.waitstatus_to_exitcode(status)}")
    return wall, usage.ru_utime + usage.ru_stime


def measure(ours: str, peer: str, name: str, rounds: int, pristine: Path) -> str:
    """Return a row of the table for one command."""
    folder = pristine.with_name("work")
    pairs = []
    for _ in range(rounds + 1):  # the first is a warm-up
        pairs.append((cost(ours, name, pristine, folder), cost(peer, name, pristine, folder)))
    cells = []
    for figure in (0, 1):
        of_ours = [a[figure] * 1000 for a, _ in pairs[1:]]
        of_peer = [b[figure] * 1000 for _, b in pairs[1:]]
        ratios = [a / b for a, b in zip(of_ours, of_peer, strict=True)]
        cells += [
            f"{Spread.of(of_ours).median:.1f}",
            f"{Spread.of(of_peer).median:.1f}",
            Spread.of(ratios).text("", 2),
        ]
    return f"| `{name}` | {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="start-up of every command beside qemu-img")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--only", nargs="*", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--program", default=str(HERE / ".venv" / "bin" / "thin-img"))
    args = parser.parse_args(argv)
    peer = shutil.which("qemu-img")
    ours = shutil.which(args.program)
    if peer is None or ours is None:
        sys.exit("both programs must be installed")
    with tempfile.TemporaryDirectory() as scratch:
        pristine = Path(scratch, "pristine")
        pristine.mkdir()
        prepare(pristine)
        print("| command | ms | qemu-img | ratio | CPU ms | qemu-img | ratio |")
        print("|---|---|---|---|---|---|---|")
        for name in args.only:
            print(measure(ours, peer, name, args.rounds, pristine), flush=True)


if __name__ == "__main__":
    main()
