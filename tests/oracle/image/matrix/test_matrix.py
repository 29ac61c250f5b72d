"""Images of every kind, written by us, by QEMU, or by both in turn: everybody sees the same."""

import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.oracle.image.matrix.rows import Row, every_row, pairwise
from tests.oracle.image.qemu_img.side_by_side import Line, run_ours, run_real

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open, WriteFlags
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.root import Root

pytestmark = pytest.mark.oracle

SEED = 7
_OBJECT = ("--object", "secret,id=k,data=secret")
Request = tuple[str, int, int, int]  # what, offset, length, byte


class Image:
    """One image with all below it, what it must show, and both who write it."""

    def __init__(self, folder: Path, row: Row) -> None:
        self.folder = folder
        self.row = row
        self.random = random.Random(str(row))
        unit = max(row.cluster_size, 4096)
        self.size = min(40 * unit, 3 << 20) + 1536 if unit < 1 << 20 else (5 << 20) + 512
        self.shadow = bytearray(self.size)
        self.name = "driver=qcow2,file.filename=image"
        if row.encryption:
            self.name += ",encrypt.key-secret=k"

    # -- both programs --------------------------------------------------------------------

    def real(self, *words: str) -> str:
        """Return what a successful program prints."""
        done = subprocess.run(
            words, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def make(self, *, ours: bool) -> None:
        """Make the image and those below it, which get some content."""
        below, below_format = "", ""
        for number, image_format in reversed(list(enumerate(self._chain()))):
            name = f"base{number}"
            words = ["-b", below, "-F", below_format] if below else []
            size = self.size + self.random.choice([0, -1024, 65536])
            words += ["-f", image_format, name, str(size)]
            self._create(words, ours=ours)
            self._fill_base(name, image_format, size)
            below, below_format = name, image_format
        words = ["-b", below, "-F", below_format] if below else []
        words += ["-f", "qcow2", "-o", self.row.options, "image", str(self.size)]
        self._create(words, ours=ours)

    def _chain(self) -> list[str]:
        return [name for name in self.row.chain.split(">") if name]

    def _create(self, words: list[str], *, ours: bool) -> None:
        ours = ours or self.row.encryption == "luks"  # QEMU's clock may be too coarse for it
        line = Line(("create", "-q", *_OBJECT, *words))
        result = run_ours(line, self.folder) if ours else run_real(line, self.folder)
        assert (result.status, result.out) == (0, ""), result.err

    def _fill_base(self, name: str, image_format: str, size: int) -> None:
        commands = []
        for byte in (0x51, 0x52):
            at = self.random.randrange(size - 1024)
            length = min(self.random.choice([700, 40000]), size - at)
            commands += ["-c", f"write -P {byte} {at} {length}"]
            shown = min(length, max(self.size - at, 0))
            self.shadow[at : at + shown] = bytes([byte]) * shown
        self.real("qemu-io", "-f", image_format, *commands, name)

    # -- requests -------------------------------------------------------------------------

    def requests(self) -> list[Request]:
        """Return some; compressed ones go where nothing was written."""
        made: list[Request] = []
        unit = self.row.cluster_size
        kinds = ["write"] * 4 + ["zero", "zero"] + ["discard"] * (not self.row.chain)
        for _ in range(9):
            what = self.random.choice(kinds)
            length = self.random.choice([512, 3000, unit, 2 * unit + 777, 60000])
            at = self.random.randrange(self.size)
            if what == "discard":
                at, length = at // unit * unit, 2 * unit
            length = min(length, self.size - at)
            made.append((what, at, length, self.random.randrange(1, 256)))
        if self.row.compressed:
            for at in range(0, self.size - unit, max(self.size // 3 // unit, 1) * unit):
                made.insert(0, ("compress", at, unit, self.random.randrange(1, 256)))
        return made

    def write_by_us(self, requests: list[Request]) -> None:
        """Do requests with our engine."""
        with self.open(Open.RDWR | Open.UNMAP) as disk:
            for what, at, length, byte in requests:
                match what:
                    case "write":
                        disk.write(at, bytes([byte]) * length)
                    case "zero":
                        flags = WriteFlags.MAY_UNMAP if byte & 1 else WriteFlags.NONE
                        disk.write_zeroes(at, length, flags)
                    case "discard":
                        disk.discard(at, length)
                    case _:
                        disk.write_compressed(at, bytes([byte]) * length)

    def write_by_qemu(self, requests: list[Request]) -> None:
        """Do requests with qemu-io."""
        commands = []
        for what, at, length, byte in requests:
            text = {
                "write": f"write -P {byte} {at} {length}",
                "zero": f"write -z {'-u' if byte & 1 else ''} {at} {length}",
                "discard": f"discard {at} {length}",
                "compress": f"write -c -P {byte} {at} {length}",
            }[what]
            commands += ["-c", text]
        name = f"{self.name},discard=unmap"
        done = self.real("qemu-io", *_OBJECT, "--image-opts", *commands, name)
        assert "failed" not in done, done

    def note(self, requests: list[Request]) -> None:
        """Do the requests to what must be shown. What was given up may show what it did."""
        for what, at, length, byte in requests:
            data = bytes([byte]) * length if what in ("write", "compress") else bytes(length)
            if what == "discard":
                with self.open() as disk:
                    now = disk.read(at, length)
                assert all(n in (0, old) for n, old in zip(now, self.shadow[at:], strict=False))
                data = now
            self.shadow[at : at + length] = data

    def open(self, flags: int = 0) -> Root:
        """Open it with our engine."""
        options = {"driver": "qcow2", "file.filename": "image"}
        if self.row.encryption:
            options["encrypt.key-secret"] = "k"
        return BlockGraph({("secret", "k"): b"secret"}).open_root(None, options, flags)

    # -- what everybody must see ----------------------------------------------------------

    def hold(self) -> None:
        """Ask both programs everything."""
        (self.folder / "shadow").write_bytes(self.shadow)
        with self.open() as disk:
            assert disk.size == self.size
            assert disk.read(0, self.size) == self.shadow
        raw = "driver=raw,file.filename=shadow"
        self.real("qemu-img", "compare", *_OBJECT, "--image-opts", raw, self.name)
        at = next((at for at, byte in enumerate(self.shadow) if byte), 0)
        pattern = f"read -P {self.shadow[at]} {at} 1"
        said = self.real("qemu-io", "-r", *_OBJECT, "--image-opts", "-c", pattern, self.name)
        assert "verification failed" not in said
        for words in (  # and each to the byte
            ("check",),
            ("check", "--output=json"),
            ("info",),
            ("info", "--output=json", "--backing-chain"),
            ("map", "--output=json"),
            ("measure", "-O", "qcow2"),
            ("measure", "-O", "raw", "--output=json"),
        ):
            line = Line((*words, *_OBJECT, "--image-opts", self.name))
            theirs, ours = run_real(line, self.folder), run_ours(line, self.folder)
            assert theirs == ours, words
            assert theirs.status == 0, theirs
        line = Line(("compare", *_OBJECT, "--image-opts", raw, self.name))
        assert run_ours(line, self.folder).status == 0


def _run(folder: Path, row: Row) -> None:
    image = Image(folder, row)
    image.make(ours=row.writers != "theirs")
    rounds = {"ours": [True], "theirs": [False], "both": [True, False, True]}[row.writers]
    for number, ours in enumerate(rounds):
        requests = image.requests()
        if number:  # there is something already where it would go
            requests = [request for request in requests if request[0] != "compress"]
        _one_by_one(image, requests, ours=ours)
        image.hold()


def _one_by_one(image: Image, requests: list[Request], *, ours: bool) -> None:
    """Do requests; stop at those whose outcome has to be looked at."""
    waiting: list[Request] = []
    for request in requests:
        waiting.append(request)
        if request[0] == "discard":
            _do(image, waiting, ours=ours)
            waiting = []
    _do(image, waiting, ours=ours)


def _do(image: Image, requests: list[Request], *, ours: bool) -> None:
    if requests:
        (image.write_by_us if ours else image.write_by_qemu)(requests)
        image.note(requests)


@pytest.fixture(autouse=True)
def _in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of data files count from the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("row", pairwise(SEED), ids=str)
def test_every_pair(tmp_path: Path, row: Row) -> None:
    _run(tmp_path, row)


@pytest.mark.slow
@pytest.mark.parametrize("row", pairwise(SEED + 1), ids=str)
def test_every_pair_otherwise(tmp_path: Path, row: Row) -> None:
    _run(tmp_path, row)


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(16))
def test_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    for number, row in enumerate(every_row()[part::16]):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        _run(folder, row)
        shutil.rmtree(folder)


# -- while somebody holds it ----------------------------------------------------------------


@pytest.fixture
def held(tmp_path: Path, row: Row) -> Iterator[Image]:
    """Return an image that a qemu-storage-daemon exports writable."""
    image = Image(tmp_path, row)
    image.make(ours=True)
    node = f"{image.name.replace('file.', 'file.driver=file,file.', 1)},node-name=held"
    if row.encryption:
        node += f",encrypt.format={row.encryption}"
    export = ["--nbd-server", "addr.type=unix,addr.path=nbd"]
    export += ["--export", "nbd,id=e,node-name=held,writable=on"]
    monitor = ["--chardev", "stdio,id=c", "--monitor", "chardev=c"]
    daemon = subprocess.Popen(
        ["qemu-storage-daemon", *_OBJECT, "--blockdev", node, *export, *monitor],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert daemon.stdout is not None
    watchdog = threading.Timer(60, daemon.kill)
    watchdog.start()
    try:
        assert b"QMP" in daemon.stdout.readline()
        yield image
    finally:
        watchdog.cancel()
        daemon.kill()
        daemon.communicate(timeout=30)


_HELD = [row for row in pairwise(SEED) if row.writers == "both"][:5]


@pytest.mark.parametrize("row", _HELD, ids=str)
def test_what_qemu_holds_is_left_alone(held: Image) -> None:
    before = (held.folder / "image").read_bytes()
    for text in (
        "resize IMAGE +64k",
        "snapshot -c new IMAGE",
        "bitmap --add IMAGE new",
        "amend -o lazy_refcounts=on IMAGE",
        "check -r all IMAGE",
        "check IMAGE",
        "info IMAGE",
        "info -U IMAGE",
        "map --output=json IMAGE",
        "map -U --output=json IMAGE",
        "commit IMAGE",
        "rebase -b BASE IMAGE",
        "convert IMAGE out",
    ):
        names = {"IMAGE": held.name, "BASE": ""}
        command, *words = (names.get(word, word) for word in text.split())
        line = Line((command, *_OBJECT, "--image-opts", *words))
        theirs, ours = run_real(line, held.folder), run_ours(line, held.folder)
        assert theirs == ours, line
    for number in range(len(held._chain())):
        line = Line(("resize", "-f", held._chain()[number], f"base{number}", "+64k"))
        theirs, ours = run_real(line, held.folder), run_ours(line, held.folder)
        assert theirs == ours, line
        # Whoever reads a raw file does not mind others writing to it.
        assert theirs.status == (0 if held._chain()[number] == "raw" else 1)
    assert (held.folder / "image").read_bytes() == before


@pytest.mark.parametrize("row", _HELD, ids=str)
@pytest.mark.parametrize("writable", [False, True])
def test_what_we_hold_is_left_alone(tmp_path: Path, row: Row, writable: bool) -> None:
    image = Image(tmp_path, row)
    image.make(ours=False)
    line = Line(("snapshot", "-l", *_OBJECT, "--image-opts", image.name))
    writes = ["qemu-io", *_OBJECT, "--image-opts", "-c", "write 0 512", image.name]
    with image.open(Open.RDWR if writable else 0):
        done = subprocess.run(writes, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert 'Failed to get "write" lock' in done.stderr
        assert run_real(line, tmp_path).status == (1 if writable else 0)
        for number in range(image._chain().count("qcow2")):  # raw ones may be written to
            base = ["qemu-io", "-f", image._chain()[number], "-c", "write 0 512", f"base{number}"]
            done = subprocess.run(base, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert 'Failed to get "write" lock' in done.stderr
    image.real(*writes)
    with pytest.raises(BlockError), image.open(Open.RDWR) as disk:
        disk.read(image.size, 1)
