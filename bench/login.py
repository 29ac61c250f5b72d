"""How long clones take from their start to their login prompts, one at a time and many at once.

Each round makes fresh clones with the commands a user types, starts them and waits. No tool of this
field publishes the figure, so there is no peer beside it.

    python bench/login.py [--template tiny] [--rounds N] [--many N] [--buses virtio,scsi,sata,ide]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.common import Spread

THINVIRT = [sys.executable, "-m", "thinvirt"]


def thinvirt(*words: str) -> str:
    """Run the command and return what it printed."""
    return subprocess.run(
        [*THINVIRT, *words],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout


def logins(names: list[str]) -> list[float]:
    """Start VMs, wait for them, and return the seconds each took from its start to its login."""
    thinvirt("start", *names, "--parallel", str(len(names)))
    results = json.loads(thinvirt("wait", *names, "--login", "--timeout", "900", "--json"))
    return [result["elapsed_s"] for result in results]


def one_at_a_time(template: str, bus: str, rounds: int) -> Spread:
    """Return the time to login of one clone with nothing beside it."""
    times = []
    for _ in range(rounds):
        thinvirt("clone", template, "one", "--bus", bus)
        times += logins(["one"])
        thinvirt("rm", "--force", "one")
    return Spread.of(times)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--template", default="tiny", choices=["tiny", "debian"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=8)
    parser.add_argument("--buses", default="virtio,scsi,sata,ide")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="thinvirt-bench-", dir="/var/tmp") as folder:
        os.environ["THINVIRT_HOME"] = folder
        thinvirt("template", "build", args.template)
        print(f"{args.template}: seconds from start to login, median (lowest to highest)")
        for bus in args.buses.split(","):
            print(f"  {bus:<8} {one_at_a_time(args.template, bus, args.rounds).text()}", flush=True)
        names = [f"many-{number:03d}" for number in range(1, args.many + 1)]
        rounds = []
        for _ in range(args.rounds if args.many else 0):
            thinvirt("clone", args.template, "many", "--count", str(args.many))
            rounds.append(max(logins(names)))
            thinvirt("rm", "--force", *names)
        if rounds:
            print(f"  {args.many} at once, until the last: {Spread.of(rounds).text()}")
            print(f"  that is {statistics.median(rounds) / args.many:.2f} s per VM")


if __name__ == "__main__":
    main()
