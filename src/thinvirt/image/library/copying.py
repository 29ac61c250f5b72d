"""Operations on the images of a chain, and on pairs: compare, commit, rebase.

Arguments that occur everywhere: names are what `open_image` takes; a format of None is guessed;
`secrets` are passwords by id; `progress` is told how much is done of how much, and cancels by
raising: `Cancelled`, for one. What was begun is then undone as after any other error.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from thinvirt.errors import UsageError
from thinvirt.image.block.errors import prefixed
from thinvirt.image.block.flags import Open
from thinvirt.image.block.names import backing_filename, refresh_filename
from thinvirt.image.block.status import backing_chain_next
from thinvirt.image.library.session import (
    ImageName,
    Progress,
    Secrets,
    Session,
    file_name,
    host_path,
    located,
    request_failed,
    top_node,
)
from thinvirt.image.ops.chain import find_backing
from thinvirt.image.ops.commit import commit_image, empty_image
from thinvirt.image.ops.compare import CompareFailed, Comparison
from thinvirt.image.ops.create import find_format
from thinvirt.image.ops.rebase import change_backing, keep_content

if TYPE_CHECKING:
    from thinvirt.image.block.root import Root
    from thinvirt.image.ops.compare import Difference

_BLOCK = 64 << 10  # bytes


def compare(
    one: ImageName,
    other: ImageName,
    *,
    format: str | None = None,  # noqa: A002
    other_format: str | None = None,
    strict: bool = False,
    force_share: bool = False,
    progress: Progress | None = None,
    secrets: Secrets | None = None,
) -> Difference | None:
    """Return the first difference between what two images show, None if there is none.

    Args:
        one: an image.
        other: another one. One that is longer but ends in zeroes is not different.
        format: of `one`.
        other_format: of `other`.
        strict: sizes and allocation must be alike too.
        force_share: read even while others write.
        progress: told bytes done and bytes in all.
        secrets: see `open_image`.

    Raises:
        ImageError: one of them cannot be read; `path` is which.
    """
    names = one, other
    with Session(secrets) as session:
        roots = (
            session.open(one, format, force_share=force_share),
            session.open(other, other_format, force_share=force_share),
        )
        try:
            return Comparison(roots, strict=strict, watch=progress).run()
        except CompareFailed as failure:
            raise request_failed(
                "error while reading", failure.cause, names[failure.index], failure.offset
            ) from failure


def commit(
    name: ImageName,
    *,
    base: str | None = None,
    empty: bool = True,
    format: str | None = None,  # noqa: A002
    progress: Progress | None = None,
    secrets: Secrets | None = None,
) -> None:
    """Write what an image changed into its backing file.

    Other images on that backing file are worthless afterwards.

    Args:
        name: of the image.
        base: the image of the chain that is written to, as the one above it names it; None is the
            next one.
        empty: give up what is in the image afterwards; only without `base`.
        format: of the image.
        progress: told bytes done and bytes in all.
        secrets: see `open_image`.

    Raises:
        UsageError: there is no such base, or no backing file at all.
        ImageError: not possible; the image still shows what it did.
    """
    with Session(secrets) as session:
        node = session.open(name, format, Open.RDWR | Open.UNMAP).node
        with located(name):
            below = backing_chain_next(node) if base is None else find_backing(node, base)
            if below is None:
                text = f"no '{base}' in its backing chain" if base else "it has no backing file"
                raise UsageError(text, path=host_path(name))
            commit_image(session.graph, node, below, watch=progress)
            if empty and base is None:
                empty_image(node)


def rebase(
    name: ImageName,
    backing: str | os.PathLike[str] | None,
    *,
    backing_format: str | None = None,
    rename_only: bool = False,
    format: str | None = None,  # noqa: A002
    progress: Progress | None = None,
    secrets: Secrets | None = None,
) -> None:
    """Put an image onto another backing file; it goes on showing the same.

    Args:
        name: of the image.
        backing: the new one, as the image shall say it: relative to `name`. None makes the image
            stand alone.
        backing_format: needed with `backing`.
        rename_only: only write the name: the new file shows what the old one did.
        format: of the image.
        progress: told bytes done and bytes in all.
        secrets: see `open_image`.

    Raises:
        UsageError: `backing` and `backing_format` go together.
        ImageError: not possible; the image shows what it did.
    """
    if (backing is None) != (backing_format is None):
        raise UsageError("backing and backing_format go together", path=host_path(name))
    if backing_format is not None:
        with located(name):
            find_format(backing_format)
    new_backing = None if backing is None else file_name(backing)[0]
    with Session(secrets) as session:
        image = session.open(name, format, Open.RDWR | (Open.NO_BACKING if rename_only else 0))
        with located(name):
            if not rename_only:
                _keep_content(session, image, new_backing, backing_format, progress)
            with prefixed(f"Could not change the backing file to '{new_backing}': "):
                change_backing(image.node, new_backing, backing_format)


def _keep_content(
    session: Session,
    image: Root,
    backing: str | None,
    backing_format: str | None,
    progress: Progress | None,
) -> None:
    own = top_node(image)
    new = below = None
    if backing is not None:
        refresh_filename(image.node)
        path = backing_filename(image.node.exact_filename or image.node.filename, backing)
        assert path is not None
        new = below = find_backing(image.node, path)
        if below is None:
            new = session.open(path, backing_format).node
    keep_content(image, own.backing, new, new_is_below=below is not None, watch=progress)
