"""An image as a file of Python's: for tarfile, zipfile, shutil and all that reads files."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Protocol

from thinvirt.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Requests(Protocol):
    """What of an `Image` is needed here."""

    @property
    def filename(self) -> str:
        """Its name."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write."""


class ImageFile(io.RawIOBase):
    """A window onto an image, unbuffered; `Image.file` wraps it in a buffer.

    It has a position, so that each thread needs a file of its own; several over one image are fine.

    Args:
        image: stays open when this is closed.
        start: where the window begins, in bytes of the image.
        length: of the window, in bytes.
        writable: writing is allowed.
    """

    def __init__(self, image: Requests, start: int, length: int, *, writable: bool) -> None:
        super().__init__()
        self._image = image
        self._start = start
        self._length = length
        self._writable = writable
        self._at = 0

    @property
    def name(self) -> str:
        """The name of the image: some libraries want to show it."""
        return self._image.filename

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return whether writing is allowed."""
        return self._writable

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position within the window."""
        self._check_open()
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, past the end too, as in any file."""
        self._check_open()
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}
        if whence not in bases:
            raise ValueError(f"whence is {whence}, not SEEK_SET, SEEK_CUR or SEEK_END")
        position = bases[whence] + offset
        if position < 0:
            raise ValueError(f"a position of {position} lies before the beginning")
        self._at = position
        return position

    def readinto(self, buffer: Buffer) -> int:
        """Read up to the end of the window; return how many bytes, 0 at the end."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(self._length - self._at, 0))
        if count:
            self._image.read_into(self._start + self._at, view[:count])
            self._at += count
        return count

    def write(self, data: Buffer) -> int:
        """Write up to the end of the window; return how many bytes.

        Raises:
            UsageError: the position is at the end: an image does not grow.
        """
        self._check_open()
        if not self._writable:
            raise io.UnsupportedOperation("write")
        view = memoryview(data).cast("B")
        count = min(len(view), max(self._length - self._at, 0))
        if count:
            self._image.write(self._start + self._at, view[:count])
            self._at += count
        elif view:
            raise UsageError(
                f"the image ends here, after {self._length} bytes", hint="resize makes it larger"
            )
        return count

    def flush(self) -> None:
        """Do nothing that costs: writes are in the image already. `Image.flush` makes durable."""
        self._check_open()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed file")
