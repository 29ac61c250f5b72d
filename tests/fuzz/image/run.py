"""Hostile images for a while: ``python -m tests.fuzz.image.run SECONDS [SEED]``."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.image.ordeal import hostile_image


def _start() -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.fuzz.image.ordeal"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run(seconds: float, seed: int) -> int:
    """Go on for so many seconds from a seed; print what is wrong and return how often."""
    end = time.monotonic() + seconds
    findings, first = 0, seed
    ordeal = _start()
    with TemporaryDirectory() as folder:
        path = Path(folder, "disk")
        while time.monotonic() < end:
            done = hostile_image(path, seed)
            assert ordeal.stdin is not None
            assert ordeal.stdout is not None
            ordeal.stdin.write(f"{path}\n")
            ordeal.stdin.flush()
            answer = ordeal.stdout.readline()
            if not answer:
                answer = json.dumps({"wrong": {"all": f"ended with status {ordeal.wait()}"}})
                ordeal = _start()
            if wrong := json.loads(answer)["wrong"]:
                findings += 1
                print(json.dumps({"seed": seed, "hostile": done, "wrong": wrong}), flush=True)
            seed += 1
    ordeal.communicate()
    print(f"{seed - first} images from seed {first}: {findings} with findings", file=sys.stderr)
    return findings


def main(words: list[str]) -> int:
    """Read the command line."""
    if words[:1] == ["--guided"]:
        from tests.fuzz.image.guided import main as guided

        return guided(words[1:])
    if not words or not words[0].isdecimal():
        print("usage: script/fuzz SECONDS [SEED]", file=sys.stderr)
        return 2
    seed = int(words[1]) if len(words) > 1 else random.SystemRandom().randrange(1 << 40)
    return 1 if run(int(words[0]), seed) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
