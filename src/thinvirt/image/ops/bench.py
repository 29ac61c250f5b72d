"""Send a number of equal requests to an image."""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.root import Root


def send_requests(
    image: Root,
    count: int,
    *,
    length: int,
    step: int,
    offset: int = 0,
    pattern: int | None = None,
    flush_interval: int = 0,
) -> None:
    """Read or write the same number of bytes again and again, from one end to the other.

    Args:
        image: writable if it is to be written.
        count: requests.
        length: bytes of each.
        step: bytes from one to the next; the image's end is followed by its beginning.
        offset: where the first one is.
        pattern: the byte to write; None reads.
        flush_interval: requests between flushes, 0 for none.

    Raises:
        BlockError: a request failed.
    """
    size = image.size
    if not size and count:
        raise failed(errno.EIO, offset=offset)
    data = None if pattern is None else bytes([pattern]) * length
    for number in range(1, count + 1):
        if data is None:
            image.read(offset, length)
        else:
            image.write(offset, data)
        offset = (offset + step) % size
        if flush_interval and number % flush_interval == 0:
            image.flush()
