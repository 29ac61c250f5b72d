"""One command line, run by real qemu-img and by ours in the same folder, and all they leave behind.

Ours runs in a fork of the test: what the tests have imported need not be imported a thousand times.
"""

import errno
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import thinvirt.image
from thinvirt.image.qemu_img.main import main

REAL = "/usr/bin/qemu-img"
NOBODY = 65534
_SECONDS = 180.0

for _module in walk_packages(thinvirt.image.__path__, "thinvirt.image."):  # once for all forks
    import_module(_module.name)


@dataclass(frozen=True)
class Line:
    """A command line of a table.

    Attributes:
        words: what follows the program's name.
        how: what to change around it: "full" (standard output is full), "closed", "nobody" (as an
            ordinary user), "posix" (POSIXLY_CORRECT), "latin" (LC_ALL=C), "hangs" (QEMU's waits for
            somebody else), "loose" (images equal in what they show, not to the byte), "packed"
            (and not in size: compressors differ).
        differs: the reason, of those in the reference, why ours does better; "" for none.
    """

    words: tuple[str, ...]
    how: frozenset[str] = frozenset()
    differs: str = ""

    def __str__(self) -> str:
        marks = "".join(f"@{word} " for word in sorted(self.how))
        return marks + shlex.join(self.words)


def lines_of(path: Path) -> list[Line]:
    """Read a table: a command line a row, ``@how`` in front, ``!reason``; # begins a comment."""
    lines = []
    for row in path.read_text().splitlines():
        if not row.strip() or row.startswith("#"):
            continue
        words = [_special(word) for word in shlex.split(row)]
        how, differs = set(), ""
        while words and words[0].startswith(("@", "!")):
            mark = words.pop(0)
            if mark.startswith("!"):
                differs = mark[1:]
            else:
                how.add(mark[1:])
        lines.append(Line(tuple(words), frozenset(how), differs))
    return lines


def _special(word: str) -> str:
    """Put in the bytes that are written ``\\xNN``: those that are no text."""
    raw = re.sub(rb"\\x([89a-f][0-9a-f])", lambda m: bytes.fromhex(m[1].decode()), word.encode())
    return os.fsdecode(raw)


@dataclass
class Result:
    """What a run printed, its exit status, and the folder after it."""

    status: int | str
    out: str
    err: str
    files: dict[str, tuple[object, ...]] = field(default_factory=dict)


def run_real(line: Line, folder: Path) -> Result:
    """Run the line with QEMU's program."""
    return _run(line, folder, None)


def run_ours(line: Line, folder: Path) -> Result:
    """Run the line with ours, under the name of QEMU's."""
    return _run(line, folder, ["qemu-img", *line.words])


def _run(line: Line, folder: Path, ours: list[str] | None) -> Result:
    out, err = os.memfd_create("out"), os.memfd_create("err")
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _child(line, folder, ours, out, err)
    status = _wait(pid, 1.0 if "hangs" in line.how and ours is None else _SECONDS)
    return Result(status, _content(out), _content(err))


def _content(fd: int) -> str:
    with os.fdopen(fd, "rb") as stream:
        stream.seek(0)
        return stream.read().decode(errors="surrogateescape")


def _wait(pid: int, seconds: float) -> int | str:
    end = time.monotonic() + seconds
    pause = 0.0005
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


def _child(line: Line, folder: Path, ours: list[str] | None, out: int, err: int) -> None:
    """Become the program; never returns."""
    status = 250
    try:
        _set_up(line, folder, out, err)
        if ours is None:
            os.execv(REAL, ["qemu-img", *line.words])
        sys.stderr = io.TextIOWrapper(
            io.FileIO(2, "w", closefd=False), write_through=True, errors="surrogateescape"
        )
        status = main(ours)
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(status)


def _set_up(line: Line, folder: Path, out: int, err: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    if "full" in line.how:
        out = os.open("/dev/full", os.O_WRONLY)
    nothing = os.open("/dev/null", os.O_RDONLY)
    for fd, source in ((0, nothing), (1, out), (2, err)):
        os.dup2(source, fd)
    if "closed" in line.how:
        os.close(1)
    os.environ.clear()
    os.environ.update({"PATH": "/usr/bin:/bin", "TZ": "UTC", "LC_ALL": "C.UTF-8"})
    if "latin" in line.how:
        os.environ["LC_ALL"] = "C"
    if "posix" in line.how:
        os.environ["POSIXLY_CORRECT"] = "1"
    if "nobody" in line.how:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


# -- the folder -------------------------------------------------------------------------------


def files_in(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return what is in a folder: kind, mode, size, blocks and a digest of each file."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        name = str(path.relative_to(folder))
        if stat.S_ISREG(info.st_mode):
            found[name] = (oct(info.st_mode), info.st_size, info.st_blocks, _digest(path))
        else:
            found[name] = (oct(info.st_mode),)
    return found


def _digest(path: Path) -> str:
    """Return a digest of a file that holes do not change, whatever its size."""
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as stream:
        for at, stop in _extents(stream.fileno()):
            for offset in range(at // 4096 * 4096, stop, 4096):
                block = os.pread(stream.fileno(), min(4096, stop - offset), offset)
                if block.count(0) != len(block):
                    digest.update(offset.to_bytes(8, "big") + block.rstrip(b"\0"))
    return digest.hexdigest()


def stamps(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return what tells whether anything in a folder was touched."""
    return {
        str(path.relative_to(folder)): (
            info.st_ino,
            info.st_size,
            info.st_mtime_ns,
            info.st_ctime_ns,
            info.st_mode,
        )
        for path in folder.rglob("*")
        if not stat.S_ISDIR((info := path.lstat()).st_mode)
    }


def _copy(source: Path, target: Path) -> None:
    """Copy a file, with its mode and its holes; of a folder, only the folder."""
    mode = source.lstat().st_mode
    if stat.S_ISLNK(mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISFIFO(mode):
        os.mkfifo(target)
    elif stat.S_ISDIR(mode):
        target.mkdir()
    else:
        _copy_data(source, target)
        shutil.copymode(source, target)


def _copy_data(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb", buffering=0) as writer:
        writer.truncate(os.fstat(reader.fileno()).st_size)
        for at, stop in _extents(reader.fileno()):
            for offset in range(at, stop, 65536):
                block = os.pread(reader.fileno(), min(65536, stop - offset), offset)
                os.pwrite(writer.fileno(), block, offset)


def _extents(fd: int) -> Iterator[tuple[int, int]]:
    """Yield where a file has data."""
    at, end = 0, os.fstat(fd).st_size
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        stop = os.lseek(fd, at, os.SEEK_HOLE)
        yield at, stop
        at = stop


class Bench:
    """A folder made from a template; what a run touched is made anew before the next."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.template = template
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in sorted(template.rglob("*")):
            _copy(path, folder / path.relative_to(template))
        for path in template.rglob("*"):
            if path.is_dir():
                shutil.copymode(path, folder / path.relative_to(template))
        self._stamps = stamps(folder)
        self._original = files_in(folder)

    def reset(self) -> None:
        """Make anew what was touched."""
        now = stamps(self.folder)
        if now == self._stamps:
            return
        for name in sorted(set(now) | set(self._stamps)):
            if now.get(name) == self._stamps.get(name):
                continue
            path, source = self.folder / name, self.template / name
            path.unlink(missing_ok=True)
            if name in self._stamps:
                _copy(source, path)
        self._stamps = stamps(self.folder)

    def both(self, line: Line) -> tuple[Result, Result]:
        """Run a line with both programs."""
        theirs = self._one(line, real=True)
        ours = self._one(line, real=False)
        return theirs, ours

    def _one(self, line: Line, *, real: bool) -> Result:
        self.reset()
        result = run_real(line, self.folder) if real else run_ours(line, self.folder)
        if stamps(self.folder) != self._stamps:
            found = files_in(self.folder)
            result.files = {
                name: facts for name, facts in found.items() if self._original.get(name) != facts
            }
            result.files |= {name: () for name in self._original if name not in found}
            for how, show in (("loose", self._shown), ("packed", self._unpacked)):
                if how in line.how:
                    result.files = {
                        name: show(name) if facts else () for name, facts in result.files.items()
                    }
        return result

    def _ask(self, *words: str) -> str:
        done = subprocess.run(
            [REAL, *words], cwd=self.folder, capture_output=True, text=True, check=False, timeout=60
        )
        return f"{done.returncode} {done.stdout} {done.stderr}"

    def _unpacked(self, name: str) -> tuple[object, ...]:
        """Return what an image shows, for those that hold compressed clusters."""
        self._ask("convert", "-O", "raw", name, "unpacked")
        unpacked = self.folder / "unpacked"
        digest = _digest(unpacked)
        unpacked.unlink()
        return self._ask("check", "-q", name), self._ask("map", "--output=json", name), digest

    def _shown(self, name: str) -> tuple[object, ...]:
        """Return what an image shows, for those that hold a date or a salt."""
        path = str(self.folder / name)
        facts = subprocess.run(
            [REAL, "info", "--output=json", path], capture_output=True, check=False, timeout=60
        )
        tree = json.loads(facts.stdout or "{}")
        for snapshot in tree.get("snapshots", ()):
            snapshot["date-sec"] = snapshot["date-nsec"] = 0
        _forget_salts(tree)
        return (
            json.dumps(tree, sort_keys=True),
            self._ask("check", path),
            self._ask("map", "--output=json", path),
        )


def _forget_salts(tree: object) -> None:
    if isinstance(tree, dict):
        for name in ("uuid", "iters", "mk-iters", "actual-size"):
            tree.pop(name, None)
        for inner in tree.values():
            _forget_salts(inner)
    elif isinstance(tree, list):
        for inner in tree:
            _forget_salts(inner)
