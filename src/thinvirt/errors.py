"""The root of the error tree, and the exit status of every kind of error.

Each error raised on purpose derives from `ThinvirtError`; the interfaces catch only that. A class
stands here when more than one package raises it or an interface needs to tell it apart; a package
may derive its own from these. `docs/reference/exit-status.md` is made from this module.
"""

from __future__ import annotations

TYPE_CHECKING = False  # mypy takes it for true; pathlib and typing cost half of `thin-img info`
if TYPE_CHECKING:
    from pathlib import Path
    from typing import ClassVar


class ThinvirtError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: what went wrong, and with what; one line, no full stop needed.
        path: the file concerned, where the message does not already name it.
        offset: where in that file, in bytes.
        hint: what to do next, ideally a command that can be typed.
    """

    kind: ClassVar[str] = "internal"  # stable: JSON output and API bodies carry it
    exit_status: ClassVar[int] = 1
    meaning: ClassVar[str] = "something failed that has no status of its own"

    def __init__(
        self,
        message: str,
        *,
        path: Path | None = None,
        offset: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.offset = offset
        self.hint = hint

    def __str__(self) -> str:
        """Return the message with the place it speaks of."""
        text = self.message
        if self.path is not None and str(self.path) not in text:
            text = f"{self.path}: {text}"
        if self.offset is not None:
            text += f" (at byte {self.offset})"
        return text

    def as_facts(self) -> dict[str, str | int]:
        """Return the error as JSON-ready facts: kind, message and, where known, hint and place."""
        facts: dict[str, str | int] = {"kind": self.kind, "message": self.message}
        if self.hint:
            facts["hint"] = self.hint
        if self.path is not None:
            facts["path"] = str(self.path)
        if self.offset is not None:
            facts["offset"] = self.offset
        return facts


class UsageError(ThinvirtError):
    """The request itself is wrong: an option, a name, a size."""

    kind = "usage"
    exit_status = 2
    meaning = "the command line or a value in it is wrong; nothing was changed"


class NotFound(ThinvirtError):
    """A template, VM or file that is not there; the hint suggests the near ones."""

    kind = "not-found"
    exit_status = 3
    meaning = "no such template, VM or file"


class Conflict(ThinvirtError):
    """The present state forbids it: a name taken, a template with clones, a VM that runs."""

    kind = "conflict"
    exit_status = 4
    meaning = "the present state forbids it: name taken, clones exist, VM running or not running"


class Busy(ThinvirtError):
    """Another process is at it; the message names that process."""

    kind = "busy"
    exit_status = 5
    meaning = "another process is at work on the same thing; the message names it"


class ImageError(ThinvirtError):
    """Something about a disk image."""

    kind = "image"
    exit_status = 6
    meaning = "a disk image is damaged, hostile, changed behind our back or of an unknown kind"


class CorruptImage(ImageError):
    """Structures of an image contradict each other, the format, or the file's size."""

    kind = "image-corrupt"


class UnsupportedFeature(ImageError):
    """The image needs a feature that is not known here; the message names the feature."""

    kind = "image-feature"


class HostileImage(ImageError):
    """Opening the image would make QEMU read other files or allocate without bound."""

    kind = "image-hostile"


class BaseChanged(ImageError):
    """A template's file is no longer what the catalogue recorded."""

    kind = "base-changed"


class Timeout(ThinvirtError):
    """What was waited for did not come in time."""

    kind = "timeout"
    exit_status = 7
    meaning = "what was waited for did not come in time"


class VerificationFailed(ThinvirtError):
    """A checksum, a signature or a fetched size is not the one promised."""

    kind = "verification"
    exit_status = 8
    meaning = "a checksum is not the one promised; what was fetched has been set aside or removed"


class ProgramMissing(ThinvirtError):
    """A program is not installed; the hint names its Debian package."""

    kind = "program-missing"
    exit_status = 69
    meaning = "a program that is needed is not installed; the message names its package"


class QemuFailed(ThinvirtError):
    """QEMU did not start, refused a command, or died; the message quotes it."""

    kind = "qemu"
    exit_status = 1


class TemporaryFailure(ThinvirtError):
    """This host cannot do it now; another host, or a later try, may."""

    kind = "temporary"
    exit_status = 75
    meaning = "not here, not now: no acceleration, no space, template not to be had; try elsewhere"


class NoSpace(TemporaryFailure):
    """The file system is full; nothing half made was left behind."""

    kind = "no-space"


class StoreUnusable(ThinvirtError):
    """The store's directory cannot be used: read-only, foreign file system, newer version."""

    kind = "store"
    exit_status = 74
    meaning = "the store cannot be used as it is: read-only, unsuitable file system, newer format"


class RequestWrong(ThinvirtError):
    """`thinvirt run` under a supervisor: the request itself is wrong, do not try it elsewhere."""

    kind = "request"
    exit_status = 78
    meaning = "(thinvirt run) the request itself is wrong; no other host will do better"


INTERRUPTED_STATUS = 130  # Ctrl-C: 128 + SIGINT, as shells report it
