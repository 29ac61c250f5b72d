"""Whole-image operations: each is in a module of its own, loaded when it is asked for."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import (
    Amendable,
    BackingChangeable,
    BitmapHolder,
    Checkable,
    ClusterPacker,
    Creatable,
    Measurable,
    Snapshotable,
)
from thinvirt.image.block.errors import BlockError, failed
from thinvirt.image.block.qcow2.metadata import Metadata

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thinvirt.image.block.abilities import Bitmap, CheckResult, Measure, Snapshot, Watcher
    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.qcow2.bitmaps import BitmapSet
    from thinvirt.image.block.schema import Values


class Operations(
    Metadata,
    Creatable,
    Measurable,
    Checkable,
    Amendable,
    BackingChangeable,
    Snapshotable,
    BitmapHolder,
    ClusterPacker,
):
    """An image that can do what `abilities` describes."""

    bitmaps: BitmapSet | None

    def _alive(self) -> None:
        if self.is_dead:
            raise failed(errno.ENOMEDIUM)

    @classmethod
    def create_image(cls, graph: BlockGraph, filename: str, values: Values) -> None:
        """Make a new image; see `create.create`."""
        from thinvirt.image.block.qcow2.create import create

        create(graph, filename, values)

    @classmethod
    def measure_image(cls, values: Values, source: BlockNode | None) -> Measure:
        """Return what a new image would need."""
        from thinvirt.image.block.qcow2.measure import measure

        return measure(values, source)

    def check_image(self, repair: int, tell: Callable[[str], None]) -> CheckResult:
        """Check, and perhaps repair; see `check`."""
        from thinvirt.image.block.qcow2.check import check

        self._alive()
        return check(self, repair, tell)

    def amend_image(self, values: Values, *, force: bool, watch: Watcher) -> None:
        """Change creation options; see `amend`."""
        from thinvirt.image.block.qcow2.amend import amend

        self._alive()
        amend(self, values, watch, force=force)

    def change_backing(self, name: str | None, image_format: str | None) -> None:
        """Name another backing file in the header, once all that hides it from sight is durable."""
        self.flush()
        header = self.header
        raw = None if name is None else name.encode("utf-8", "surrogateescape")
        if raw is not None and (header.data_file_is_raw or len(raw) > 1023):
            raise failed(errno.EINVAL)
        before = header.backing_name, header.backing_format
        header.backing_name = raw
        header.backing_format = None if image_format is None else image_format.encode()
        try:
            self.update_header()
        except BlockError:
            header.backing_name, header.backing_format = before
            raise
        self.backing_file = self.auto_backing_file = name or ""
        self.backing_format = image_format or ""

    def make_empty(self) -> None:
        """Give up all data of this layer; see `resize.make_empty`."""
        from thinvirt.image.block.qcow2.resize import make_empty

        self._alive()
        make_empty(self)

    @property
    def keeps_snapshots(self) -> bool:
        """Whether the content is in the image: that of a data file changes behind its back."""
        return not self.header.has_data_file

    def list_snapshots(self) -> Sequence[Snapshot]:
        """Return the snapshots."""
        if not self.snapshots:
            return ()
        from thinvirt.image.block.qcow2.snapshots import list_snapshots

        return list_snapshots(self)

    def create_snapshot(self, name: str, *, date_ns: int) -> None:
        """Record the present content."""
        from thinvirt.image.block.qcow2.snapshots import create_snapshot

        self._alive()
        create_snapshot(self, name, date_ns)

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot."""
        from thinvirt.image.block.qcow2.snapshots import apply_snapshot

        self._alive()
        apply_snapshot(self, snapshot)

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        """Forget a snapshot."""
        from thinvirt.image.block.qcow2.snapshots import delete_snapshot

        self._alive()
        delete_snapshot(self, snapshot)

    def load_snapshot(self, snapshot: Snapshot) -> None:
        """Show a snapshot instead of the present content."""
        from thinvirt.image.block.qcow2.snapshots import load_snapshot

        self._alive()
        load_snapshot(self, snapshot)

    @property
    def supports_bitmaps(self) -> bool:
        """Whether there can be bitmaps."""
        return self.header.version >= 3

    @property
    def loaded_bitmaps(self) -> BitmapSet:
        """The persistent bitmaps."""
        if self.bitmaps is None:
            from thinvirt.image.block.qcow2.bitmaps import BitmapSet

            self.bitmaps = BitmapSet(self)
        return self.bitmaps

    def list_bitmaps(self) -> Sequence[Bitmap]:
        """Return the bitmaps."""
        return self.loaded_bitmaps.facts()

    def add_bitmap(self, name: str, granularity: int | None, *, enabled: bool = True) -> None:
        """Add an empty bitmap."""
        self.loaded_bitmaps.add(name, granularity, enabled=enabled)

    def remove_bitmap(self, name: str) -> None:
        """Remove a bitmap."""
        self.loaded_bitmaps.remove(name)

    def clear_bitmap(self, name: str) -> None:
        """Set all bits to zero."""
        self.loaded_bitmaps.clear(name)

    def set_bitmap_enabled(self, name: str, enabled: bool) -> None:
        """Say whether writes are recorded."""
        self.loaded_bitmaps.enable(name, enabled=enabled)

    def merge_bitmap(self, name: str, source: BitmapHolder, source_name: str) -> None:
        """Add the bits of another bitmap."""
        if not isinstance(source, Operations):
            raise BlockError(f"Dirty bitmap '{source_name}' not found")
        self.loaded_bitmaps.merge(name, source.loaded_bitmaps, source_name)
