"""Who may do what with a node, through the whole graph.

Every edge takes permissions on its node and says which of them others may take at the same time.
What an edge takes follows from what the parent's own users take and from the role of the child;
host files turn the sum into locks that other processes see. A change goes through the graph top
down, and is undone everywhere if it fails anywhere.
"""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open, Permission, Role
from thinvirt.image.block.node import BlockNode, Child, Parent

_READ = Permission.CONSISTENT_READ
_WRITE = Permission.WRITE
_UNCHANGED = Permission.WRITE_UNCHANGED
_RESIZE = Permission.RESIZE


def permission_names(bits: int) -> str:
    """Return the permissions by name, as QEMU's messages list them."""
    return ", ".join(name for n, name in enumerate(Permission.NAMES) if bits >> n & 1)


def default_permissions(parent: BlockNode, child: Child, perm: int, shared: int) -> tuple[int, int]:
    """Return what a parent needs of a child in the child's role.

    Args:
        parent: a node whose users need `perm` and share `shared`.
        child: the edge concerned.
        perm: of `Permission`.
        shared: likewise.
    """
    if child.role & Role.FILTERED:
        return perm, shared
    if child.role & Role.COW:
        # Backing files are read, and may change only where the overlay's users can bear it.
        others = _WRITE | _RESIZE if shared & _WRITE else 0
        return perm & _READ, others | _READ | _UNCHANGED
    if child.role & Role.METADATA:
        # The format may write its own structures without any guest write, and relies on nobody
        # else doing so.
        if not parent.read_only:
            perm |= _WRITE | _RESIZE
        if not parent.open_flags & Open.NO_IO:
            perm |= _READ
        shared &= ~(_WRITE | _RESIZE)
    if child.role & Role.DATA:
        shared &= ~_RESIZE  # the format may have noted the size
        if perm & _UNCHANGED:
            perm |= _WRITE
        if perm & _WRITE:
            perm |= _RESIZE
    return perm, shared


def cumulative(node: BlockNode) -> tuple[int, int]:
    """Return what all users of `node` take together, and what all of them share."""
    perm, shared = 0, Permission.ALL
    for edge in node.parents:
        perm |= edge.perm
        shared &= edge.shared
    return perm, shared


def attach(
    parent: Parent, node: BlockNode, name: str, role: int, *, perm: int, shared: int
) -> Child:
    """Make `node` a child of a user of the graph who needs `perm` and shares `shared`.

    Raises:
        BlockError: others' use of `node`, here or in another process, forbids it.
    """
    edge = Child(name, node, parent, role)
    node.parents.append(edge)
    if isinstance(parent, BlockNode):
        parent.attached(edge)
    try:
        if isinstance(parent, BlockNode):
            above = cumulative(parent)
            perm, shared = _needed(parent, edge, *above)
        change([(edge, perm, shared)])
    except BaseException:
        detach(edge)
        raise
    return edge


def detach(edge: Child) -> None:
    """Remove an edge and give back what it took; closing the node is left to the graph."""
    edge.node.parents.remove(edge)
    if isinstance(edge.parent, BlockNode):
        edge.parent.detached(edge)
    refresh(edge.node)


def forget(edge: Child) -> None:
    """Remove the last edge of a node that is about to be closed, which gives everything back."""
    edge.node.parents.remove(edge)
    if isinstance(edge.parent, BlockNode):
        edge.parent.detached(edge)


def set_permissions(edge: Child, perm: int, shared: int) -> None:
    """Change what a user of the graph takes.

    Raises:
        BlockError: others' use forbids it; nothing was changed. Never when only giving back.
    """
    tightened = perm & ~edge.perm or edge.shared & ~shared
    try:
        change([(edge, perm, shared)])
    except BlockError:
        if tightened:
            raise


def refresh(node: BlockNode) -> None:
    """Compute permissions anew from `node` down, after its flags or its parents changed.

    Raises:
        BlockError: they cannot be had.
    """
    _Change().run([node])


def change(edges: list[tuple[Child, int, int]]) -> None:
    """Give edges new permissions, and all that follows below them, or nothing of it.

    Raises:
        BlockError: others' use forbids it.
    """
    work = _Change()
    for edge, perm, shared in edges:
        work.note(edge, perm, shared)
    work.run([edge.node for edge, _, _ in edges])


class _Change:
    """One change on its way through the graph, and how to undo it."""

    def __init__(self) -> None:
        self.old: list[tuple[Child, int, int]] = []
        self.checked: list[BlockNode] = []

    def note(self, edge: Child, perm: int, shared: int) -> None:
        self.old.append((edge, edge.perm, edge.shared))
        edge.perm, edge.shared = perm, shared

    def run(self, tops: list[BlockNode]) -> None:
        try:
            for node in _parents_first(tops):
                self._check(node)
        except BaseException:
            for edge, perm, shared in reversed(self.old):
                edge.perm, edge.shared = perm, shared
            for node in reversed(self.checked):
                node._abort_permissions()
            raise
        for node in self.checked:
            node._set_permissions(*cumulative(node))

    def _check(self, node: BlockNode) -> None:
        _refuse_conflicts(node)
        perm, shared = cumulative(node)
        if perm & (_WRITE | _UNCHANGED):
            if node.read_only:
                raise BlockError("Block node is read-only", number=errno.EPERM)
            if not perm & _RESIZE and node.size % node.request_alignment:
                raise BlockError(
                    "Cannot get 'write' permission without 'resize': Image size is not a multiple "
                    "of request alignment",
                    number=errno.EPERM,
                )
        node._check_permissions(perm, shared)
        self.checked.append(node)
        for child in node.children.values():
            self.note(child, *_needed(node, child, perm, shared))


def _needed(parent: BlockNode, child: Child, perm: int, shared: int) -> tuple[int, int]:
    """Return what a parent needs of a child; with ``force-share`` others may do as they like."""
    perm, shared = parent._child_permissions(child, perm, shared)
    return perm, Permission.ALL if child.node.force_share else shared


def _refuse_conflicts(node: BlockNode) -> None:
    for holder in node.parents:
        for other in node.parents:
            wanted = other.perm & ~holder.shared
            if other is not holder and wanted:
                raise BlockError(
                    f"Permission conflict on node '{node.node_name}': permissions "
                    f"'{permission_names(wanted)}' are both required by {other.parent.describe()} "
                    f"(uses node '{node.node_name}' as '{other.name}' child) and unshared by "
                    f"{holder.parent.describe()} (uses node '{node.node_name}' as "
                    f"'{holder.name}' child).",
                    number=errno.EPERM,
                )


def _parents_first(tops: list[BlockNode]) -> list[BlockNode]:
    """Return all nodes from `tops` down, every parent before its children."""
    order: list[BlockNode] = []
    seen: set[int] = set()

    def visit(node: BlockNode) -> None:
        if id(node) not in seen:
            seen.add(id(node))
            for child in node.children.values():
                visit(child.node)
            order.append(node)

    for top in tops:
        visit(top)
    order.reverse()
    return order
