"""Copies of what images show: into a new image, over one that is there, or of a part.

Arguments that occur everywhere are those of `copying`. A copy may be made by several threads, as
many as there are processors; `progress` is called by the thread that called the function.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from thinvirt.errors import UsageError
from thinvirt.image.block.abilities import Effort
from thinvirt.image.block.errors import BlockError, prefixed
from thinvirt.image.block.flags import SECTOR, Open
from thinvirt.image.library.session import (
    ImageName,
    OptionValues,
    Progress,
    Secrets,
    Session,
    host_path,
    located,
    request_failed,
    shown,
    top_node,
)
from thinvirt.image.library.target import make_target, new_target
from thinvirt.image.ops.bitmap import bitmap_holder, check_copyable, copy_bitmaps
from thinvirt.image.ops.convert import MAX_BUFFER, MINIMUM_HOLE, Conversion, ConvertFailed
from thinvirt.image.ops.dd import copy_blocks
from thinvirt.image.ops.pace import pacer
from thinvirt.image.ops.snapshot import show_snapshot_called

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thinvirt.image.block.root import Root

_BLOCK = 64 << 10  # bytes


class _How(NamedTuple):
    """How is copied: arguments that `convert` and `copy_into` share."""

    compress: bool
    effort: str
    minimum_hole: int
    share_blocks: bool
    salvage: bool
    bitmaps: bool
    skip_broken_bitmaps: bool
    rate: int

    def check(self) -> None:
        """Refuse what does not fit together, before anything is opened or made."""
        if self.minimum_hole % SECTOR or not 0 <= self.minimum_hole <= MAX_BUFFER:
            raise UsageError(f"minimum_hole is a multiple of {SECTOR} from 0 to {MAX_BUFFER}")
        if self.effort not in Effort.ALL:
            raise UsageError(f"no effort '{self.effort}': there are {', '.join(Effort.ALL)}")
        if self.share_blocks and (self.compress or self.salvage):
            raise UsageError("share_blocks does not go with compress and salvage")
        if self.rate < 0:
            raise UsageError("a rate is a number of bytes a second, 0 for no limit")


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
    effort: str = Effort.FAST,
    minimum_hole: int = MINIMUM_HOLE,
    share_blocks: bool = False,
    salvage: bool = False,
    bitmaps: bool = False,
    skip_broken_bitmaps: bool = False,
    rate: int = 0,
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
        effort: how hard to try to make it small: "fast", "small" or "qemu" (at QEMU's level).
        minimum_hole: zeroes in a row that are left out, in bytes; 0 writes everything.
        share_blocks: let the host's file system copy, sharing blocks where it can.
        salvage: read around errors: what cannot be read becomes zeroes, with an `ImageWarning`.
        bitmaps: copy persistent bitmaps too; inconsistent ones are refused.
        skip_broken_bitmaps: leave those out instead, with an `ImageWarning`.
        rate: bytes a second to write at most, 0 for no limit.
        overwrite: replace a file that is there.
        force_share: read `source` even while others write to it.
        progress: told bytes copied and bytes to copy.
        secrets: see `open_image`.

    Raises:
        Conflict: there is such a file already.
        UsageError: arguments that do not fit together.
        ImageError: an image cannot be read, made or written; `path` is which, `offset` where.
    """
    how = _How(
        compress, effort, minimum_hole, share_blocks, salvage, bitmaps, skip_broken_bitmaps, rate
    )
    how.check()
    names = _names(source, wants_one=backing is not None or snapshot is not None or bitmaps)
    with new_target(target, overwrite=overwrite), Session(secrets) as session:
        sources = _open_sources(
            session, names, source_format, snapshot, how, force_share=force_share
        )
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
        _check_target(new, target, how)
        with located(target):
            conversion = _conversion(
                session, sources, new, how, progress, is_new=True, has_backing=backing is not None
            )
        _run(conversion, names, target)
        _copy_bitmaps(session, sources, new, target, how)


def copy_into(
    source: ImageName | Sequence[ImageName],
    target: ImageName,
    *,
    target_format: str | None = None,
    source_format: str | None = None,
    snapshot: str | None = None,
    shares_backing: bool = False,
    target_is_zero: bool = False,
    compress: bool = False,
    effort: str = Effort.FAST,
    minimum_hole: int = MINIMUM_HOLE,
    share_blocks: bool = False,
    salvage: bool = False,
    bitmaps: bool = False,
    skip_broken_bitmaps: bool = False,
    rate: int = 0,
    force_share: bool = False,
    progress: Progress | None = None,
    secrets: Secrets | None = None,
) -> None:
    """Copy what an image shows over one that is there: a device, an NBD export, an empty image.

    What the target showed is lost, at the first byte already; past the end of `source` it is kept.

    Args:
        source: the image, or several that are put one after the other.
        target: the image that is written to, at least as large.
        target_format: of it. Give it: otherwise what was there decides.
        source_format: of all of `source`.
        snapshot: copy this internal snapshot (ID or name) instead of the present content.
        shares_backing: `target` has a backing file that shows what that of `source` does: only what
            `source` itself holds is copied.
        target_is_zero: the target reads as zeroes, so that no zeroes need to be written.
        compress: store compressed.
        effort: how hard to try to make it small: "fast", "small" or "qemu" (at QEMU's level).
        minimum_hole: zeroes in a row that are not stored, in bytes; 0 writes everything.
        share_blocks: let the host's file system copy, sharing blocks where it can.
        salvage: read around errors: what cannot be read becomes zeroes, with an `ImageWarning`.
        bitmaps: copy persistent bitmaps too; inconsistent ones are refused.
        skip_broken_bitmaps: leave those out instead, with an `ImageWarning`.
        rate: bytes a second to write at most, 0 for no limit.
        force_share: read `source` even while others write to it.
        progress: told bytes copied and bytes to copy; one that raises leaves `target` half written.
        secrets: see `open_image`.

    Raises:
        UsageError: arguments that do not fit together, or the target is too small.
        ImageError: an image cannot be read or written; `path` is which, `offset` where.
    """
    if shares_backing and target_is_zero:
        raise UsageError("a target that shows its backing file does not read as zeroes")
    how = _How(
        compress, effort, minimum_hole, share_blocks, salvage, bitmaps, skip_broken_bitmaps, rate
    )
    how.check()
    names = _names(source, wants_one=shares_backing or snapshot is not None or bitmaps)
    with Session(secrets) as session:
        sources = _open_sources(
            session, names, source_format, snapshot, how, force_share=force_share
        )
        flags = Open.RDWR | (Open.UNMAP if minimum_hole else 0)
        root = session.open(target, target_format, flags)
        needed = sum(each.size for each in sources)
        if root.size < needed:
            text = f"the image has {root.size} bytes, and {needed} are to be copied"
            raise UsageError(text, path=host_path(target), hint="resize makes it larger")
        _check_target(root, target, how)
        with located(target):
            conversion = _conversion(
                session,
                sources,
                root,
                how,
                progress,
                reads_zero=target_is_zero,
                has_backing=shares_backing,
            )
        _run(conversion, names, target)
        _copy_bitmaps(session, sources, root, target, how)


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


def _open_sources(
    session: Session,
    names: Sequence[ImageName],
    image_format: str | None,
    snapshot: str | None,
    how: _How,
    *,
    force_share: bool,
) -> list[Root]:
    sources = [
        session.open(name, image_format, Open.NO_SHARE, force_share=force_share) for name in names
    ]
    with located(names[0]):
        if snapshot is not None:
            show_snapshot_called(top_node(sources[0]), snapshot)
        if how.bitmaps:
            check_copyable(sources[0].node, skip_broken=how.skip_broken_bitmaps)
    return sources


def _check_target(target: Root, name: ImageName, how: _How) -> None:
    image_format = top_node(target).driver
    with located(name):
        if how.compress and not target.node.supports_compressed_writes():
            raise BlockError(f"images of format {image_format} cannot be compressed")
        if how.bitmaps and bitmap_holder(target.node) is None:
            raise BlockError(f"this image of format {image_format} cannot hold bitmaps")


def _conversion(
    session: Session,
    sources: Sequence[Root],
    target: Root,
    how: _How,
    progress: Progress | None,
    *,
    is_new: bool = False,
    reads_zero: bool = False,
    has_backing: bool = False,
) -> Conversion:
    return Conversion(
        sources,
        target,
        is_new=is_new,
        reads_zero=reads_zero,
        has_backing=has_backing,
        minimum_hole=how.minimum_hole,
        compressed=how.compress,
        effort=how.effort,
        copy_range=how.share_blocks,
        salvage=how.salvage,
        warn=session.graph.warn,
        watch=progress,
        count_first=progress is not None,
        pace=pacer(how.rate),
    )


def _copy_bitmaps(
    session: Session, sources: Sequence[Root], target: Root, name: ImageName, how: _How
) -> None:
    if how.bitmaps:
        with located(name):
            copy_bitmaps(sources[0].node, target.node, session.graph.warn)


def _run(conversion: Conversion, names: Sequence[ImageName], target: ImageName) -> None:
    try:
        conversion.run()
    except ConvertFailed as failure:
        if failure.action.startswith("writing"):
            raise request_failed(
                "error while writing", failure.cause, target, failure.offset
            ) from failure
        at, name = failure.offset, names[0]
        for candidate, source in zip(names, conversion.sources, strict=True):
            if source.start <= failure.offset:
                at, name = failure.offset - source.start, candidate
        raise request_failed("error while reading", failure.cause, name, at) from failure


def _names(source: ImageName | Sequence[ImageName], *, wants_one: bool) -> list[ImageName]:
    names = [source] if isinstance(source, str | os.PathLike | Mapping) else list(source)
    if not names:
        raise UsageError("there is nothing to copy")
    if len(names) > 1 and wants_one:
        raise UsageError("a backing file, a snapshot and bitmaps go with one source only")
    return names
