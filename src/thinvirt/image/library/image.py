"""An opened image: requests at guest offsets, and what is known of it."""

from __future__ import annotations

import threading
import weakref
from contextlib import ExitStack, contextmanager
from io import BufferedRandom, BufferedReader
from typing import TYPE_CHECKING, NamedTuple

from thinvirt.errors import UsageError
from thinvirt.image.block.abilities import BitmapHolder
from thinvirt.image.block.flags import Open, WriteFlags
from thinvirt.image.block.names import refresh_filename
from thinvirt.image.block.root import ClosedOnExit
from thinvirt.image.block.status import chain
from thinvirt.image.library.session import (
    ImageName,
    Secrets,
    Session,
    host_path,
    located,
    shown,
    top_node,
)
from thinvirt.image.ops.info import ImageInfo
from thinvirt.image.ops.map import map_image
from thinvirt.image.ops.snapshot import list_snapshots, show_snapshot_called

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal, TypeAlias

    from thinvirt.image.block.abilities import Bitmap, Snapshot
    from thinvirt.image.block.root import Root
    from thinvirt.image.ops.map import MapEntry

    Kind: TypeAlias = Literal["data", "zero", "unallocated"]
    Bytes: TypeAlias = bytes | bytearray | memoryview

_FILE_BUFFER = 64 << 10  # bytes


class Extent(NamedTuple):
    """A run of bytes that are all alike.

    Attributes:
        start: where it begins in the image, in bytes.
        length: of it, in bytes.
        kind: "data" must be read to be known; "zero" reads as zeroes because a layer says so;
            "unallocated" reads as zeroes because no layer says anything.
        depth: the layer that decides: 0 is the image, 1 its backing file, and so on.
        filename: the host file it lies in, None where there is no such place.
        offset: where in that file; None too for compressed or encrypted data.
    """

    start: int
    length: int
    kind: Kind
    depth: int
    filename: str | None
    offset: int | None

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.start + self.length


class Layer(NamedTuple):
    """One image of a chain; `size` is in bytes."""

    filename: str
    format: str
    size: int


class Image(ClosedOnExit):
    """An image, open; `open_image` makes it. A context manager that closes it.

    Requests may come from any thread: each runs whole, one at a time. What is written is visible to
    all requests that begin later; it is durable after `flush` or `close`. Between processes the
    locks of QEMU hold. A child process must open images of its own.
    """

    def __init__(self, session: Session, root: Root, name: ImageName, *, writable: bool) -> None:
        self._session = session
        self._root: Root | None = root
        self._name = name
        self._writable = writable
        self._lock = threading.RLock()
        self._files: weakref.WeakSet[BufferedReader | BufferedRandom] = weakref.WeakSet()

    def __repr__(self) -> str:
        state = "closed" if self._root is None else "writable" if self._writable else "read-only"
        return f"<Image {shown(self._name)}, {state}>"

    def close(self) -> None:
        """Write everything out, make it durable, and close. Does nothing twice.

        Raises:
            ThinvirtError: not everything could be written; the image is closed nevertheless.
        """
        with ExitStack() as last:
            last.callback(self._close)
            for file in self._open_files():
                last.callback(file.close)

    def _close(self) -> None:
        with self._lock:
            if self._root is not None:
                self._root = None
                with located(self._name):
                    self._session.close()

    def _open_files(self) -> list[BufferedReader | BufferedRandom]:
        """Return the files over this image. Their locks come before ours, never after."""
        with self._lock:
            return list(self._files)

    # ---------------------------------------------------------------- what is known

    @property
    def size(self) -> int:
        """What a guest sees, in bytes."""
        with self._use() as root:
            return root.size

    @property
    def format(self) -> str:
        """The name of its format, such as "qcow2" or "raw"."""
        with self._use() as root:
            return top_node(root).driver

    @property
    def filename(self) -> str:
        """Its name as QEMU gives it: ``json:`` where a plain one would not do."""
        with self._use() as root:
            refresh_filename(root.node)
            return root.node.filename

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self._writable

    @property
    def cluster_size(self) -> int:
        """The unit of its allocation in bytes, 0 if it has none."""
        with self._use() as root:
            return top_node(root).cluster_size

    @property
    def backing_chain(self) -> tuple[Layer, ...]:
        """The image and the files below it, from the top down."""
        with self._use() as root:
            refresh_filename(root.node)
            return tuple(Layer(n.filename, n.driver, n.size) for n in chain(root.node))

    @property
    def snapshots(self) -> Sequence[Snapshot]:
        """Its internal snapshots."""
        with self._use() as root:
            return tuple(list_snapshots(root.node))

    @property
    def bitmaps(self) -> Sequence[Bitmap]:
        """Its persistent dirty bitmaps."""
        with self._use() as root:
            node = top_node(root)
            return tuple(node.list_bitmaps()) if isinstance(node, BitmapHolder) else ()

    def info(self) -> ImageInfo:
        """Return all that is known of the image, as ``qemu-img info`` shows it."""
        with self._use() as root:
            return ImageInfo(root.node)

    def extents(self, start: int = 0, end: int | None = None) -> Iterator[Extent]:
        """Yield what is where, in order and without gaps.

        Each step is one request: what is written meanwhile may or may not show.

        Args:
            start: first byte.
            end: one past the last byte; None is the end of the image.

        Raises:
            ThinvirtError: metadata cannot be read.
        """
        with self._use() as root:
            self._check(root, start, (root.size if end is None else end) - start)
            entries = map_image(root.node, start, end)
        while True:
            with self._use():
                entry = next(entries, None)
            if entry is None:
                return
            yield _extent(entry)

    # ---------------------------------------------------------------- requests

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, as a guest reads them.

        Raises:
            UsageError: the range does not lie within the image.
            ThinvirtError: it cannot be read.
        """
        with self._use(offset, length) as root:
            return root.read(offset, length)

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Read as many bytes as `buffer` has room for; otherwise as `read`."""
        view = memoryview(buffer).cast("B")
        with self._use(offset, len(view)) as root:
            root.read_into(offset, view)

    def write(self, offset: int, data: Bytes) -> None:
        """Store bytes.

        Raises:
            UsageError: opened for reading only, or the range does not lie within the image.
            ThinvirtError: they cannot be written.
        """
        view = memoryview(data).cast("B")
        with self._use(offset, len(view), writes=True) as root:
            root.write(offset, view)

    def write_compressed(self, offset: int, data: Bytes) -> None:
        """Store one cluster compressed, or what the image has of its last one; see `write`."""
        view = memoryview(data).cast("B")
        with self._use(offset, len(view), writes=True) as root:
            root.write_compressed(offset, view)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool = True) -> None:
        """Make a range read as zeroes, without storing them where that can be; see `write`.

        Args:
            offset: where, in bytes.
            length: in bytes.
            may_unmap: the space may be given back.
        """
        with self._use(offset, length, writes=True) as root:
            flags = WriteFlags.MAY_UNMAP if may_unmap else WriteFlags.NONE
            root.write_zeroes(offset, length, flags)

    def discard(self, offset: int, length: int) -> None:
        """Give a range up: its content no longer matters. A hint, which may do nothing."""
        with self._use(offset, length, writes=True) as root:
            root.discard(offset, length)

    def flush(self) -> None:
        """Make durable what was written, by files of `file` too.

        Raises:
            ThinvirtError: not everything could be written.
        """
        for file in self._open_files():
            if not file.closed:
                file.flush()
        with self._use() as root:
            root.flush()

    def file(
        self, start: int = 0, length: int | None = None, *, writable: bool | None = None
    ) -> BufferedReader | BufferedRandom:
        """Return the image, or a part such as a partition, as a file of Python's.

        It has a buffer and a position: one thread at a time. It is closed with the image.

        Args:
            start: first byte.
            length: bytes; None goes to the end of the image.
            writable: None allows writing if the image does.

        Raises:
            UsageError: writing is not allowed, or the range does not lie within the image.
        """
        from thinvirt.image.library.stream import ImageFile

        writes = self._writable if writable is None else writable
        with self._use(writes=writes) as root:
            count = root.size - start if length is None else length
            self._check(root, start, count)
            raw = ImageFile(self, start, count, writable=writes)
            file: BufferedReader | BufferedRandom
            if writes:
                file = BufferedRandom(raw, _FILE_BUFFER)
            else:
                file = BufferedReader(raw, _FILE_BUFFER)
            self._files.add(file)
        return file

    @contextmanager
    def _use(
        self, offset: int | None = None, length: int = 0, *, writes: bool = False
    ) -> Iterator[Root]:
        """Hold the lock around one request, after a look at its arguments."""
        with self._lock, located(self._name):
            if self._root is None:
                raise ValueError("I/O operation on a closed image")
            if writes and not self._writable:
                raise UsageError(
                    "the image was opened for reading only", hint="open_image(…, writable=True)"
                )
            if offset is not None:
                self._check(self._root, offset, length)
            yield self._root

    def _check(self, root: Root, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > root.size:
            raise UsageError(
                f"{length} bytes at {offset} do not lie within the image of {root.size} bytes",
                path=host_path(self._name),
            )


def open_image(
    name: ImageName,
    *,
    format: str | None = None,  # noqa: A002 - the word that everybody uses
    writable: bool = False,
    snapshot: str | None = None,
    backing: bool = True,
    force_share: bool = False,
    cache: str = "writeback",
    secrets: Secrets | None = None,
) -> Image:
    """Open an image, and the chain of backing files below it.

    Args:
        name: a path, a name as QEMU understands it, or a tree of options. With images of others
            use `format`, and a `pathlib.Path`: then the content never decides what is opened.
        format: "qcow2", "raw", "luks", …; None guesses it from the first sector.
        writable: allow writing; others may then not write to it.
        snapshot: show this internal snapshot (ID or name) instead of the present content.
        backing: open the backing file; without it what it would show reads as zeroes.
        force_share: take no locks: read an image that a running guest writes to. What is read
            then need not be consistent.
        cache: "writeback" makes writes durable on `flush`, "writethrough" at once; "none" and
            "directsync" are these two past the host's cache; "unsafe" never.
        secrets: passwords by id; options such as ``{"encrypt.key-secret": ID}`` refer to them.

    Raises:
        NotFound: no such file, or no such backing file.
        Busy: another process has it open; `holders` of the error names it.
        UsageError: arguments that do not fit together.
        ImageError: damaged, hostile, or of a kind that is not known.
    """
    if snapshot is not None and writable:
        raise UsageError("a snapshot can only be read", hint="apply_snapshot goes back to it")
    flags = Open.RDWR | Open.UNMAP if writable else 0
    if not backing:
        flags |= Open.NO_BACKING
    with Session(secrets) as session:
        root = session.open(name, format, flags, cache=cache, force_share=force_share)
        if snapshot is not None:
            with located(name):
                show_snapshot_called(top_node(root), snapshot)
        return Image(session.pop_all(), root, name, writable=writable)


def _extent(entry: MapEntry) -> Extent:
    kind: Kind = "data"
    if not entry.present:
        kind = "unallocated"
    elif entry.zero:
        kind = "zero"
    return Extent(entry.start, entry.length, kind, entry.depth, entry.filename, entry.offset)
