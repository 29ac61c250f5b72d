"""A filter that keeps to the rates of a throttle group."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.filter import FilterNode
from thinvirt.image.block.schema import Option, OptionList, OptionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import Buffer
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.throttle_group import ThrottleGroup

RUNTIME_OPTIONS = OptionList(
    "throttle", (Option("throttle-group", OptionType.STRING, "name of the throttle group"),)
)


class ThrottleNode(FilterNode):
    """A member of a group, which ``--object throttle-group,id=…`` made."""

    driver = "throttle"
    strong_options = ("throttle-group",)
    can_compress = True

    _group: ThrottleGroup

    def _open(self, options: Options) -> None:
        self._take_flags(self.graph.open_file_child(self, options))
        name = RUNTIME_OPTIONS.absorb(options).text("throttle-group")
        if name is None:
            raise BlockError("Please specify a throttle group")
        group = self.graph.find_object("throttle-group", name)
        if group is None:
            raise BlockError(f"Throttle group '{name}' does not exist")
        self._group = group

    def _read(self, offset: int, length: int) -> bytes:
        self._group.account(length, is_write=False)
        return super()._read(offset, length)

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        self._group.account(len(data), is_write=True)
        super()._write(offset, data, flags)

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        self._group.account(length, is_write=True)
        super()._write_zeroes(offset, length, flags)

    def _write_compressed(self, offset: int, data: Buffer) -> None:
        self._group.account(len(data), is_write=True)
        super()._write_compressed(offset, data)

    def _discard(self, offset: int, length: int) -> None:
        self._group.account(length, is_write=True)
        super()._discard(offset, length)
