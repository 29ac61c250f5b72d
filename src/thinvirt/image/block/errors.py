"""Errors of the block graph: QEMU's text layer by layer, and what QEMU does not say.

A node raises where the cause is known; each layer above puts its own words in front, as QEMU does
(``Could not open 'a': Could not open backing file: …``). The drop-in prints `message` and then
`qemu_hint`, which is qemu-img's output to the byte; everybody else prints the error and its `hint`.
"""

from __future__ import annotations

import errno
import os

from thinvirt.errors import Busy, ImageError, NoSpace, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import ClassVar

    from thinvirt.image.block.lock_holders import LockHolder


class BlockError(ImageError):
    """Something failed in a block graph.

    Args:
        message: QEMU's text, without the program's name in front.
        number: the errno it stands for; callers tell kinds of failure apart by it.
        hint: what to do next, in our words.
        qemu_hint: what QEMU prints on the lines below, newlines included.
        path: the file concerned, where the message does not name it.
        offset: where in the node, in bytes.
    """

    kind: ClassVar[str] = "image-io"

    def __init__(
        self,
        message: str,
        *,
        number: int = errno.EINVAL,
        hint: str = "",
        qemu_hint: str = "",
        path: Path | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message, path=path, offset=offset, hint=hint or qemu_hint.strip())
        self.errno = number
        self.qemu_hint = qemu_hint

    def prepend(self, prefix: str) -> None:
        """Put a layer's words in front of the message."""
        self.message = prefix + self.message
        self.args = (self.message,)

    @property
    def reason(self) -> str:
        """What the errno means: all that QEMU keeps of a failed request."""
        return os.strerror(self.errno)


class RequestFailed(BlockError):
    """A read, write or other request failed; only the errno counts, as in QEMU."""


class NotSupported(BlockError):
    """The node cannot do this, or not quickly; callers fall back."""

    def __init__(
        self,
        message: str = os.strerror(errno.ENOTSUP),
        *,
        hint: str = "",
        qemu_hint: str = "",
    ) -> None:
        super().__init__(message, number=errno.ENOTSUP, hint=hint, qemu_hint=qemu_hint)


class DiskFull(RequestFailed, NoSpace):
    """The host's file system is full."""

    kind = NoSpace.kind
    exit_status = NoSpace.exit_status
    meaning = NoSpace.meaning


class ImageMissing(BlockError, NotFound):
    """A file of the graph is not there."""

    kind = NotFound.kind
    exit_status = NotFound.exit_status
    meaning = NotFound.meaning


class ImageLocked(BlockError, Busy):
    """Another process holds a lock that excludes us; `holders` are those found."""

    kind = Busy.kind
    exit_status = Busy.exit_status
    meaning = Busy.meaning

    def __init__(
        self,
        message: str,
        *,
        number: int = errno.EAGAIN,
        qemu_hint: str = "",
        holders: Sequence[LockHolder] = (),
    ) -> None:
        names = ", ".join(str(holder) for holder in holders)
        hint = f"it is in use by {names}" if names else ""
        super().__init__(message, number=number, hint=hint, qemu_hint=qemu_hint)
        self.holders = tuple(holders)


class VerifyFailed(ImageError):
    """Two children that must be alike are not: no `BlockError`, since nobody may go on."""

    kind = "image-verify"


class ForeignDriver(BlockError):
    """QEMU has a driver for this and we have not; an installed qemu-img can do it."""

    kind = "image-foreign"

    def __init__(self, driver: str) -> None:
        super().__init__(
            f"'{driver}' images are not handled here",
            number=errno.ENOTSUP,
            hint="install qemu-utils: qemu-img does it",
        )
        self.driver = driver


def failed(number: int, *, offset: int | None = None) -> BlockError:
    """Return the error of a request that ended with the errno `number`."""
    kind = DiskFull if number in (errno.ENOSPC, errno.EDQUOT) else RequestFailed
    return kind(os.strerror(number), number=number, offset=offset)


def with_reason(message: str, number: int) -> BlockError:
    """Return an error whose message ends in the reason, as in ``Could not open 'a': Is a …``."""
    kind: type[BlockError] = BlockError
    if number == errno.ENOENT:
        kind = ImageMissing
    elif number in (errno.ENOSPC, errno.EDQUOT):
        kind = DiskFull
    return kind(f"{message}: {os.strerror(number)}", number=number)


class _Statement:
    """What is said of a `BlockError` that leaves the block; contextlib takes too long to import."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __enter__(self) -> None:
        """Nothing is set up."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Say it."""
        if isinstance(error, BlockError):
            self.say(error)

    def say(self, error: BlockError) -> None:
        """Change the error, or raise another."""
        raise NotImplementedError


class prefixed(_Statement):  # noqa: N801 - used as a statement
    """Put a layer's words in front of the message of any `BlockError` from the block."""

    __slots__ = ()

    def say(self, error: BlockError) -> None:
        """Put them there."""
        error.prepend(self.text)


class failing_as(_Statement):  # noqa: N801 - used as a statement
    """Say which step failed; of a `BlockError` from the block QEMU keeps only the errno."""

    __slots__ = ()

    def say(self, error: BlockError) -> None:
        """Raise the error with the step's name and the reason."""
        raise with_reason(self.text, error.errno) from error
