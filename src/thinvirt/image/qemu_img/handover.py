"""Formats and protocols that only QEMU has are done by an installed qemu-img, if there is one."""

from __future__ import annotations

import os

from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.errors import ForeignDriver

_PROGRAM = "qemu-img"
_GUARD = "THIN_IMG_HANDED_OVER"  # set for the program started, in case that is this one again


def hand_over(arguments: list[str], error: ForeignDriver) -> int:
    """Become qemu-img with the same command line; return a status only where there is none.

    Nothing has been changed yet: drivers are looked up before anything is written.
    """
    path = None if _GUARD in os.environ else _find()
    if path is not None:
        os.environ[_GUARD] = "1"
        os.execv(path, [console.program, *arguments])  # noqa: S606 - no shell is wanted
    console.error(f"'{error.driver}' is not handled here, and there is no qemu-img to hand it to")
    console.message("Install QEMU's own program: apt install qemu-utils\n")
    return 1


def _find() -> str | None:
    """Return the path of a qemu-img on the search path that is not this program."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder or ".", _PROGRAM)  # noqa: PTH118
        if os.access(path, os.X_OK) and os.path.isfile(path) and _is_foreign(path):  # noqa: PTH113
            return path
    return None


def _is_foreign(path: str) -> bool:
    """Whether a program is QEMU's: a compiled one."""
    try:
        with open(path, "rb") as stream:
            return stream.read(4) == b"\x7fELF"
    except OSError:
        return False
