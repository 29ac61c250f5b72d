"""Nothing: writes are forgotten, reads give zeroes; for measuring and for tests."""

from __future__ import annotations

from thinvirt.image.block.base import BaseNode
from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Status, WriteFlags
from thinvirt.image.block.names import MAX_NAME
from thinvirt.image.block.node import Extent
from thinvirt.image.block.schema import Option, OptionList, OptionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import Buffer
    from thinvirt.image.block.options import Options

RUNTIME_OPTIONS = OptionList(
    "null",
    (
        Option("size", OptionType.SIZE, "size of the null block"),
        Option("latency-ns", OptionType.NUMBER, "nanoseconds to wait before completing a request"),
        Option("read-zeroes", OptionType.BOOL, "return zeroes when read"),
    ),
)
_DEFAULT_SIZE = 1 << 30


class NullNode(BaseNode):
    """Base of both: they differ in name only."""

    is_protocol = True
    strong_options = ("size", "read-zeroes")
    can_report_status = True
    parses_filename = True
    makes_filename = True

    latency_ns = 0
    reads_zeroes = False
    _given_size = _DEFAULT_SIZE

    @classmethod
    def parse_filename(cls, filename: str, options: Options) -> None:
        """Accept the one name there is."""
        if filename != f"{cls.driver}://":
            raise BlockError(f"The only allowed filename for this driver is '{cls.driver}://'")

    def _open(self, options: Options) -> None:
        values = RUNTIME_OPTIONS.absorb(options)
        self._given_size = values.size("size", _DEFAULT_SIZE)
        self.latency_ns = values.size("latency-ns")
        if self.latency_ns >= 1 << 63:
            raise BlockError("latency-ns is invalid")
        self.reads_zeroes = values.flag("read-zeroes")
        self.write_flags = WriteFlags.FUA

    def _length(self) -> int:
        return self._given_size

    def _wait(self) -> None:
        if self.latency_ns:
            from time import sleep

            sleep(self.latency_ns / 1e9)

    def _read(self, offset: int, length: int) -> bytes:
        self._wait()
        return bytes(length)  # with read-zeroes off anything may be read, also this

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        self._wait()

    def _flush_to_disk(self) -> None:
        self._wait()

    def _status(self, offset: int, length: int, *, want_zero: bool) -> Extent:
        flags = Status.OFFSET_VALID | (Status.ZERO if self.reads_zeroes else 0)
        return Extent(length, flags, offset, self)

    def allocated_size(self) -> int:
        """Nothing takes no space."""
        return 0

    def _refresh_filename(self) -> None:
        if self.full_open_options.keys() <= {"filename", "driver", "latency-ns"}:
            self.exact_filename = f"{self.driver}://"[:MAX_NAME]


class NullCoNode(NullNode):
    """``null-co``."""

    driver = "null-co"


class NullAioNode(NullNode):
    """``null-aio``."""

    driver = "null-aio"
