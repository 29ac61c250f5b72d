"""The NoCloud seed as a disc: ISO 9660 with Joliet and Rock Ridge, found by its label."""

import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from thinvirt.vm.seed import VOLUME_LABEL


def write_seed_disc(path: Path, files: Mapping[str, str]) -> None:
    """Write the disc that holds `files` (by name, as text) to `path`, readable by its owner only.

    It may hold passwords and keys, which is why the file is private to the store's owner.
    """
    from pycdlib import PyCdlib

    iso = PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=VOLUME_LABEL)
    for number, (name, text) in enumerate(sorted(files.items())):
        content = text.encode()
        # Of the three names, guests read the Rock Ridge or the Joliet one.
        iso.add_fp(
            BytesIO(content),
            len(content),
            f"/FILE{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as disc:
        iso.write_fp(disc)
    iso.close()
