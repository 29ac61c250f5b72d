"""Operations on two images or more: convert, copy a part, compare, commit, rebase.

Arguments that occur everywhere: names are what `open_image` takes; a format of None is guessed;
`secrets` are passwords by id; `progress` is told how much is done of how much, and cancels by
raising: `Cancelled`, for one. What was begun is then undone as after any other error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from thinvirt.errors import UsageError
from thinvirt.image.block.errors import BlockError, prefixed, with_reason
from thinvirt.image.block.flags import SECTOR, Open
from thinvirt.image.block.names import backing_filename, refresh_filename
from thinvirt.image.block.status import backing_chain_next, skip_filters
from thinvirt.image.library.session import (
    ImageName,
    OptionValues,
    Progress,
    Secrets,
    Session,
    file_name,
    host_path,
    located,
    shown,
)
from thinvirt.image.library.target import make_target, new_target
from thinvirt.image.ops.bitmap import bitmap_holder, check_copyable, copy_bitmaps
from thinvirt.image.ops.chain import find_backing
from thinvirt.image.ops.commit import commit_image, empty_image
from thinvirt.image.ops.compare import CompareFailed, Comparison
from thinvirt.image.ops.convert import MAX_BUFFER, MINIMUM_HOLE, Conversion, ConvertFailed
from thinvirt.image.ops.create import find_format
from thinvirt.image.ops.dd import copy_blocks
from thinvirt.image.ops.rebase import change_backing, keep_content
from thinvirt.image.ops.snapshot import show_snapshot_called

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.root import Root
    from thinvirt.image.ops.compare import Difference

_BLOCK = 64 << 10  # bytes


def convert(
    source: ImageName | Sequence[ImageName],
    target: str | os.PathLike[str],
    *,
    format: str = "qcow2",  # noqa: A002
    source_format: str | None = None,
    options: OptionValues | None = None,
    backing: str | os.PathLike[str] | None = None,
    backing_format: str | None = None,
    snapshot: str | None = None,
    compress: bool = False,
    minimum_hole: int = MINIMUM_HOLE,
    share_blocks: bool = False,
    salvage: bool = False,
    bitmaps: bool = False,
    overwrite: bool = False,
    force_share: bool = False,
    progress: Progress | None = None,
    secrets: Secrets | None = None,
) -> None:
    """Copy what an image shows, chain and all, into a new image that is durable at the return.

    Args:
        source: the image, or several that are put one after the other.
        target: the new image. If this fails it is removed again; one that was overwritten is left,
            worthless.
        format: of the new image.
        source_format: of all of `source`.
        options: of the new image.
        backing: its backing file, which must show what that of `source` shows: not copied.
        backing_format: needed with `backing`.
        snapshot: copy this internal snapshot (ID or name) instead of the present content.
        compress: store compressed.
        minimum_hole: zeroes in a row that are left out, in bytes; 0 writes everything.
        share_blocks: let the host's file system copy, sharing blocks where it can.
        salvage: read around errors: what cannot be read becomes zeroes, with an `ImageWarning`.
        bitmaps: copy persistent bitmaps too; inconsistent ones are refused.
        overwrite: replace a file that is there.
        force_share: read `source` even while others write to it.
        progress: told bytes copied and bytes to copy.
        secrets: see `open_image`.

    Raises:
        Conflict: there is such a file already.
        UsageError: arguments that do not fit together.
        ImageError: an image cannot be read, made or written; `path` is which, `offset` where.
    """
    names = _names(source)
    _check_arguments(
        names,
        wants_one=backing is not None or snapshot is not None or bitmaps,
        minimum_hole=minimum_hole,
        moves_bytes=compress or salvage,
        share_blocks=share_blocks,
    )
    with new_target(target, overwrite=overwrite), Session(secrets) as session:
        sources = [
            session.open(name, source_format, Open.NO_SHARE, force_share=force_share)
            for name in names
        ]
        with located(names[0]):
            if snapshot is not None:
                show_snapshot_called(_top(sources[0]), snapshot)
            if bitmaps:
                check_copyable(sources[0].node, skip_broken=False)
        new = make_target(
            session,
            target,
            format,
            sum(each.size for each in sources),
            options,
            backing=backing,
            backing_format=backing_format,
            minimum_hole=minimum_hole,
        )
        with located(target):
            if compress and not new.node.supports_compressed_writes():
                raise BlockError(f"images of format {format} cannot be compressed")
            if bitmaps and bitmap_holder(new.node) is None:
                raise BlockError(f"this image of format {format} cannot hold bitmaps")
            conversion = Conversion(
                sources,
                new,
                is_new=True,
                has_backing=backing is not None,
                minimum_hole=minimum_hole,
                compressed=compress,
                copy_range=share_blocks,
                salvage=salvage,
                warn=session.graph.warn,
                watch=progress,
                count_first=progress is not None,
            )
        _run(conversion, names, target)
        if bitmaps:
            with located(target):
                copy_bitmaps(sources[0].node, new.node, session.graph.warn)


def copy_part(
    source: ImageName,
    target: str | os.PathLike[str],
    *,
    start: int = 0,
    length: int | None = None,
    format: str = "raw",  # noqa: A002
    source_format: str | None = None,
    options: OptionValues | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    secrets: Secrets | None = None,
) -> None:
    """Copy a part of what an image shows, such as a partition, into a new image.

    Args:
        source: the image.
        target: the new one; it is removed again if this fails.
        start: first byte.
        length: bytes; None goes to the end.
        format: of the new image.
        source_format: of `source`.
        options: of the new image.
        overwrite: replace a file that is there.
        progress: told bytes done and bytes in all.
        secrets: see `open_image`.

    Raises:
        Conflict: there is such a file already.
        UsageError: the part does not lie within the image.
        ImageError: see `convert`.
    """
    with new_target(target, overwrite=overwrite), Session(secrets) as session:
        image = session.open(source, source_format)
        count = image.size - start if length is None else length
        if start < 0 or count < 0 or start + count > image.size:
            text = f"{count} bytes at {start} do not lie within the image of {image.size} bytes"
            raise UsageError(text, path=host_path(source))
        new = make_target(session, target, format, count, options)
        with prefixed(f"Could not copy '{shown(source)}' to '{shown(target)}': "):
            copy_blocks(image, new, block=_BLOCK, start=start, end=start + count, watch=progress)


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
            raise _failure(
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
    own = _top(image)
    new = below = None
    if backing is not None:
        refresh_filename(image.node)
        path = backing_filename(image.node.exact_filename or image.node.filename, backing)
        assert path is not None
        new = below = find_backing(image.node, path)
        if below is None:
            new = session.open(path, backing_format).node
    keep_content(image, own.backing, new, new_is_below=below is not None, watch=progress)


def _run(conversion: Conversion, names: Sequence[ImageName], target: ImageName) -> None:
    try:
        conversion.run()
    except ConvertFailed as failure:
        if failure.action.startswith("writing"):
            raise _failure(
                "error while writing", failure.cause, target, failure.offset
            ) from failure
        at, name = failure.offset, names[0]
        for candidate, source in zip(names, conversion.sources, strict=True):
            if source.start <= failure.offset:
                at, name = failure.offset - source.start, candidate
        raise _failure("error while reading", failure.cause, name, at) from failure


def _failure(text: str, cause: BlockError, name: ImageName, offset: int | None) -> BlockError:
    """Return the error of a request, with the image and the place."""
    error = with_reason(f"{text} '{shown(name)}'", cause.errno)
    error.path = host_path(name)
    error.offset = offset // SECTOR * SECTOR if offset is not None else None
    return error


def _check_arguments(
    names: Sequence[ImageName],
    *,
    wants_one: bool,
    minimum_hole: int,
    moves_bytes: bool,
    share_blocks: bool,
) -> None:
    """Refuse what does not fit together, before anything is opened or made."""
    if not names:
        raise UsageError("there is nothing to convert")
    if len(names) > 1 and wants_one:
        raise UsageError("backing, snapshot and bitmaps go with one source only")
    if minimum_hole % SECTOR or not 0 <= minimum_hole <= MAX_BUFFER:
        raise UsageError(f"minimum_hole is a multiple of {SECTOR} from 0 to {MAX_BUFFER}")
    if share_blocks and moves_bytes:
        raise UsageError("share_blocks does not go with compress and salvage")


def _names(source: ImageName | Sequence[ImageName]) -> list[ImageName]:
    if isinstance(source, str | os.PathLike | Mapping):
        return [source]
    return list(source)


def _top(root: Root) -> BlockNode:
    top = skip_filters(root.node)
    assert top is not None
    return top
