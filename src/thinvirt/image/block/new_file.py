"""The files that a new image of a format is made in."""

from __future__ import annotations

from thinvirt.image.block.abilities import Creatable
from thinvirt.image.block.errors import BlockError, NotSupported
from thinvirt.image.block.flags import Open
from thinvirt.image.block.registry import find_protocol
from thinvirt.image.block.schema import Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.root import Root


def create_file(graph: BlockGraph, filename: str, values: Values) -> Root:
    """Make an empty file and open it for writing.

    Args:
        graph: what it is opened in.
        filename: with protocol prefix, if any.
        values: options of the image; the file gets its size and preallocation from the format.

    Raises:
        BlockError: it cannot be made.
    """
    protocol = find_protocol(filename)
    if not issubclass(protocol, Creatable):
        raise NotSupported(f"Driver '{protocol.driver}' does not support image creation")
    protocol.create_image(graph, filename, _for_protocol(values))
    return graph.open_root(filename, flags=Open.RDWR | Open.RESIZE | Open.PROTOCOL)


def remove_file(root: Root) -> None:
    """Close and remove a file after an error, which is the one to be told."""
    from thinvirt.image.block.file import FileNode, delete_file

    node = root.node
    try:
        root.close()
        if isinstance(node, FileNode):
            delete_file(node)
    except BlockError:
        return


class empty_file_removed:  # noqa: N801 - used as a statement
    """Remove the file that an image was to be made in, if it is empty and what is done here fails.

    QEMU has cut the file by then and removes it whatever was in it. We look first, and keep what
    somebody may still want.
    """

    def __init__(self, graph: BlockGraph, filename: str) -> None:
        self._graph, self._filename = graph, filename

    def __enter__(self) -> None:
        """Nothing to do yet."""

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Remove it after an error."""
        if kind is None:
            return
        try:
            root = self._graph.open_root(self._filename, flags=Open.RDWR | Open.PROTOCOL)
        except BlockError:
            return  # not there, or of somebody who uses it
        if root.size:
            root.close()
        else:
            remove_file(root)


def _for_protocol(values: Values) -> Values:
    copy = Values(values.declared)
    for name, text in values.given().items():
        if name not in ("size", "preallocation"):
            copy.set(name, text)
    copy.set("size", "0")
    return copy
