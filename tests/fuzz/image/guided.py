"""Coverage-guided fuzzing with atheris (extra ``fuzz``), and the targets that pytest replays.

    script/fuzz --guided SECONDS TARGET

A target takes bytes and raises nothing but the engine's errors.
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType, ModuleType
from typing import Any

from thinvirt.errors import ThinvirtError
from thinvirt.image.block import nbd_address, qemu_json
from thinvirt.image.block.blkdebug import BlkdebugNode
from thinvirt.image.block.flags import Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.options import crumple, flatten, parse_image_opts, parse_keyval
from thinvirt.image.block.schema import parse_size
from thinvirt.image.formats.luks import LuksHeader
from thinvirt.image.formats.qcow2.snapshots import SnapshotHeader

CORPUS = Path(__file__).parent / "corpus"
_LONGEST = 1 << 18


def _opened(data: bytes, driver: str, work: Callable[..., object]) -> None:
    with TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        path = Path(folder, "image")
        path.write_bytes(data[:_LONGEST])
        try:
            with BlockGraph().open_root(str(path), {"driver": driver}, Open.NO_BACKING) as root:
                work(root)
        except ThinvirtError:
            return


def header(data: bytes) -> None:
    """Open an image: header, extensions, tables, snapshots, bitmaps."""
    _opened(data, "qcow2", lambda root: root.node.format_specific())


def tables(data: bytes) -> None:
    """Walk the mapping, read a little and check."""

    def work(root: object) -> None:
        size = min(root.size, 1 << 20)  # type: ignore[attr-defined]
        root.read(0, min(size, 1 << 16))  # type: ignore[attr-defined]
        at = 0
        for _ in range(64):
            if at >= size:
                break
            at += max(root.node.status(at, size - at).length, 512)  # type: ignore[attr-defined]
        root.node.check_image(0, lambda _: None)  # type: ignore[attr-defined]

    _opened(data, "qcow2", work)


def luks(data: bytes) -> None:
    """Read a LUKS header and look at how much work its slots ask for."""
    try:
        LuksHeader.unpack(data).check_work()
    except ThinvirtError:
        return


def names(data: bytes) -> None:
    """Read names and options: JSON, ``nbd:``, ``blkdebug:``, ``key=value``; nothing is opened."""
    text = data.decode("utf-8", "surrogateescape")
    readers: tuple[Callable[[], object], ...] = (
        lambda: crumple(flatten(dict(parse_image_opts(text)))),
        lambda: parse_keyval(text, first="qom-type"),
        lambda: nbd_address.parse_filename("nbd" + text, {}),
        lambda: BlkdebugNode.parse_filename("blkdebug:" + text, {}),
        lambda: parse_size("size", text),
        lambda: qemu_json.dumps(qemu_json.loads(text)),
    )
    for read in readers:
        try:
            read()
        except ThinvirtError:
            continue


def snapshots(data: bytes) -> None:
    """Read the fixed part of a snapshot entry."""
    try:
        _ = SnapshotHeader.unpack(data, at=0).entry_size
    except ThinvirtError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": header, "tables": tables, "luks": luks, "names": names, "snapshots": snapshots,
}  # fmt: skip


def _instrument(atheris: Any, module: ModuleType) -> None:
    """Let atheris see which lines of a module's functions and methods run."""
    for name, value in list(vars(module).items()):
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            setattr(module, name, atheris.instrument_func(value))
        elif isinstance(value, type) and value.__module__ == module.__name__:
            for key, method in list(vars(value).items()):
                if isinstance(method, FunctionType):
                    setattr(value, key, atheris.instrument_func(method))


def main(words: list[str]) -> int:
    """Fuzz one target for so many seconds; findings are left in the current folder."""
    if len(words) != 2 or words[1] not in TARGETS:
        print(f"usage: script/fuzz --guided SECONDS {{{'|'.join(TARGETS)}}}", file=sys.stderr)
        return 2
    try:
        atheris = import_module("atheris")
    except ImportError:
        print("install it first: .venv/bin/pip install atheris", file=sys.stderr)
        return 69
    target = TARGETS[words[1]]
    for module in [name for name in sys.modules if name.startswith("thinvirt.image")]:
        _instrument(atheris, sys.modules[module])
    found = Path("fuzz-corpus") / words[1]
    found.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={words[0]}", "-rss_limit_mb=512", "-timeout=20", "-max_len=262144"]
    atheris.Setup([sys.argv[0], *limits, str(found), str(CORPUS / words[1])], target)
    atheris.Fuzz()
    return 0
