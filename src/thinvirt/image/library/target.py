"""Images about to be made: nothing is replaced unasked, and nothing half made stays."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from thinvirt.errors import Conflict, UsageError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.hostfile import os_errors, sync_directory
from thinvirt.image.library.session import (
    ImageName,
    OptionValues,
    Session,
    file_name,
    host_path,
    located,
    option_text,
)
from thinvirt.image.ops.convert import MINIMUM_HOLE
from thinvirt.image.ops.create import create_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thinvirt.image.block.root import Root


def new_name(name: ImageName, *, overwrite: bool) -> str:
    """Return the name of an image to be made.

    Raises:
        Conflict: there is such a file, and it is not to be overwritten.
        UsageError: not a name.
    """
    text, _ = file_name(name)
    if text is None or text.startswith("json:"):
        raise UsageError("a new image has a plain name", hint="options go into `options`")
    path = host_path(name)
    if path is not None and not overwrite and (path.exists() or path.is_symlink()):
        raise Conflict("there is such a file already", path=path, hint="overwrite=True replaces it")
    return text


@contextmanager
def new_target(name: ImageName, *, overwrite: bool) -> Iterator[None]:
    """Remove a target that was begun if the block fails; make it durable if not."""
    new_name(name, overwrite=overwrite)
    path = host_path(name)
    existed = path is not None and path.exists()
    try:
        yield
        if path is not None:
            with os_errors(path, "make durable"):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
                sync_directory(path.parent)
    except BaseException:
        if path is not None and not existed:
            path.unlink(missing_ok=True)
        raise


def make_target(
    session: Session,
    name: ImageName,
    image_format: str,
    size: int,
    options: OptionValues | None,
    *,
    backing: str | os.PathLike[str] | None = None,
    backing_format: str | None = None,
    minimum_hole: int = MINIMUM_HOLE,
) -> Root:
    """Make the new image and open it for writing."""
    text = file_name(name)[0]
    assert text is not None
    given = options or {}
    with located(name):
        create_image(
            session.graph,
            text,
            image_format,
            size=size,
            options=option_text(options),
            backing=None if backing is None else file_name(backing)[0],
            backing_format=backing_format,
        )
    # A host file alone is made durable once, at the end: its content counts for nothing before.
    alone = host_path(name) is not None and "data_file" not in given
    return session.open(
        name,
        image_format,
        Open.RDWR | (Open.UNMAP if minimum_hole else 0),
        cache="unsafe" if alone else "writeback",
        options={key: value for key, value in given.items() if key.endswith("key-secret")},
    )
