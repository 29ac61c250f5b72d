"""What it costs to know an operating system, beside osinfo-query, which reads the same files.

    .venv/bin/python bench/os_knowledge.py [--rounds 15]

`thinvirt advise` with its index against `osinfo-query`, both as processes that name one system, in
turn; then the steps inside. Wall-clock time is what a user waits; processor time is the steadier
figure on a busy machine, and the only one in the table.
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
from bench.common import Spread, paired

from thinvirt.service.os_knowledge import OsKnowledge, places

HERE = Path(__file__).parents[1]
OS = "debian11"


def process(*words: str) -> float:
    """Run a command and return its processor time in milliseconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return 1000 * spent


def step(action: Callable[[], object], rounds: int) -> str:
    """Return the processor time of a step in this process, in milliseconds."""
    values = []
    for _ in range(rounds):
        begun = time.process_time()
        action()
        values.append(1000 * (time.process_time() - begun))
    return Spread.of(values).text(" ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    thinvirt = str(HERE / ".venv" / "bin" / "thinvirt")
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch)
        os.environ["XDG_CACHE_HOME"] = scratch
        process(thinvirt, "advise", OS)  # makes the index
        ours, peer, ratio = paired(
            lambda: process(thinvirt, "advise", OS),
            lambda: process("osinfo-query", "os", f"short-id={OS}"),
            rounds,
        )
        print("| | CPU ms | osinfo-query | ratio |\n|---|---|---|---|")
        print(f"| one system | {ours.text()} | {peer.text()} | {ratio.text()} |")
        where = places()

        def make() -> None:
            for file in cache.glob("*.index"):
                file.unlink()
            OsKnowledge(where, cache_dir=cache)

        print(f"\nmaking the index: {step(make, 3)}")
        print(f"opening it: {step(lambda: OsKnowledge(where, cache_dir=cache), rounds)}")
        known = OsKnowledge(where, cache_dir=cache)
        print(f"finding a system: {step(lambda: known.find(OS), rounds)}")


if __name__ == "__main__":
    main()
