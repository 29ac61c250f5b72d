"""The snapshot table: read, with what is wrong in it told, and written anew if it may be."""

from __future__ import annotations

from thinvirt.image.block.abilities import CheckResult, Repair
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.qcow2.check.state import Unchecked
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.layout import FIELD_OFFSET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.qcow2.core import Image


class SnapshotCheck:
    """The snapshot table."""

    def __init__(self, image: Image, repair: int, tell: Callable[[str], None]) -> None:
        self.image = image
        self.mends = bool(repair & Repair.ERRORS)
        self.tell = tell
        self.result = CheckResult()

    def read(self) -> None:
        """Read the table, and leave out what cannot stay if errors are to be mended."""
        image, header = self.image, self.image.header
        place = FIELD_OFFSET["snapshot_count"]
        raw = image.file.read(place, 12)
        header.snapshot_count = int.from_bytes(raw[:4], "big")
        header.snapshots_offset = int.from_bytes(raw[4:], "big")
        dropped = 0
        over = header.snapshot_count - limits.MAX_SNAPSHOTS
        if over > 0 and self.mends:
            self.tell(f"Discarding {over} overhanging snapshots")
            dropped = over
            header.snapshot_count = limits.MAX_SNAPSHOTS
        if not header.snapshot_count and not dropped:
            return
        dropped += self._load(over)
        if dropped:
            try:
                count = header.snapshot_count.to_bytes(4, "big")
                image.write_durably(place, count)
            except BlockError as error:
                self.result.check_errors += 1
                self.tell(
                    f"ERROR failed to update the snapshot count in the image header: {error.reason}"
                )
                raise Unchecked(error.errno) from error
            self.result.corruptions_fixed += dropped
        self._look_at_entries()

    def _load(self, over: int) -> int:
        from thinvirt.image.block.qcow2.snapshots import read_table

        image, header = self.image, self.image.header
        try:
            header.check_table(
                "snapshot table",
                header.snapshots_offset,
                header.snapshot_count,
                40,
                40 * limits.MAX_SNAPSHOTS,
            )
        except BlockError as error:
            self.tell(f"error: ERROR {error.message}")
            if over > 0:
                self.tell(
                    f"You can force-remove all {over} overhanging snapshots with qemu-img check "
                    "-r all"
                )
            self._give_up(error)
        try:
            found = read_table(image, mend=self.mends, tell=self.tell)
        except BlockError as error:
            self.tell(f"error: ERROR failed to read the snapshot table: {error.message}")
            if error.qemu_hint:
                self.tell(error.qemu_hint.rstrip("\n"))
            self._give_up(error)
        image.snapshots, image.snapshots_size = found.entries, found.size
        header.snapshot_count = len(found.entries)
        self.result.corruptions += found.shortened
        return found.dropped

    def _give_up(self, error: BlockError) -> None:
        self.result.check_errors += 1
        self.image.header.snapshot_count = self.image.header.snapshots_offset = 0
        raise Unchecked(error.errno) from error

    def _look_at_entries(self) -> None:
        if self.image.header.version < 3:
            return
        for number, entry in enumerate(self.image.snapshots):
            if not entry.is_complete:
                self.result.corruptions += 1
                verb = "Repairing" if self.mends else "ERROR"
                self.tell(f"{verb} snapshot table entry {number} is incomplete")

    def mend(self) -> None:
        """Write the table anew if something in it was wrong."""
        if not self.result.corruptions or not self.mends:
            return
        from thinvirt.image.block.qcow2.snapshots import write_table

        try:
            write_table(self.image, self.image.snapshots)
        except BlockError as error:
            self.result.check_errors += 1
            self.tell(f"ERROR failed to update snapshot table: {error.reason}")
            raise Unchecked(error.errno) from error
        self.result.corruptions_fixed += self.result.corruptions
        self.result.corruptions = 0
