"""A filter that stores what was read from the backing file in the image above it."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.filter import FilterNode
from thinvirt.image.block.flags import Permission
from thinvirt.image.block.options import get_str
from thinvirt.image.block.status import backing_chain_next, is_allocated, is_allocated_above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode, Child
    from thinvirt.image.block.options import Options


class CopyOnReadNode(FilterNode):
    """Copies down to the node named by ``bottom``, or from anywhere below."""

    driver = "copy-on-read"
    variable_length = True
    can_compress = True

    _bottom: BlockNode | None = None

    def _open(self, options: Options) -> None:
        bottom = get_str(options, "bottom")
        self._take_flags(self.graph.open_file_child(self, options))
        if bottom is None:
            return
        del options["bottom"]
        self._bottom = self.graph.find_node(bottom)
        if self._bottom is None:
            raise BlockError(f"Bottom node '{bottom}' not found")
        if self._bottom.is_filter:
            raise BlockError(f"Bottom node '{bottom}' is a filter")

    def _child_permissions(self, child: Child, perm: int, shared: int) -> tuple[int, int]:
        # What a reader sees does not change by our writes.
        passed = Permission.CONSISTENT_READ | Permission.WRITE | Permission.RESIZE
        unchanged = Permission.WRITE_UNCHANGED
        return perm & passed | unchanged, shared & passed | unchanged

    def _read(self, offset: int, length: int) -> bytes:
        if self._bottom is None:
            return self.file.read_and_copy(offset, length)
        parts = []
        end = offset + length
        while offset < end:
            copies, run = self._must_copy(offset, end - offset)
            if not run:
                run, copies = end - offset, False
            read = self.file.read_and_copy if copies else self.file.read
            parts.append(read(offset, run))
            offset += run
        return b"".join(parts)

    def _must_copy(self, offset: int, length: int) -> tuple[bool, int]:
        """Return whether the beginning of a range comes from between the image and the bottom."""
        allocated, run = is_allocated(self.file, offset, length)
        below = backing_chain_next(self.file)
        if allocated or below is None:
            return False, run
        return is_allocated_above(below, self._bottom, offset, run, include_base=True)
