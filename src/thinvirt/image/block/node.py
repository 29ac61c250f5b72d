"""The node protocol: what every node of a block graph answers, and what a driver fills in.

`BlockNode` is the type that everybody who uses a graph sees. Its public requests are implemented
once, in `base.BaseNode`; a driver subclasses that and overrides the hooks (one leading underscore),
which are called with aligned requests within the driver's limits only.

All offsets and lengths are bytes of the node's own address space: guest bytes for a format, host
bytes for a protocol.

This package uses neither `typing` nor `enum` nor `dataclasses` nor `contextlib` nor `re` at import:
each takes longer than some of qemu-img's commands take in all.
"""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import BlockError, NotSupported
from thinvirt.image.block.flags import Open, Permission, Preallocation, Role, Status, WriteFlags

TYPE_CHECKING = False  # mypy takes this name for true
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar, TypeAlias

    from thinvirt.image.block.options import Options
    from thinvirt.image.block.schema import OptionList
    from thinvirt.image.block.workers import Workers

    Buffer: TypeAlias = bytes | bytearray | memoryview
else:  # for those who import it at run time
    Buffer = bytes | bytearray | memoryview


class Extent:
    """A run of bytes of one kind.

    Attributes:
        length: bytes, above zero and never more than was asked for.
        flags: of `Status`.
        host_offset: where the bytes are in `node`, if `Status.OFFSET_VALID` says so.
        node: the node they are in, and the file it stands for.
        depth: how many layers down they were found (1 is the node that was asked).
    """

    __slots__ = ("depth", "flags", "host_offset", "length", "node")

    def __init__(
        self,
        length: int,
        flags: int,
        host_offset: int = 0,
        node: BlockNode | None = None,
        depth: int = 1,
    ) -> None:
        self.length = length
        self.flags = flags
        self.host_offset = host_offset
        self.node = node
        self.depth = depth

    @property
    def is_data(self) -> bool:
        """Whether the bytes must be read to be known."""
        return bool(self.flags & Status.DATA)

    @property
    def is_zero(self) -> bool:
        """Whether the range reads as zeroes."""
        return bool(self.flags & Status.ZERO)

    @property
    def is_allocated(self) -> bool:
        """Whether this layer decides, and not its backing file."""
        return bool(self.flags & Status.ALLOCATED)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extent):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        names = [
            name.lower()
            for name, bit in vars(Status).items()
            if isinstance(bit, int) and self.flags & bit
        ]
        place = f" at {self.host_offset}" if self.flags & Status.OFFSET_VALID else ""
        return f"Extent({self.length} bytes, {'|'.join(names) or 'unallocated'}{place})"


class Child:
    """An edge of the graph: `node` as seen and used by `parent`.

    Attributes:
        name: QEMU's name of the edge: "file", "backing", "data-file", "image", …
        role: of `Role`.
        perm, shared: the permissions taken on `node`, and those others may take.
    """

    __slots__ = ("name", "node", "parent", "perm", "role", "shared")

    def __init__(self, name: str, node: BlockNode, parent: Parent, role: int) -> None:
        self.name = name
        self.node = node
        self.parent = parent
        self.role = role
        self.perm = 0
        self.shared = Permission.ALL


class Parent:
    """What can hold children: a node, or the user of a graph."""

    __slots__ = ()

    def describe(self) -> str:
        """Name it as QEMU does in messages."""
        raise NotImplementedError


class Graph:
    """What a driver asks of the graph it is opened in; `graph.BlockGraph` is the one there is.

    Attributes:
        workers: threads that one operation has for its nodes' work, as long as it lasts.
    """

    workers: Workers | None = None

    def open_child(
        self,
        parent: BlockNode,
        options: Options,
        name: str,
        role: int,
        *,
        filename: str | None = None,
        allow_none: bool = False,
        parse_filename: bool = False,
    ) -> BlockNode | None:
        """Open the child whose options are `options["NAME…"]`, take those out, and attach it.

        Args:
            parent: whose child it becomes.
            options: the parent's, flat; ``NAME.…`` or a node's name under ``NAME``.
            name: of the edge.
            role: of `Role`.
            filename: where the options do not say it.
            allow_none: return None, instead of raising, where nothing says what to open.
            parse_filename: `filename` may have a protocol prefix or be ``json:``.

        Raises:
            BlockError: it cannot be opened, or others' use of it forbids ours.
        """
        raise NotImplementedError

    def open_file_child(
        self,
        parent: BlockNode,
        options: Options,
        *,
        name: str = "file",
        filename: str | None = None,
    ) -> BlockNode:
        """Open the primary child of a format or filter."""
        raise NotImplementedError

    def attach(self, parent: Parent, node: BlockNode, name: str, role: int) -> Child:
        """Make `node` a child and take the permissions that follow."""
        raise NotImplementedError

    def detach(self, child: Child) -> None:
        """Undo `attach`; a node without users is closed."""
        raise NotImplementedError

    def find_node(self, name: str) -> BlockNode | None:
        """Return the node that has this ``node-name``."""
        raise NotImplementedError

    def find_object(self, kind: str, name: str) -> Any:
        """Return what ``--object KIND,id=NAME`` made (a secret, a throttle group), or None."""
        raise NotImplementedError

    def warn(self, text: str) -> None:
        """Tell the user something that is no error; `text` may have several lines."""
        raise NotImplementedError


class BlockNode(Parent):
    """A node of the graph; see the module for what is public and what a driver overrides."""

    driver: ClassVar[str]
    is_protocol: ClassVar[bool] = False  # talks to a host, has no node below
    is_format: ClassVar[bool] = False  # interprets the bytes of its file
    is_filter: ClassVar[bool] = False  # shows its child, perhaps slower or with errors
    supports_backing: ClassVar[bool] = False
    needs_filename: ClassVar[bool] = False
    variable_length: ClassVar[bool] = False  # ask for the size each time
    strong_options: ClassVar[tuple[str, ...]] = ()  # change what is read; a dot ends a prefix
    create_options: ClassVar[OptionList | None] = None  # None: cannot be created
    can_write_zeroes: ClassVar[bool] = False  # has the `_write_zeroes` hook
    can_discard: ClassVar[bool] = False
    can_report_status: ClassVar[bool] = False
    can_compress: ClassVar[bool] = False
    can_truncate: ClassVar[bool] = False
    parses_filename: ClassVar[bool] = False  # has `parse_filename`
    makes_filename: ClassVar[bool] = False  # has the `_refresh_filename` hook

    def __init__(self, graph: Graph, options: Options, flags: int) -> None:
        self.graph = graph
        self.options = options  # all in effect, flat
        self.explicit_options: Options = {}  # those that were given
        self.open_flags = flags
        self.node_name = ""
        self.probed = False  # the format was guessed from the content
        self.force_share = False
        self.detect_zeroes = "off"
        self.copy_on_read = bool(flags & Open.COPY_ON_READ)

        # Names; `names.refresh_filename` computes the first three.
        self.filename = ""
        self.exact_filename = ""
        self.full_open_options: Options = {}
        self.backing_file = ""  # as the image says, perhaps changed since
        self.auto_backing_file = ""  # as it would be opened without anybody's options
        self.backing_format = ""

        self.children: dict[str, Child] = {}
        self.parents: list[Child] = []
        self._primary: BlockNode | None = None
        self.backing: BlockNode | None = None
        self.filtered: BlockNode | None = None

        # Limits in bytes, 0 for none; set by `_refresh_limits`.
        self.request_alignment = 1
        self.max_transfer = 0
        self.opt_transfer = 0
        self.zeroes_alignment = 0
        self.max_zeroes = 0
        self.discard_alignment = 0
        self.max_discard = 0

        self.write_flags = 0  # of WriteFlags, understood by `_write`
        self.zero_flags = 0  # understood by `_write_zeroes`
        self.truncate_flags = 0

    # ---------------------------------------------------------------- driver hooks

    @classmethod
    def parse_filename(cls, filename: str, options: Options) -> None:
        """Turn a file name into options (protocols and filters that have a form of name).

        Args:
            filename: as given, prefix included; also in ``options["filename"]``, which is removed
                afterwards unless the driver `needs_filename`.
            options: flat; put the findings here.

        Raises:
            BlockError: not a name for this driver.
        """

    def _open(self, options: Options) -> None:
        """Open the image; take out of `options` every option understood, and open the children."""

    def _close(self) -> None:
        """Write out what is pending and let go of what is held. Children close afterwards."""

    def _length(self) -> int:
        """Return the size in bytes; need not be whole sectors."""
        raise NotImplementedError

    def _refresh_limits(self) -> None:
        """Set limits; those of the children have been merged already."""

    def _read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes, zeroes for what is past the end of a file below."""
        raise NotImplementedError

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        raise NotSupported

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Make the range read as zeroes without writing them, or raise `NotSupported`."""
        raise NotSupported

    def _write_compressed(self, offset: int, data: Buffer) -> None:
        raise NotSupported

    def _copy_from_file(self, file: BlockNode, file_offset: int, offset: int, length: int) -> None:
        """Let the host copy, or share, bytes of a host file; raise `NotSupported` if it cannot."""
        raise NotSupported

    def _discard(self, offset: int, length: int) -> None:
        """Give the space back if that is easily done."""
        raise NotSupported

    def _status(self, offset: int, length: int, *, want_zero: bool) -> Extent:
        """Return what is known of the beginning of the range.

        Without `want_zero` only allocation is of interest and no trouble should be taken. The
        extent may be longer than asked for; it is cut. `Status.RAW` hands the question on.
        """
        raise NotImplementedError

    def _flush_to_os(self) -> None:
        """Write cached metadata to the children."""

    def _flush_to_disk(self) -> None:
        """Make durable what the host was given (protocols)."""

    def _truncate(self, size: int, *, exact: bool, preallocation: str, flags: int) -> None:
        """Change the size.

        Args:
            size: bytes.
            exact: fail if precisely this size is not possible; else larger is good enough.
            preallocation: of `Preallocation`, for what is added.
            flags: `WriteFlags.ZERO` if what is added must not show the backing file.
        """
        raise NotSupported

    def _child_permissions(self, child: Child, perm: int, shared: int) -> tuple[int, int]:
        """Return what this node needs of `child` for users who need `perm` and share `shared`."""
        raise NotImplementedError

    def _check_permissions(self, perm: int, shared: int) -> None:
        """Take what is needed for new permissions besides the old ones (locks), or raise."""

    def _set_permissions(self, perm: int, shared: int) -> None:
        """The new permissions hold: give back what only the old ones needed."""

    def _abort_permissions(self) -> None:
        """The new permissions do not hold after all: give back what only they needed."""

    def _reopening(self, *, read_only: bool) -> None:
        """The node is about to become read-only, or has just become writable."""

    def _refresh_filename(self) -> None:
        """Set `exact_filename` from `full_open_options` (protocols, filters with a name form)."""

    def _gather_child_options(self, target: Options, *, backing_overridden: bool) -> bool:
        """Put the children's options into `target`; return whether this was done here."""
        return False

    def debug_event(self, event: str) -> None:
        """A point of interest is passed; blkdebug acts on it."""

    # ---------------------------------------------------------------- facts

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        return not self.open_flags & Open.RDWR

    @property
    def file(self) -> BlockNode:
        """The primary child, which every format and filter has."""
        if self._primary is None:
            raise BlockError(f"node '{self.node_name}' has no file", number=errno.ENOMEDIUM)
        return self._primary

    @property
    def has_file(self) -> bool:
        """Whether there is a primary child."""
        return self._primary is not None

    @property
    def cluster_size(self) -> int:
        """Bytes of the unit of allocation, 0 if there is none (``bdrv_get_info``)."""
        return self.filtered.cluster_size if self.filtered else 0

    def has_zero_init(self) -> bool:
        """Whether a newly created image of this driver reads as zeroes."""
        return self.filtered.has_zero_init() if self.filtered else False

    def can_unmap_zeroes(self) -> bool:
        """Whether zeroes can be written as holes."""
        return bool(self.open_flags & Open.UNMAP and self.zero_flags & WriteFlags.MAY_UNMAP)

    def supports_compressed_writes(self) -> bool:
        """Whether `write_compressed` can work."""
        if self.can_compress:
            return True
        return self.filtered.supports_compressed_writes() if self.filtered else False

    def allocated_size(self) -> int:
        """Return the bytes taken on the host by this node and its children, backing file excluded.

        Raises:
            NotSupported: a protocol that cannot tell.
        """
        if self.is_protocol:
            raise NotSupported
        return sum(
            child.node.allocated_size()
            for child in self.children.values()
            if child.role & (Role.DATA | Role.METADATA | Role.FILTERED)
        )

    @property
    def is_encrypted(self) -> bool:
        """Whether what is in it cannot be read without a key."""
        return False

    @property
    def is_dirty(self) -> bool:
        """Whether the image says that it was not closed properly."""
        return False

    def identity(self) -> tuple[int, int] | None:
        """Return what tells this host file from all others, or None if it is none."""
        return None

    def format_specific(self) -> Mapping[str, Any] | None:
        """Return what only this format has to tell, keyed as QEMU keys it, or None."""
        return None

    def describe(self) -> str:
        """Name it as QEMU does in messages."""
        return f"node '{self.node_name}'"

    def __repr__(self) -> str:
        return f"<{self.driver} node {self.filename or self.node_name}>"

    # ---------------------------------------------------------------- requests (in `base`)

    @property
    def size(self) -> int:
        """Bytes, whole sectors."""
        raise NotImplementedError

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes; past the end there are zeroes.

        Raises:
            BlockError: the host failed, or the image is damaged there.
        """
        raise NotImplementedError

    def read_and_copy(self, offset: int, length: int) -> bytes:
        """Return bytes as `read` does, and store here those that came from the backing file.

        Whoever calls it must hold the permission `WRITE_UNCHANGED`.
        """
        raise NotImplementedError

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read `len(buffer)` bytes into `buffer`; otherwise as `read`."""
        raise NotImplementedError

    def write(self, offset: int, data: Buffer, flags: int = WriteFlags.NONE) -> None:
        """Store `data`; a file below grows as needed.

        Args:
            offset: where.
            data: what.
            flags: of `WriteFlags`.

        Raises:
            BlockError: the host failed or is full, or the node is read-only.
        """
        raise NotImplementedError

    def write_zeroes(self, offset: int, length: int, flags: int = WriteFlags.NONE) -> None:
        """Make a range read as zeroes, the quickest way there is.

        Args:
            offset: where.
            length: bytes.
            flags: `MAY_UNMAP` allows a hole; with `NO_FALLBACK` zeroes are never written out.

        Raises:
            NotSupported: `NO_FALLBACK`, and there is no quick way.
            BlockError: the host failed or is full, or the node is read-only.
        """
        raise NotImplementedError

    def copy_from_file(self, file: BlockNode, file_offset: int, offset: int, length: int) -> None:
        """Store bytes of a host file without reading them; the host may share the blocks.

        Args:
            file: a host file, as `Extent.node` names it.
            file_offset: where in it; `Extent.host_offset`.
            offset: where in this node.
            length: bytes.

        Raises:
            NotSupported: not by this driver, or not between these files; read and write instead.
            BlockError: the host failed (also then reading and writing may do), or is full.
        """
        raise NotImplementedError

    def write_compressed(self, offset: int, data: Buffer) -> None:
        """Store `data` compressed: one cluster, or the part of it that the image still has.

        Raises:
            NotSupported: the format has no compression.
            BlockError: as `write`.
        """
        raise NotImplementedError

    def discard(self, offset: int, length: int) -> None:
        """Say that a range is of no use any more; what it reads as afterwards is open.

        Does nothing where the node was not opened to pass discards on (``discard=unmap``).
        """
        raise NotImplementedError

    def status(self, offset: int, length: int, *, want_zero: bool = True) -> Extent:
        """Return what is known of the beginning of a range; see `status.status_above` for chains.

        Args:
            offset: where.
            length: bytes, above zero.
            want_zero: False asks only what is allocated, and may be quicker.

        Returns:
            An extent, at most `length` long; of length 0 only at or past the end.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Make all that was written durable, here and below.

        With ``cache=unsafe`` it is only handed to the host.
        """
        raise NotImplementedError

    def truncate(
        self,
        size: int,
        *,
        exact: bool = False,
        preallocation: str = Preallocation.OFF,
        flags: int = WriteFlags.NONE,
    ) -> None:
        """Change the size; what is added reads as zeroes, whatever the backing file has there.

        Args:
            size: bytes.
            exact: fail rather than stay larger (devices, NBD).
            preallocation: of `Preallocation`, for what is added.
            flags: `WriteFlags.ZERO` or none.

        Raises:
            BlockError: not possible, or the host failed.
        """
        raise NotImplementedError

    def refresh_size(self) -> None:
        """Ask the driver for the size anew."""
        raise NotImplementedError

    def refresh_limits(self) -> None:
        """Compute the limits from those of the children, then let the driver override them."""
        raise NotImplementedError

    # ---------------------------------------------------------------- for drivers and the graph

    def attached(self, child: Child) -> None:
        """Remember a new child under its role."""
        self.children[child.name] = child
        if child.role & Role.COW:
            self.backing = child.node
        elif child.role & Role.PRIMARY:
            self._primary = child.node
        if child.role & Role.FILTERED:
            self.filtered = child.node

    def detached(self, child: Child) -> None:
        """Forget a child."""
        del self.children[child.name]
        if child.role & Role.COW:
            self.backing = None
        elif child.role & Role.PRIMARY:
            self._primary = None
        if child.role & Role.FILTERED:
            self.filtered = None

    def fall_back_to_reading(self, message: str = "Image is read-only") -> None:
        """The image cannot be written: go on read-only if that was allowed, else raise.

        Raises:
            BlockError: `message`.
        """
        if self.read_only:
            return
        if not self.open_flags & Open.AUTO_RDONLY or self.copy_on_read:
            raise BlockError(message, number=errno.EACCES)
        self.open_flags &= ~Open.RDWR
