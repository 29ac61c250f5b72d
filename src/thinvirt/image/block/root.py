"""The user's end of a graph: permissions, bounds and write-through."""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import failed
from thinvirt.image.block.flags import Permission, Preallocation, WriteFlags
from thinvirt.image.block.node import Parent
from thinvirt.image.block.permissions import set_permissions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from thinvirt.image.block.node import BlockNode, Buffer, Child, Graph


class ClosedOnExit:
    """A context manager that closes what it is."""

    __slots__ = ()

    def close(self) -> None:
        """Close it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Exception:
            if error is None:  # otherwise what came first is what matters
                raise


class Root(ClosedOnExit, Parent):
    """An opened graph, as its user holds it; a context manager that closes it.

    Unlike those of a node its requests end at the end of the image.

    Attributes:
        node: the top of the graph.
        writethrough: every write is durable when it returns (``cache=writethrough``).
    """

    __slots__ = ("_edge", "graph", "node", "writethrough")

    def __init__(self, graph: Graph, node: BlockNode, *, writethrough: bool = False) -> None:
        self.graph = graph
        self.node = node
        self.writethrough = writethrough
        self._edge: Child | None = None

    def hold(self, edge: Child) -> None:
        """Remember the edge that connects to the node (the graph calls this)."""
        self._edge = edge

    def describe(self) -> str:
        """Name it as QEMU does in messages."""
        return "an unnamed block device"

    def close(self) -> None:
        """Flush and close the graph, as far as nobody else uses its nodes. Does nothing twice.

        Raises:
            BlockError: not everything could be written; the graph is closed nevertheless.
        """
        if self._edge is not None:
            edge, self._edge = self._edge, None
            self.graph.detach(edge)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.node.size

    @property
    def permissions(self) -> tuple[int, int]:
        """What is taken and what is shared, of `Permission`."""
        assert self._edge is not None
        return self._edge.perm, self._edge.shared

    def set_permissions(self, perm: int, shared: int = Permission.ALL) -> None:
        """Take other permissions.

        Raises:
            BlockError: others' use of the image forbids it; nothing was changed.
        """
        assert self._edge is not None
        set_permissions(self._edge, perm, shared)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes; see `BlockNode.read`."""
        self._check(offset, length)
        return self.node.read(offset, length)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read into a buffer; see `BlockNode.read`."""
        self._check(offset, len(buffer))
        self.node.read_into(offset, buffer)

    def write(self, offset: int, data: Buffer, flags: int = WriteFlags.NONE) -> None:
        """Store bytes; see `BlockNode.write`."""
        self._check(offset, len(data))
        self.node.write(offset, data, flags | (WriteFlags.FUA if self.writethrough else 0))

    def write_zeroes(self, offset: int, length: int, flags: int = WriteFlags.NONE) -> None:
        """Make a range read as zeroes; see `BlockNode.write_zeroes`."""
        self._check(offset, length)
        self.node.write_zeroes(offset, length, flags | (WriteFlags.FUA if self.writethrough else 0))

    def write_compressed(self, offset: int, data: Buffer) -> None:
        """Store bytes compressed; see `BlockNode.write_compressed`."""
        self._check(offset, len(data))
        self.node.write_compressed(offset, data)

    def discard(self, offset: int, length: int) -> None:
        """Give a range up; see `BlockNode.discard`."""
        self._check(offset, length)
        self.node.discard(offset, length)

    def flush(self) -> None:
        """Make durable what was written."""
        self.node.flush()

    def truncate(
        self,
        size: int,
        *,
        exact: bool = False,
        preallocation: str = Preallocation.OFF,
        flags: int = WriteFlags.NONE,
    ) -> None:
        """Change the size; see `BlockNode.truncate`."""
        self.node.truncate(size, exact=exact, preallocation=preallocation, flags=flags)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or offset + length > self.node.size:
            raise failed(errno.EIO, offset=offset)
