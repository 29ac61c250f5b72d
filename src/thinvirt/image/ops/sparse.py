"""Find the zeroes in data that is about to be written, the way qemu-img does.

Where exactly data ends and a hole begins decides what is allocated in the target: to the byte it
must be as qemu-img has it, or images differ in size and layout. Everything is counted in sectors
but searched with the fast primitives of `bytes`
(two memoryviews are compared byte by byte, `startswith` a hundred times faster).
"""

from __future__ import annotations

from itertools import repeat

from thinvirt.image.block.flags import SECTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ZERO_SECTOR = bytes(SECTOR)
_STEP = 64 << 10
_ZEROES = bytes(_STEP)


def pieces(
    data: bytes | bytearray,
    length: int,
    offset: int,
    *,
    minimum: int,
    alignment: int,
    start: int = 0,
) -> Iterator[tuple[bool, int, int]]:
    """Yield (is data, start, end) over the beginning of `data`, in bytes, in order.

    Args:
        data: what is to be written.
        length: how much of it counts, from its beginning; whole sectors.
        offset: where its beginning is going to, in bytes.
        minimum: bytes of zeroes in a row that are worth leaving out between data.
        alignment: bytes; a power of two that the ends of data are rounded to, so that no write
            makes the target read what surrounds it.
        start: where in `data` to begin, in bytes; whole sectors.
    """
    if not (offset + start | length - start) & alignment - 1 and alignment <= _STEP:
        # Zeroes that are left out cover an aligned unit: most data has none, quickly seen.
        unit = _ZEROES[:alignment]
        if True not in map(data.startswith, repeat(unit), range(start, length, alignment)):
            if start < length:
                yield True, start, length
            return
    scan = _Scan(data, length // SECTOR, offset // SECTOR, alignment // SECTOR)
    at = start // SECTOR
    while at < scan.end:
        is_data, end = scan.with_minimum(at, minimum // SECTOR)
        yield is_data, at * SECTOR, end * SECTOR
        at = end


class _Scan:
    """One buffer; positions and lengths in sectors."""

    def __init__(self, data: bytes | bytearray, end: int, target: int, alignment: int) -> None:
        self.data = data
        self.view = memoryview(data)
        self.end = end
        self.target = target
        self.alignment = alignment

    def with_minimum(self, start: int, minimum: int) -> tuple[bool, int]:
        """Return what begins at `start` and where it ends; short holes within data are data."""
        minimum = min(minimum, self.end - start)
        is_data, end = self.aligned_run(start)
        if not is_data:
            return False, end
        at = end
        while at < self.end:
            is_data, stop = self.aligned_run(at)
            if is_data:
                end = stop
            elif stop - at >= minimum:
                break
            at = stop
        return True, end

    def aligned_run(self, start: int) -> tuple[bool, int]:
        """Return what begins at `start`, and its end moved so that data covers aligned units."""
        is_zero = self.is_zero(start)
        end = self.data_start(start) if is_zero else self.zero_start(start)
        if end == self.end:
            return not is_zero, end
        past = (self.target + end) & (self.alignment - 1)
        if past:
            if is_zero and end - start <= past:
                is_zero = False  # the unit is written because of what follows: write all of it
            if is_zero:
                end -= past
            else:
                end = min(end + self.alignment - past, self.end)
        return not is_zero, end

    def is_zero(self, sector: int) -> bool:
        return self.data.startswith(_ZERO_SECTOR, sector * SECTOR)

    def zero_start(self, start: int) -> int:
        """Return the first sector after `start` that is zero."""
        at = (start + 1) * SECTOR
        limit = self.end * SECTOR
        while True:
            at = self.data.find(_ZERO_SECTOR, at, limit)
            if at < 0:
                return self.end
            at = -(-at // SECTOR) * SECTOR
            if at >= limit:
                return self.end
            if self.data.startswith(_ZERO_SECTOR, at):
                return at // SECTOR

    def data_start(self, start: int) -> int:
        """Return the first sector after `start` that is not zero."""
        at = (start + 1) * SECTOR
        limit = self.end * SECTOR
        while at < limit:
            stop = min(at + _STEP, limit)
            if not _ZEROES.startswith(self.view[at:stop]):
                break
            at = stop
        else:
            return self.end
        low, high = at // SECTOR, stop // SECTOR  # zero before `low`, not all zero before `high`
        while high - low > 1:
            middle = (low + high) // 2
            if _ZEROES.startswith(self.view[low * SECTOR : middle * SECTOR]):
                low = middle
            else:
                high = middle
        return low
