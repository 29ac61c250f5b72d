"""What is done to a hostile image, under limits; run as a program it reads file names.

    python -m tests.fuzz.image.ordeal < names

Each line of output is JSON: the name, and what went wrong: an exception that is no image error,
more than two seconds of processor time, or more than 256 MiB beyond what the interpreter had.
"""

import gc
import json
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from thinvirt.errors import ThinvirtError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.ops.screen import screen
from thinvirt.image.qemu_img import main as program
from thinvirt.image.qemu_img.report import console

SECONDS, MEMORY = 2.0, 256 << 20
_SMALL = 8 << 20  # disks up to this size are read and copied whole


class TooLong(BaseException):
    """It took more processor time than any image of a megabyte may take."""


class NoMemory(BaseException):
    """It wanted more memory than any image of a megabyte may want."""


def _expire(_: int, __: FrameType | None) -> None:
    raise TooLong


@contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Limit the processor time of a block."""
    signal.signal(signal.SIGPROF, _expire)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory() -> None:
    """Allow so much more memory than there is now.

    Counted is what can be written to (`RLIMIT_DATA`), not address space: every thread's heap
    reserves 64 MiB of that and uses none of it.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def thin(*words: str) -> None:
    """Run the drop-in; what it says goes nowhere, except that memory ran out."""
    status = program.main(["thin-img", *words])
    if status == 1 and _ran_out:
        _ran_out.clear()
        raise NoMemory


_ran_out: list[str] = []


def _listen() -> None:
    """Hear what the drop-in says."""
    message = console.message

    def hear(text: str) -> None:
        if "out of memory" in text:
            _ran_out.append(text)
        message(text)

    console.message = hear  # type: ignore[method-assign]
    program_hand_over = "thinvirt.image.qemu_img.handover"
    __import__(program_hand_over)
    sys.modules[program_hand_over].hand_over = lambda *_: 1  # type: ignore[attr-defined]


def _read(path: str) -> None:
    """Read a few places, and small disks whole."""
    with BlockGraph().open_root(path, {"driver": "qcow2"}, Open.UNMAP) as root:
        size = root.size
        for at in (0, size // 2, size - 70000):
            root.read(max(at, 0), min(70000, size - max(at, 0)))


def _screen(path: str) -> None:
    screen(Path(path))


def _write(path: str) -> None:
    """Write, discard and read again."""
    flags = Open.RDWR | Open.UNMAP
    with BlockGraph().open_root(path, {"driver": "qcow2"}, flags) as root:
        size = root.size
        for at in (0, size // 3 // 512 * 512, (size - 5000) // 512 * 512):
            place = max(at, 0)
            root.write(place, b"w" * min(5000, size - place))
            root.discard(place, min(100000, size - place))
            root.write_zeroes(place, min(9000, size - place))
        root.flush()


def _size(path: str) -> int:
    try:
        with BlockGraph().open_root(path, {"driver": "qcow2"}, 0) as root:
            return root.size
    except ThinvirtError:
        return 0


def _copies(path: str) -> None:
    if 0 < _size(path) <= _SMALL:
        thin("convert", "-f", "qcow2", "-O", "qcow2", path, path + ".out")
        thin("compare", "-f", "qcow2", "-F", "qcow2", path, path)


TRIALS: dict[str, Callable[[str], None]] = {
    "info": lambda path: thin("info", "-f", "qcow2", "--output=json", path),
    "chain": lambda path: thin("info", "--backing-chain", path),
    "screen": _screen,
    "check": lambda path: thin("check", "-f", "qcow2", path),
    "map": lambda path: thin("map", "-f", "qcow2", "--output=json", path),
    "measure": lambda path: thin("measure", "-f", "qcow2", "-O", "qcow2", path),
    "snapshots": lambda path: thin("snapshot", "-l", path),
    "read": _read,
    "copies": _copies,
}
# These change the file: each gets its own copy.
REWRITES: dict[str, Callable[[str], None]] = {
    "repair": lambda path: thin("check", "-f", "qcow2", "-r", "all", path),
    "write": _write,
    "resize": lambda path: thin("resize", "-f", "qcow2", "-q", path, "+1M"),
    "shrink": lambda path: thin("resize", "-f", "qcow2", "-q", "--shrink", path, "64K"),
    "snapshot": lambda path: thin("snapshot", "-c", "new", path),
    "apply": lambda path: thin("snapshot", "-a", "1", path),
    "delete": lambda path: thin("snapshot", "-d", "1", path),
    "bitmap": lambda path: thin("bitmap", "--add", path, "new"),
    "amend": lambda path: thin("amend", "-f", "qcow2", "-o", "compat=0.10", path),
    "widen": lambda path: thin("amend", "-f", "qcow2", "-o", "refcount_bits=64", path),
}


# What looks at an image is bounded. What rewrites it works through all that it must change.
BOUNDED = (*TRIALS, "repair")


def suffer(path: str, names: list[str] | None = None) -> dict[str, str]:
    """Do everything to an image; return what went wrong, by trial."""
    wrong = {}
    for name, trial in (TRIALS | REWRITES).items():
        if names and name not in names:
            continue
        target = path
        if name in REWRITES:
            target = path + ".copy"
            shutil.copyfile(path, target)
        try:
            with bounded(SECONDS if name in BOUNDED else 10 * SECONDS):
                trial(target)
        except ThinvirtError:
            continue
        except (Exception, TooLong, NoMemory) as error:
            wrong[name] = "".join(traceback.format_exception(error)[-6:])
        finally:
            gc.collect()  # each trial would be a process of its own
    return wrong


def main() -> None:
    """Let the images named on standard input suffer."""
    out = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    _listen()
    with TemporaryDirectory() as folder:
        hostile_image(Path(folder, "disk"), 1)
        suffer(str(Path(folder, "disk")))  # everything is imported now
    limit_memory()
    for line in sys.stdin:
        path, *names = line.rstrip("\n").split("\t")
        answer = json.dumps({"path": path, "wrong": suffer(path, names)})
        os.write(out, answer.encode() + b"\n")


def hostile_image(path: Path, seed: int) -> list[str]:
    """Write the hostile image of a seed; return what is hostile about it."""
    from tests.fuzz.image.images import grow, spoil

    chance = random.Random(seed)
    grow(path, chance)
    raw = bytearray(path.read_bytes())
    done = spoil(raw, chance)
    path.write_bytes(raw)
    return done


if __name__ == "__main__":
    main()
