"""The nodes that are open together: their names, their edges, and when they close."""

from __future__ import annotations

import sys

from thinvirt.image.block import permissions
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Permission
from thinvirt.image.block.node import BlockNode, Graph

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from thinvirt.image.block.node import Child, Parent


class NodeSet(Graph):
    """What a graph is without the opening of nodes; `graph.BlockGraph` is the whole.

    Args:
        objects: what ``--object`` made, by (kind, id).
        warn: told what the user should know; the default prints it as QEMU does.
    """

    def __init__(
        self,
        objects: Mapping[tuple[str, str], Any] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.nodes: dict[str, BlockNode] = {}
        self.objects = dict(objects or {})
        self._warn = warn or _print_warning
        self._named = 0

    def find_node(self, name: str) -> BlockNode | None:
        """Return the node that has this name."""
        return self.nodes.get(name)

    def find_object(self, kind: str, name: str) -> Any:
        """Return what ``--object KIND,id=NAME`` made, or None."""
        return self.objects.get((kind, name))

    def warn(self, text: str) -> None:
        """Tell the user."""
        self._warn(text)

    def close_if_unused(self, node: BlockNode) -> None:
        """Close a node without users, and below it all that then has none.

        Raises:
            BlockError: not everything could be written; all is closed nevertheless.
        """
        if node.parents or self.nodes.get(node.node_name) is not node:
            return
        trouble: BlockError | None = None
        for step in (node.flush, node._close):
            try:
                step()
            except BlockError as error:
                trouble = trouble or error
        del self.nodes[node.node_name]
        for child in list(node.children.values()):
            try:
                self.detach(child)
            except BlockError as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    def attach(self, parent: Parent, node: BlockNode, name: str, role: int) -> Child:
        """Make `node` a child and take the permissions that follow."""
        try:
            return permissions.attach(parent, node, name, role, perm=0, shared=Permission.ALL)
        except BaseException:
            self.abandon(node)
            raise

    def detach(self, child: Child) -> None:
        """Undo `attach`; a node without users is flushed and closed."""
        if len(child.node.parents) > 1:
            permissions.detach(child)
        else:
            permissions.forget(child)
            self.close_if_unused(child.node)

    def abandon(self, node: BlockNode) -> None:
        """Close a node after an error, which is what matters: others are not told."""
        try:
            self.close_if_unused(node)
        except BlockError:
            return

    def name_node(self, node: BlockNode, name: str | None) -> None:
        """Give a node its name and make it known.

        Raises:
            BlockError: the name cannot be, or is taken.
        """
        if name is None:
            name = f"#block{self._named}{self._named * 37 % 100:02}"
            self._named += 1
        elif not _is_node_name(name):
            raise BlockError(f"Invalid node-name: '{name}'")
        elif len(name) >= 32:
            raise BlockError("Node name too long")
        if name in self.nodes:
            raise BlockError(f"Duplicate nodes with node-name='{name}'")
        node.node_name = name
        self.nodes[name] = node


def _is_node_name(name: str) -> bool:
    """Whether a user may choose it: a letter first, then letters, digits and ``-._``."""
    return name.isascii() and name[:1].isalpha() and all(c.isalnum() or c in "-._" for c in name)


def _print_warning(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
