"""Check, map, measure, compare, commit and rebase: ``thin-img`` beside ``qemu-img``, as processes.

    .venv/bin/python bench/metadata.py [--rounds 5] [--only TEXT] [--directory DIR]

Images of metadata alone (see `synthetic`) for check, map and measure: what is timed is the tables.
Real data for the others. Each row gives the wall time of both, the ratio of rounds run in turn,
that of processor time, which other work on the machine disturbs less, and the most memory ours
took. Above 1, ours is faster.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.common import Spread
from bench.synthetic import Layout, make_image

OURS = Path(sys.executable).with_name("thin-img")
PEER = Path(shutil.which("qemu-img") or "qemu-img")
MILLION = 1 << 20
MIB = 1 << 20

LAYOUTS = {
    "200 clusters": Layout(208, 16),
    "20,000 clusters": Layout(20_000, 16),
    "1.6 M clusters, metadata preallocated": Layout(1_638_400, 1_638_400),
    "1 M clusters in runs of 1 MiB": Layout(MILLION, 16),
    "1 M clusters at random": Layout(MILLION),
    "10 M clusters of a disk of 1 TiB": Layout(10 * MILLION, 64, 16, 16 * MILLION),
}
# Rounds take half a minute each where qemu-img has to find clusters at random.
SLOW = {("check", "1 M clusters at random"): 2}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: seconds by the clock, of the processor, and bytes of memory at most."""

    wall: float
    cpu: float
    memory: int


@dataclass(frozen=True, slots=True)
class Case:
    """One row: the same arguments for both programs."""

    title: str
    arguments: Callable[[], list[str]]
    rounds: int


def run(program: Path, arguments: list[str]) -> Cost:
    start = time.perf_counter()
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{program} {' '.join(arguments)}: status {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def measure(case: Case) -> str:
    """Run both in turn and return the row."""
    ours: list[Cost] = []
    peers: list[Cost] = []
    for turn in range(case.rounds):
        programs = [(OURS, ours), (PEER, peers)]
        for program, costs in programs if turn % 2 else reversed(programs):
            costs.append(run(program, case.arguments()))
    wall = Spread.of([b.wall / a.wall for a, b in zip(ours, peers, strict=True)])
    cpu = statistics.median(b.cpu / a.cpu for a, b in zip(ours, peers, strict=True))
    mine, other = (statistics.median(c.wall for c in costs) for costs in (ours, peers))
    memory = max(cost.memory for cost in ours) // MIB
    return f"| {case.title} | {mine:.3g} | {other:.3g} | {wall.text()} | {cpu:.3g} | {memory} MiB |"


def table_cases(folder: Path, rounds: int, only: str) -> Iterator[Case]:
    for name, layout in LAYOUTS.items():
        wanted = [
            (command, [*words, str(folder / "image")])
            for command, *words in (
                ("check", "check", "-q"),
                ("map", "map", "--output=json"),
                ("measure", "measure", "-O", "qcow2"),
            )
            if only in f"{command}, {name}"
        ]
        if wanted:
            _make_apart(folder / "image", layout)
        for command, words in wanted:
            turns = min(rounds, SLOW.get((command, name), rounds))
            yield Case(f"{command}, {name}", lambda words=words: words, turns)  # type: ignore[misc]


def _make_apart(path: Path, layout: Layout) -> None:
    """Make an image in a process of its own: what this one takes counts for those it starts."""
    process = os.fork()
    if not process:
        make_image(path, layout)
        os._exit(0)
    if os.waitpid(process, 0)[1]:
        raise SystemExit(f"{path} could not be made")


def data_cases(folder: Path, rounds: int, only: str) -> Iterator[Case]:
    if not any(only in f"{command}, 1 GiB" for command in ("compare", "commit", "rebase")):
        return
    base, copy, raw, overlay = (folder / name for name in ("base", "copy", "raw", "overlay"))
    _write_raw(raw, 1024, 0.5)
    for target in (base, copy):
        _img("convert", "-f", "raw", "-O", "qcow2", str(raw), str(target))
    _img("create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(overlay))
    yield Case(
        "compare, 1 GiB, half of it data, qcow2 with raw",
        lambda: ["compare", "-q", "-f", "qcow2", "-F", "raw", str(base), str(raw)],
        rounds,
    )
    turn = 0

    def other_base() -> list[str]:
        nonlocal turn
        turn += 1
        onto = copy if turn % 2 else base
        return ["rebase", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(onto), str(overlay)]

    yield Case("rebase, 1 GiB, half of it data, onto the same", other_base, rounds // 2 * 2)
    _img("rebase", "-u", "-b", str(base), "-F", "qcow2", str(overlay))
    _scatter(overlay, 4000)
    yield Case(
        "commit, 1 GiB with 250 MiB written in 64 KiB",
        lambda: ["commit", "-q", "-d", "-f", "qcow2", str(overlay)],
        rounds,
    )


def _write_raw(path: Path, size: int, share: float) -> None:
    """Write a file of so many MiB, of which a share is data and the rest holes."""
    chance = random.Random(1)
    with path.open("wb") as file:
        file.truncate(size * MIB)
        for number in range(size):
            if chance.random() < share:
                file.seek(number * MIB)
                file.write(chance.randbytes(MIB))


def _scatter(image: Path, count: int) -> None:
    """Write clusters here and there."""
    places = random.Random(2).sample(range(16 * 1024), count)
    words = "".join(f"write -P {place % 255 + 1} {place * 64}k 64k\n" for place in places)
    subprocess.run(
        ["qemu-io", "-f", "qcow2", image],
        input=words,
        text=True,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _img(*arguments: str) -> None:
    subprocess.run([PEER, *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose title has this in it")
    parser.add_argument("--directory", type=Path, help="where to measure (default: here)")
    arguments = parser.parse_args()
    print("| work | thinvirt s | qemu-img s | ratio | processor time | memory |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(
        dir=arguments.directory or Path.cwd(), prefix=".bench-metadata-"
    ) as name:
        for cases in (table_cases, data_cases):
            for case in cases(Path(name), arguments.rounds, arguments.only):
                if arguments.only in case.title:
                    print(measure(case), flush=True)


if __name__ == "__main__":
    main()
