"""``snapshot``: internal snapshots of an image."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.ops import snapshot as ops
from thinvirt.image.qemu_img.commandline import Words
from thinvirt.image.qemu_img.getopt import (
    FORCE_SHARE,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    QUIET,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Images
from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode

COMMAND = Command(
    "snapshot",
    "List, make, apply or delete internal snapshots.",
    "FILE",
    (
        HELP,
        Option("list", "-l", "", "list them"),
        Option("create", "-c", "NAME", "make one of the present content"),
        Option("apply", "-a", "NAME", "go back to one, by ID or name"),
        Option("delete", "-d", "NAME", "delete one"),
        QUIET,
        OBJECT,
        IMAGE_OPTS,
        FORCE_SHARE,
    ),
)
_ACTIONS = ("list", "create", "apply", "delete")


def run(words: list[str]) -> int:
    """Run the command."""
    given: dict[str, str] = {}
    action = name = ""
    scan = Words(COMMAND, words)
    with Images() as images:
        for key, value in scan:
            if key == "object":
                images.add_object(value)
            elif key in _ACTIONS:
                if action:
                    console.usage("Cannot mix '-l', '-a', '-c', '-d'")
                action, name = key, value
            given[key] = value
        image = images.open(
            scan.one_operand(),
            None,
            0 if action == "list" else Open.RDWR,
            image_opts="image-opts" in given,
            force_share="force-share" in given,
        )
        return _act(image.node, action, name)


def _act(node: BlockNode, action: str, name: str) -> int:
    prefix = {
        "list": "",
        "apply": f"Could not apply snapshot '{name}': ",
        "delete": f"Could not delete snapshot '{name}': ",
    }
    try:
        if action == "list":
            _list(node)
        elif action == "create":
            return _create(node, name)
        elif action == "apply":
            ops.apply_snapshot(node, name)
        elif action == "delete" and not ops.delete_snapshot(node, name):
            console.error(f"Could not delete snapshot '{name}': snapshot not found")
            return 1
    except BlockError as error:
        console.block_error(error, prefix[action])
        return 1
    return 0


def _list(node: BlockNode) -> None:
    snapshots = ops.list_snapshots(node)
    if snapshots:
        from thinvirt.image.qemu_img.output import snapshot_table

        console.write(snapshot_table(snapshots))


def _create(node: BlockNode, name: str) -> int:
    import time

    try:
        ops.create_snapshot(node, name, date_ns=time.time_ns() // 1000 * 1000)
    except BlockError as error:
        number, reason = -error.errno, error.reason
        console.error(f"Could not create snapshot '{name}': {number} ({reason})")
        return 1
    return 0
