"""Whatever is done to an image, in whatever order, it shows what a plain bytearray shows.

A machine writes, zeroes, discards, compresses, takes and applies snapshots, resizes, records dirty
bitmaps, commits, rebases, amends and reopens images of all kinds. At the end of each run the real
qemu-img finds the image sound and the content the same: of the image, its snapshots, its backing
file, and of what its bitmaps must have recorded.
"""

import errno
import json
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open, WriteFlags
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.qcow2 import Qcow2Node
from thinvirt.image.block.root import Root
from thinvirt.image.ops.snapshot import apply_snapshot, create_snapshot, delete_snapshot
from thinvirt.image.qemu_img.main import main

SECRET = b"secret"
_OBJECT = ("--object", f"secret,id=k,data={SECRET.decode()}")
_ENCRYPTED = "encrypt.key-secret=k,encrypt.format="
LAYOUTS = [
    "raw",
    "",
    "cluster_size=512",
    "cluster_size=4096,refcount_bits=1",
    "cluster_size=1024,refcount_bits=64",
    "cluster_size=2M",
    "compat=0.10,cluster_size=4096",
    "extended_l2=on,cluster_size=16384",
    "extended_l2=on,cluster_size=65536,compression_type=zstd",
    "compression_type=zstd,cluster_size=4096",
    "lazy_refcounts=on,cluster_size=8192",
    "preallocation=metadata,cluster_size=4096",
    "data_file=data,cluster_size=4096",
    "data_file=data,data_file_raw=on,cluster_size=8192",
    f"{_ENCRYPTED}luks,encrypt.iter-time=10,cluster_size=4096",
    f"{_ENCRYPTED}aes,cluster_size=16384",
]
BASES = ["", "", "raw", "qcow2", "qcow2,cluster_size=512", "qcow2,compat=0.10,cluster_size=65536"]

places = st.integers(0, 999)
lengths = st.sampled_from([1, 37, 512, 4096, 4097, 20000, 65536, 131072])
seeds = st.integers(0, 1 << 20)
names = st.sampled_from(["a", "b", "ä"])


def ours(*words: str) -> int:
    """Run our program in this process."""
    return main(["qemu-img", *words])


class Machine(RuleBasedStateMachine):
    """One image, what lies below it, and what all of them must show."""

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="thinvirt-machine-", dir=memory))
        self.path = self.folder / "disk"
        self.layout = ""
        self.base = ""  # the name of the backing file, "" for none
        self.contents: dict[str, bytearray] = {}  # of all images but the top
        self.shadow = bytearray()
        self.snapshots: dict[str, bytes] = {}
        self.bitmaps: dict[str, tuple[bool, set[int]]] = {}  # enabled, dirty granules of 64 KiB
        self.root: Root | None = None

    # -- set up ---------------------------------------------------------------------------

    @initialize(
        layout=st.sampled_from(LAYOUTS),
        base=st.sampled_from(BASES),
        sectors=st.sampled_from([1, 128, 1000, 1024, 2051]),
        base_sectors=st.sampled_from([1, 500, 1024, 3001]),
        seed=seeds,
    )
    def make(self, layout: str, base: str, sectors: int, base_sectors: int, seed: int) -> None:
        """Make the image and two files that may lie below it."""
        if layout == "raw" or "preallocation" in layout or "data_file_raw" in layout:
            base = ""
        self.layout = layout
        for name in ("base", "other"):
            self._make_base(name, base or "raw", base_sectors * 512, seed)
        self.base = "base" if base else ""
        chain = ["-b", "base", "-F", self._base_format(base)] if base else []
        self.base_format = self._base_format(base or "raw")
        options = ["-o", layout.replace("=data", f"={self.folder}/data")]
        words = ["-f", self.format, *([] if layout in ("", "raw") else options), *chain]
        self.shadow = bytearray(sectors * 512)
        assert ours("create", "-q", *_OBJECT, *words, str(self.path), str(len(self.shadow))) == 0
        if base:
            shown = self.contents["base"][: len(self.shadow)]
            self.shadow[: len(shown)] = shown
        self._open()

    @staticmethod
    def _base_format(base: str) -> str:
        return base.partition(",")[0]

    def _make_base(self, name: str, kind: str, size: int, seed: int) -> None:
        path = self.folder / name
        image_format, _, options = kind.partition(",")
        given = ["-o", options] if options else []
        assert ours("create", "-q", "-f", image_format, *given, str(path), str(size)) == 0
        content = bytearray(size)
        source = random.Random(f"{seed}{name}")
        with BlockGraph().open_root(str(path), {"driver": image_format}, Open.RDWR) as root:
            for _ in range(4):
                at = source.randrange(size)
                data = source.randbytes(min(source.choice([100, 9000, 70000]), size - at))
                root.write(at, data)
                content[at : at + len(data)] = data
        self.contents[name] = content

    @property
    def format(self) -> str:
        """The driver of the image."""
        return "raw" if self.layout == "raw" else "qcow2"

    @property
    def encrypted(self) -> bool:
        """Whether the image needs the secret."""
        return "encrypt" in self.layout

    def _open(self) -> None:
        options = {"driver": self.format}
        if self.encrypted:
            options["encrypt.key-secret"] = "k"
        graph = BlockGraph({("secret", "k"): SECRET})
        flags = Open.RDWR | Open.RESIZE | Open.UNMAP
        self.root = graph.open_root(str(self.path), options, flags)

    def _close(self) -> None:
        if self.root is not None:
            root, self.root = self.root, None
            root.close()

    @property
    def disk(self) -> Root:
        """The open image."""
        assert self.root is not None
        return self.root

    @property
    def node(self) -> Qcow2Node:
        """The open image's node."""
        assert isinstance(self.disk.node, Qcow2Node)
        return self.disk.node

    def _range(self, place: int, length: int) -> tuple[int, int]:
        at = len(self.shadow) * place // 1000
        if place % 3:
            at = at // 512 * 512
        return at, min(length, len(self.shadow) - at)

    def _changed(self, at: int, length: int) -> None:
        for enabled, granules in self.bitmaps.values():
            if enabled and length:
                granules.update(range(at >> 16, (at + length - 1 >> 16) + 1))

    # -- requests -------------------------------------------------------------------------

    @rule(place=places, length=lengths, seed=seeds)
    def write(self, place: int, length: int, seed: int) -> None:
        """Store random bytes."""
        at, length = self._range(place, length)
        data = random.Random(seed).randbytes(length)
        self.disk.write(at, data)
        self.shadow[at : at + length] = data
        self._changed(at, length)

    @rule(place=places, length=lengths, unmap=st.booleans())
    def zero(self, place: int, length: int, unmap: bool) -> None:
        """Write zeroes."""
        at, length = self._range(place, length)
        self.disk.write_zeroes(at, length, WriteFlags.MAY_UNMAP if unmap else WriteFlags.NONE)
        self.shadow[at : at + length] = bytes(length)
        self._changed(at, length)

    @rule(place=places, length=lengths)
    def discard(self, place: int, length: int) -> None:
        """Give a range up: it shows what it did, zeroes, or the file below."""
        at, length = self._range(place, length)
        self.disk.discard(at, length)
        now = self.disk.read(at, length)
        below = self.contents[self.base] if self.base else b""
        for offset, byte in enumerate(now, at):
            backed = below[offset] if offset < len(below) else 0
            assert byte in (0, self.shadow[offset], backed)
            if byte != self.shadow[offset]:
                self._changed(offset, 1)
        self.shadow[at : at + length] = now

    @precondition(lambda self: self.format == "qcow2" and "data" not in self.layout)
    @precondition(lambda self: not self.encrypted)
    @rule(place=places, seed=seeds, easy=st.booleans())
    def compress(self, place: int, seed: int, easy: bool) -> None:
        """Store a compressed cluster, unless there is something already."""
        unit = self.node.cluster_size
        at = len(self.shadow) * place // 1000 // unit * unit
        length = min(unit, len(self.shadow) - at)
        data = (b"%d " % seed * length)[:length] if easy else random.Random(seed).randbytes(length)
        try:
            self.disk.write_compressed(at, data)
        except BlockError as error:
            if error.errno != errno.EIO:
                raise
        else:
            self.shadow[at : at + length] = data
            self._changed(at, length)

    @rule(place=places, length=lengths)
    def read(self, place: int, length: int) -> None:
        """What is read is what was written."""
        at, length = self._range(place, length)
        assert self.disk.read(at, length) == self.shadow[at : at + length]

    @rule()
    def flush(self) -> None:
        """Make durable."""
        self.disk.flush()

    @rule()
    def reopen(self) -> None:
        """Close and open."""
        self._close()
        self._open()
        assert self.disk.size == len(self.shadow)

    # -- whole images ---------------------------------------------------------------------

    @rule(sectors=st.sampled_from([1, 100, 1024, 1500, 4000]))
    def resize(self, sectors: int) -> None:
        """Grow or shrink."""
        size = sectors * 512
        if "0.10" in self.layout and self.snapshots:
            return  # refused, in QEMU too
        self.disk.truncate(size, exact=True)
        old = len(self.shadow)
        self.shadow = self.shadow[:size].ljust(size, b"\0")
        self.bitmaps = {
            name: (enabled, {granule for granule in granules if granule << 16 < min(size, old)})
            for name, (enabled, granules) in self.bitmaps.items()
        }

    @precondition(lambda self: self.format == "qcow2" and "data" not in self.layout)
    @rule(name=names)
    def take_snapshot(self, name: str) -> None:
        """Remember the present content; with narrow refcounts there may be no room for it."""
        if name in self.snapshots:
            return
        try:
            create_snapshot(self.disk.node, name, date_ns=0)
        except BlockError as error:
            if error.errno != errno.EINVAL or "refcount_bits=1" not in self.layout:
                raise
        else:
            self.snapshots[name] = bytes(self.shadow)

    @precondition(lambda self: self.snapshots and not self.bitmaps)
    @rule(name=names)
    def go_back(self, name: str) -> None:
        """Apply a snapshot."""
        if name in self.snapshots:
            apply_snapshot(self.disk.node, name)
            self.shadow = bytearray(self.snapshots[name])

    @precondition(lambda self: self.snapshots)
    @rule(name=names)
    def forget_snapshot(self, name: str) -> None:
        """Delete a snapshot."""
        if name in self.snapshots:
            assert delete_snapshot(self.disk.node, name)
            del self.snapshots[name]

    @precondition(lambda self: self.format == "qcow2" and "0.10" not in self.layout)
    @rule(name=names, enabled=st.booleans())
    def add_bitmap(self, name: str, enabled: bool) -> None:
        """Begin to record what changes."""
        if name not in self.bitmaps:
            self.node.add_bitmap(name, 65536, enabled=enabled)
            self.bitmaps[name] = (enabled, set())

    @precondition(lambda self: self.bitmaps)
    @rule(name=names, what=st.sampled_from(["remove", "clear", "enable", "disable", "merge"]))
    def change_bitmap(self, name: str, what: str) -> None:
        """Do something with a bitmap."""
        if name not in self.bitmaps:
            return
        enabled, granules = self.bitmaps[name]
        if what == "remove":
            self.node.remove_bitmap(name)
            del self.bitmaps[name]
        elif what == "clear":
            self.node.clear_bitmap(name)
            self.bitmaps[name] = (enabled, set())
        elif what == "merge":
            other = min(self.bitmaps)
            self.node.merge_bitmap(name, self.node, other)
            granules |= self.bitmaps[other][1]
        else:
            self.node.set_bitmap_enabled(name, what == "enable")
            self.bitmaps[name] = (what == "enable", granules)

    # What a snapshot does not hold itself it takes from the file below, whatever that is later.
    @precondition(lambda self: self.base and not self.encrypted and not self.snapshots)
    @rule()
    def commit(self) -> None:
        """Write the changes into the backing file."""
        self._close()
        assert ours("commit", "-q", "-f", self.format, str(self.path)) == 0
        below = self.contents[self.base]
        below[: len(self.shadow)] = self.shadow
        self._open()

    @precondition(lambda self: self.format == "qcow2" and "raw" not in self.layout)
    @precondition(lambda self: not self.encrypted and not self.snapshots)
    @rule(name=st.sampled_from(["", "base", "other"]))
    def rebase(self, name: str) -> None:
        """Put the image on another file; it shows what it did."""
        self._close()
        words = ["-b", name, "-F", self.base_format] if name else ["-b", ""]
        assert ours("rebase", "-q", "-f", "qcow2", *words, str(self.path)) == 0
        self.base = name
        self._open()

    @precondition(lambda self: self.format == "qcow2" and not self.encrypted)
    @rule(
        change=st.sampled_from(
            [
                "compat=1.1",
                "lazy_refcounts=on",
                "lazy_refcounts=off",
                "refcount_bits=16",
                "refcount_bits=8",
                "refcount_bits=64",
            ]
        )
    )
    def amend(self, change: str) -> None:
        """Change an option; those that are not possible change nothing."""
        if "0.10" in self.layout:
            return
        self._close()
        assert ours("amend", "-q", "-f", "qcow2", "-o", change, str(self.path)) == 0
        if change.startswith("refcount_bits"):
            self.layout = self.layout.replace("refcount_bits=1", "").replace("refcount_bits=64", "")
        self._open()

    # -- the end --------------------------------------------------------------------------

    def teardown(self) -> None:
        """Ask qemu-img."""
        try:
            if self.root is not None:
                assert self.disk.read(0, self.disk.size) == self.shadow
                self._close()
                self._ask_qemu()
        finally:
            if self.root is not None:
                self.root.close()
            shutil.rmtree(self.folder)

    def _qemu(self, *words: str) -> str:
        done = subprocess.run(
            words, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def _ask_qemu(self) -> None:
        image = f"driver={self.format},file.filename={self.path}"
        if self.encrypted:
            image += ",encrypt.key-secret=k"
        (self.folder / "shadow").write_bytes(self.shadow)
        raw = "driver=raw,file.filename=shadow"
        if self.format == "qcow2":
            self._qemu("qemu-img", "check", *_OBJECT, "--image-opts", image)
        self._qemu("qemu-img", "compare", *_OBJECT, "--image-opts", raw, image)
        for name, content in self.contents.items():
            (self.folder / "shadow").write_bytes(content)
            other = f"driver={self.base_format},file.filename={name}"
            self._qemu("qemu-img", "compare", "--image-opts", raw, other)
        for name, kept in self.snapshots.items():
            words = ["-l", f"snapshot.name={name}", "-O", "raw", image, "out"]
            self._qemu("qemu-img", "convert", *_OBJECT, "--image-opts", *words)
            assert (self.folder / "out").read_bytes()[: len(kept)] == kept[: len(self.shadow)]
        if self.bitmaps and not self.encrypted:
            self._ask_about_bitmaps()

    def _ask_about_bitmaps(self) -> None:
        facts = json.loads(self._qemu("qemu-img", "info", "--output=json", str(self.path)))
        found = facts["format-specific"]["data"]["bitmaps"]
        assert {b["name"]: "auto" in b["flags"] for b in found} == {
            name: enabled for name, (enabled, _) in self.bitmaps.items()
        }
        for name, (_, granules) in self.bitmaps.items():
            assert granules <= self._dirty(name)

    def _dirty(self, name: str) -> set[int]:
        """Return the granules that qemu-nbd exports as dirty."""
        socket, pid_file = self.folder / "nbd", self.folder / "pid"
        words = ["-r", "-k", str(socket), f"--pid-file={pid_file}", "-f", "qcow2", "-B", name]
        server = subprocess.Popen(["qemu-nbd", *words, str(self.path)])
        try:
            while not pid_file.exists():
                assert server.poll() is None
                time.sleep(0.005)
            options = f"driver=nbd,server.type=unix,server.path={socket}"
            options += f",x-dirty-bitmap=qemu:dirty-bitmap:{name}"
            found = json.loads(
                self._qemu("qemu-img", "map", "--output=json", "--image-opts", options)
            )
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)
            pid_file.unlink(missing_ok=True)
        return {
            granule
            for run in found
            if not run["data"]
            for granule in range(run["start"] >> 16, (run["start"] + run["length"] - 1 >> 16) + 1)
        }


_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
TestSome = Machine.TestCase
TestSome.settings = settings(max_examples=20, stateful_step_count=25, suppress_health_check=_QUIET)


class Longer(Machine):
    """The same, run for longer and each time otherwise."""


TestMany = pytest.mark.exhaustive(pytest.mark.timeout(3600)(Longer.TestCase))
TestMany.settings = settings(
    max_examples=400, stateful_step_count=50, derandomize=False, suppress_health_check=_QUIET
)
