"""Coverage-guided fuzzing with atheris (extra ``fuzz``), and the targets that pytest replays.

    script/fuzz --guided SECONDS TARGET

A target takes bytes and raises nothing but the engine's errors.
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from socket import socket
from struct import pack
from tempfile import TemporaryDirectory
from types import FunctionType, ModuleType
from typing import Any, cast

from thinvirt.errors import ThinvirtError
from thinvirt.image.block import nbd_address, qemu_json
from thinvirt.image.block.blkdebug import BlkdebugNode
from thinvirt.image.block.flags import Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.nbd_handshake import Handshake
from thinvirt.image.block.nbd_session import Command, Session
from thinvirt.image.block.options import crumple, flatten, parse_image_opts, parse_keyval
from thinvirt.image.block.schema import parse_size
from thinvirt.image.formats.luks import LuksHeader
from thinvirt.image.formats.qcow2.snapshots import SnapshotHeader

CORPUS = Path(__file__).parent / "corpus"
_LONGEST = 1 << 18
_BITMAPS_MAGIC = bytes.fromhex("23852875")


def _opened(
    data: bytes, driver: str, work: Callable[..., object], flags: int = Open.NO_BACKING
) -> None:
    with TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        path = Path(folder, "image")
        path.write_bytes(data[:_LONGEST])
        try:
            with BlockGraph().open_root(str(path), {"driver": driver}, flags) as root:
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


class _Server:
    """A connection to a server that says what it says, whatever it is asked."""

    def __init__(self, says: bytes) -> None:
        self._says = BytesIO(says)

    def recv_into(self, buffer: memoryview) -> int:
        """Receive what fits."""
        return self._says.readinto(buffer)

    def sendall(self, data: bytes) -> None:
        """Send to nobody."""

    def close(self) -> None:
        """Close it."""


def nbd(data: bytes) -> None:
    """Shake hands with an NBD server, read from it, ask for the status and write."""
    server = cast("socket", _Server(data))
    try:
        session = Session(server, Handshake(server).run("", "base:allocation"))
    except ThinvirtError:
        return
    requests: tuple[Callable[[], object], ...] = (
        lambda: session.read(4096, 8192),
        lambda: session.block_status(0, 1 << 20),
        lambda: session.command(Command.WRITE, 0, 0, 3, b"abc"),
        lambda: session.read(0, 512),
    )
    for request in requests:
        try:
            request()
        except ThinvirtError:
            continue
    session.close()


def bitmaps(data: bytes) -> None:
    """Read a bitmap directory, and the bitmaps that it tells of: the image around it is sound."""
    raw = bytearray((CORPUS / "header" / "bitmap").read_bytes())
    raw += bytes(-len(raw) % 512)
    at = raw.index(_BITMAPS_MAGIC) + 8
    raw[at : at + 24] = pack(">IIQQ", data[0] + 1 if data else 1, 0, len(data[1:]), len(raw))
    raw += data[1:]

    def work(root: object) -> None:
        root.node.format_specific()  # type: ignore[attr-defined]
        root.node.list_bitmaps()  # type: ignore[attr-defined]

    _opened(bytes(raw), "qcow2", work)


def encryption(data: bytes) -> None:
    """Open a LUKS volume, and a qcow2 image that is encrypted with it, as far as info needs."""
    flags = Open.NO_BACKING | Open.NO_IO
    _opened(data, "luks", lambda root: root.node.format_specific(), flags)
    raw = bytearray((CORPUS / "header" / "plain").read_bytes())
    raw += bytes(-len(raw) % 512)
    raw[32:36] = pack(">I", 2)  # the method of encryption
    length = int.from_bytes(raw[100:104], "big")
    raw[length : length + 24] = pack(">IIQQ", 0x0537BE77, 16, len(raw), len(data))
    raw += data
    _opened(bytes(raw), "qcow2", lambda root: root.node.format_specific(), flags)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": header, "tables": tables, "luks": luks, "names": names, "snapshots": snapshots,
    "nbd": nbd, "bitmaps": bitmaps, "encryption": encryption,
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
