"""What an image keeps beside its content: internal snapshots and persistent bitmaps.

Arguments are those of `whole`.
"""

from __future__ import annotations

import time

from thinvirt.image.block.errors import ImageMissing, prefixed
from thinvirt.image.block.flags import Open
from thinvirt.image.library.session import ImageName, Secrets, Session, located
from thinvirt.image.ops import bitmap as ops_bitmap
from thinvirt.image.ops import snapshot as ops_snapshot


def create_snapshot(
    name: ImageName,
    snapshot: str,
    *,
    format: str | None = None,  # noqa: A002
    secrets: Secrets | None = None,
) -> None:
    """Record the present content of an image under a name, within the image.

    Raises:
        ImageError: not possible.
    """
    with Session(secrets) as session:
        node = session.open(name, format, Open.RDWR).node
        with located(name), prefixed(f"Could not create snapshot '{snapshot}': "):
            ops_snapshot.create_snapshot(node, snapshot, date_ns=time.time_ns())


def apply_snapshot(
    name: ImageName,
    snapshot: str,
    *,
    format: str | None = None,  # noqa: A002
    secrets: Secrets | None = None,
) -> None:
    """Go back to an internal snapshot, by ID or name; the present content is lost.

    Raises:
        NotFound: there is none.
        ImageError: not possible.
    """
    with Session(secrets) as session:
        node = session.open(name, format, Open.RDWR).node
        with located(name), prefixed(f"Could not apply snapshot '{snapshot}': "):
            ops_snapshot.apply_snapshot(node, snapshot)


def delete_snapshot(
    name: ImageName,
    snapshot: str,
    *,
    format: str | None = None,  # noqa: A002
    secrets: Secrets | None = None,
) -> None:
    """Remove the first internal snapshot of that name.

    Raises:
        NotFound: there is none.
        ImageError: not possible.
    """
    with Session(secrets) as session:
        node = session.open(name, format, Open.RDWR).node
        with located(name), prefixed(f"Could not delete snapshot '{snapshot}': "):
            if not ops_snapshot.delete_snapshot(node, snapshot):
                raise ImageMissing("snapshot not found")


# ---------------------------------------------------------------- bitmaps


def add_bitmap(
    name: ImageName,
    bitmap: str,
    *,
    granularity: int | None = None,
    format: str | None = None,  # noqa: A002
    secrets: Secrets | None = None,
) -> None:
    """Add an empty persistent bitmap; `granularity` is the bytes that a bit stands for.

    Raises:
        ImageError: not possible.
    """
    with Session(secrets) as session:
        node = session.open(name, format, Open.RDWR | Open.NO_BACKING).node
        with located(name), _bitmap("add", bitmap):
            ops_bitmap.add_bitmap(node, bitmap, granularity)


def remove_bitmap(
    name: ImageName,
    bitmap: str,
    *,
    format: str | None = None,  # noqa: A002
    secrets: Secrets | None = None,
) -> None:
    """Remove a bitmap, in whatever state it is.

    Raises:
        ImageError: there is none of that name.
    """
    with Session(secrets) as session:
        node = session.open(name, format, Open.RDWR | Open.NO_BACKING).node
        with located(name), _bitmap("remove", bitmap):
            ops_bitmap.holder_of(node, bitmap).remove_bitmap(bitmap)


def clear_bitmap(
    name: ImageName,
    bitmap: str,
    *,
    format: str | None = None,  # noqa: A002
    secrets: Secrets | None = None,
) -> None:
    """Set all bits of a bitmap to zero.

    Raises:
        ImageError: there is none of that name, or it is inconsistent.
    """
    with Session(secrets) as session:
        node = session.open(name, format, Open.RDWR | Open.NO_BACKING).node
        with located(name), _bitmap("clear", bitmap):
            ops_bitmap.holder_of(node, bitmap).clear_bitmap(bitmap)


def enable_bitmap(
    name: ImageName,
    bitmap: str,
    enabled: bool = True,
    *,
    format: str | None = None,  # noqa: A002
    secrets: Secrets | None = None,
) -> None:
    """Say whether guests' writes set the bits of a bitmap.

    Raises:
        ImageError: there is none of that name, or it is inconsistent.
    """
    with Session(secrets) as session:
        node = session.open(name, format, Open.RDWR | Open.NO_BACKING).node
        with located(name), _bitmap("enable" if enabled else "disable", bitmap):
            ops_bitmap.holder_of(node, bitmap).set_bitmap_enabled(bitmap, enabled)


def merge_bitmap(
    name: ImageName,
    bitmap: str,
    other: str,
    *,
    source: ImageName | None = None,
    format: str | None = None,  # noqa: A002
    source_format: str | None = None,
    secrets: Secrets | None = None,
) -> None:
    """Add the bits of the bitmap `other`, of this image or of `source`, to `bitmap`.

    Raises:
        ImageError: either is not there or inconsistent, or the sizes differ.
    """
    with Session(secrets) as session:
        node = session.open(name, format, Open.RDWR | Open.NO_BACKING).node
        from_node = node
        if source is not None:
            from_node = session.open(source, source_format, Open.NO_BACKING).node
        with located(name), _bitmap("merge", bitmap):
            holder = ops_bitmap.holder_of(node, bitmap)
            holder.merge_bitmap(bitmap, ops_bitmap.holder_of(from_node, other), other)


def _bitmap(action: str, bitmap: str) -> prefixed:
    return prefixed(f"Operation {action} on bitmap {bitmap} failed: ")
