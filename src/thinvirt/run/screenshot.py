"""What a VM's screen shows, as PNG."""

import os
from pathlib import Path

from thinvirt.errors import UnsupportedFeature
from thinvirt.run.folder import VmFolder
from thinvirt.run.qemu import connected
from thinvirt.run.qmp import QmpError


def screenshot(folder: VmFolder) -> bytes:
    """Return the screen of a running VM as a PNG file's content.

    Raises:
        QemuFailed: the VM does not run, or has no screen.
        UnsupportedFeature: this QEMU cannot write PNG.
    """
    with connected(folder) as qmp:
        shot = folder.run / f"screen-{os.getpid()}.png"
        try:
            qmp.execute("screendump", {"filename": str(shot), "format": "png"})
            return shot.read_bytes()
        except QmpError as error:
            if "'format'" in error.description or "png" in error.description.lower():
                raise UnsupportedFeature(
                    f"QEMU {qmp.version} cannot write PNG", hint="7.1 or later can"
                ) from error
            raise
        finally:
            shot.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole, in place of an earlier one: a reader finds the old or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
