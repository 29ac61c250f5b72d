"""Internal snapshots of an image: list, make, go back to, remove."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import BitmapHolder, Snapshotable
from thinvirt.image.block.errors import BlockError, NotSupported, with_reason
from thinvirt.image.block.flags import Role

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from thinvirt.image.block.abilities import Snapshot
    from thinvirt.image.block.node import BlockNode

_CARRIES = Role.DATA | Role.METADATA | Role.FILTERED
MAX_NAME = 255  # bytes; longer names are cut, as by QEMU


def snapshot_holder(node: BlockNode) -> Snapshotable:
    """Return the node that keeps the snapshots of an image, which may lie below a filter.

    Raises:
        NotSupported: there is none.
    """
    at: BlockNode = node
    while not isinstance(at, Snapshotable):
        carrying = [c for c in at.children.values() if c.role & _CARRIES]
        if len(carrying) != 1 or not carrying[0].role & Role.PRIMARY:
            raise NotSupported
        at = carrying[0].node
    return at


def list_snapshots(node: BlockNode) -> Sequence[Snapshot]:
    """Return the snapshots of an image; none where its format has no notion of them.

    Raises:
        BlockError: they cannot be read.
    """
    try:
        holder = snapshot_holder(node)
    except NotSupported:
        return ()
    return holder.list_snapshots()


def create_snapshot(node: BlockNode, name: str, *, date_ns: int) -> None:
    """Record the present content of an image.

    Args:
        node: of the image, writable.
        name: need not be unique.
        date_ns: nanoseconds since 1970.

    Raises:
        BlockError: it failed.
    """
    cut = name.encode(errors="surrogateescape")[:MAX_NAME].decode(errors="surrogateescape")
    snapshot_holder(node).create_snapshot(cut, date_ns=date_ns)


def apply_snapshot(node: BlockNode, name: str) -> None:
    """Go back to a snapshot; what was written since is lost.

    Args:
        node: of the image, writable.
        name: ID or, where none has it as ID, name.

    Raises:
        BlockError: there is none, or it failed, or the image has dirty bitmaps, which would no
            longer be true.
    """
    try:
        holder = snapshot_holder(node)
    except NotSupported as error:
        raise NotSupported("Block driver does not support snapshots") from error
    if isinstance(holder, BitmapHolder) and holder.list_bitmaps():
        raise BlockError("Device has active dirty bitmaps", number=errno.EBUSY)
    if not holder.keeps_snapshots:
        raise with_reason("Failed to load snapshot", errno.ENOTSUP)
    snapshots = holder.list_snapshots()
    found = _find(snapshots, id=name) or _find(snapshots, name=name)
    if found is None:
        raise with_reason("Failed to load snapshot", errno.ENOENT)
    try:
        holder.apply_snapshot(found)
    except BlockError as error:
        raise with_reason("Failed to load snapshot", error.errno) from error


def delete_snapshot(node: BlockNode, name: str) -> bool:
    """Remove the first snapshot of that name; return whether there was one.

    Raises:
        BlockError: it failed.
    """
    found = _find(list_snapshots(node), name=name)
    if found is None:
        return False
    snapshot_holder(node).delete_snapshot(found)
    return True


def show_snapshot(
    node: BlockNode,
    *,
    id: str | None = None,  # noqa: A002 - the format's word
    name: str | None = None,
) -> None:
    """Let a read-only node show a snapshot instead of the present content.

    Args:
        node: of the image.
        id: the snapshot's ID, None for any.
        name: the snapshot's name, None for any.

    Raises:
        BlockError: there is no such snapshot, or it cannot be read.
    """
    if id is None and name is None:
        raise BlockError("snapshot_id and name are both NULL")
    if not node.read_only:
        raise BlockError("Device is not readonly")
    if not isinstance(node, Snapshotable):
        raise NotSupported(
            f"Block format '{node.driver}' used by device '' does not support temporarily loading "
            "internal snapshots"
        )
    found = _find(node.list_snapshots(), id=id, name=name)
    if found is None:
        raise BlockError("Can't find snapshot", number=errno.ENOENT)
    node.load_snapshot(found)


def show_snapshot_called(node: BlockNode, text: str) -> None:
    """Let a read-only node show the snapshot with that ID or, where there is none, that name.

    Raises:
        BlockError: see `show_snapshot`.
    """
    try:
        show_snapshot(node, id=text)
    except BlockError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise
        show_snapshot(node, name=text)


def _find(
    snapshots: Sequence[Snapshot],
    *,
    id: str | None = None,  # noqa: A002
    name: str | None = None,
) -> Snapshot | None:
    for snapshot in snapshots:
        if id in (None, snapshot.id) and name in (None, snapshot.name):
            return snapshot
    return None
