"""Open a tree of nodes: from a file name, from options, down its backing files.

    with BlockGraph().open_root("disk.qcow2", flags=Open.RDWR) as disk:
        disk.write(0, b"…")

A graph knows its nodes by name, so that one may be referred to from several places.
"""

from __future__ import annotations

from thinvirt.image.block import permissions
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open, Permission, Role
from thinvirt.image.block.opening import Opener
from thinvirt.image.block.options import flatten
from thinvirt.image.block.root import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.options import Value

_WRITABLE = Open.RDWR | Open.ALLOW_RDWR


class BlockGraph(Opener):
    """The nodes opened together.

    Args:
        objects: what ``--object`` made, by (kind, id).
        warn: told what the user should know; the default prints it as QEMU does.
    """

    def open_root(
        self,
        filename: str | None = None,
        options: Mapping[str, Value] | None = None,
        flags: int = 0,
        *,
        writethrough: bool = False,
    ) -> Root:
        """Open an image and take the permissions that `flags` ask for.

        Args:
            filename: a path, URL or ``json:`` name; None if the options say it all.
            options: flat, as from `options.parse_image_opts`, or a tree.
            flags: of `Open`; without `RDWR` the image is only read.
            writethrough: every write shall be durable when it returns.

        Raises:
            BlockError: no such image, damaged, or in use. The message is QEMU's, to be prefixed
                with ``Could not open 'NAME': `` as qemu-img does.
        """
        node = self.open(filename, options, flags)
        perm = Permission.RESIZE if flags & Open.RESIZE else 0
        if not flags & Open.NO_IO:
            perm |= Permission.CONSISTENT_READ
            if flags & Open.RDWR:
                perm |= Permission.WRITE
        shared = Permission.ALL
        if flags & Open.NO_SHARE:
            shared = Permission.CONSISTENT_READ | Permission.WRITE_UNCHANGED
        return self.root_over(node, perm, shared, writethrough=writethrough)

    def root_over(
        self,
        node: BlockNode,
        perm: int,
        shared: int = Permission.ALL,
        *,
        writethrough: bool = False,
    ) -> Root:
        """Use a node that is open already, such as a backing file that shall be committed to.

        Args:
            node: of this graph.
            perm: of `Permission`.
            shared: likewise.
            writethrough: see `open_root`.

        Raises:
            BlockError: others' use of it, here or elsewhere, forbids this.
        """
        root = Root(self, node, writethrough=writethrough)
        try:
            role = Role.FILTERED | Role.PRIMARY
            root.hold(permissions.attach(root, node, "root", role, perm=perm, shared=shared))
        except BaseException:
            self.abandon(node)
            raise
        return root

    def open(
        self,
        filename: str | None = None,
        options: Mapping[str, Value] | None = None,
        flags: int = 0,
    ) -> BlockNode:
        """Open a node that nobody uses yet; `open_root` is what one usually wants."""
        return self.open_node(filename, flatten(options or {}), flags)

    def set_backing(self, node: BlockNode, backing: BlockNode | None) -> None:
        """Put another backing file below an image, in memory only; None detaches it.

        Raises:
            BlockError: not a format with backing files, or others' use forbids it.
        """
        if not node.supports_backing:
            raise BlockError("Driver doesn't support backing files")
        old = node.children.get("backing")
        if old is not None:
            self.detach(old)
        if backing is not None:
            self.attach(node, backing, "backing", Role.COW)
        node.refresh_limits()

    def set_read_only(self, node: BlockNode, read_only: bool) -> None:
        """Open a node, and the files it stands on, for writing or for reading only.

        Raises:
            BlockError: not possible; nothing was changed.
        """
        if node.read_only == read_only:
            return
        changed = [(each, each.open_flags) for each in _same_image(node)]
        if read_only:
            node.flush()
            node._reopening(read_only=True)
            node.flush()
        for each, flags in changed:
            each.open_flags = flags & ~Open.RDWR if read_only else flags | _WRITABLE
        try:
            permissions.refresh(node)
            if not read_only:
                node._reopening(read_only=False)
        except BaseException:
            for each, flags in changed:
                each.open_flags = flags
            permissions.refresh(node)
            raise
        for each, _ in changed:
            each.options["read-only"] = read_only


def _same_image(node: BlockNode) -> list[BlockNode]:
    """Return a node and the files it stands on, without its backing file."""
    nodes = [node]
    for child in node.children.values():
        if not child.role & Role.COW:
            nodes += _same_image(child.node)
    return nodes
