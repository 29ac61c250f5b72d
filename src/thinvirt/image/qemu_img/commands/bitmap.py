"""``bitmap``: persistent dirty bitmaps of an image."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.ops.bitmap import add_bitmap, holder_of
from thinvirt.image.qemu_img.commandline import Words, number_of
from thinvirt.image.qemu_img.getopt import FORMAT, HELP, IMAGE_OPTS, OBJECT, Command, Option
from thinvirt.image.qemu_img.opening import Images
from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode

COMMAND = Command(
    "bitmap",
    "Work on a persistent dirty bitmap; the actions are done in the order given.",
    "FILE BITMAP",
    (
        HELP,
        Option("add", "--add", "", "make it"),
        Option("remove", "--remove", "", "remove it"),
        Option("clear", "--clear", "", "set all its bits to zero"),
        Option("enable", "--enable", "", "let guests' writes set its bits"),
        Option("disable", "--disable", "", "do not"),
        Option("merge", "--merge", "BITMAP", "add the bits of another one"),
        Option("granularity", "-g --granularity", "SIZE", "what a bit of the new one stands for"),
        Option("source", "-b --source-file", "FILE", "the image that has the other one"),
        Option("source-format", "-F --source-format", "FORMAT", "its format"),
        FORMAT,
        OBJECT,
        IMAGE_OPTS,
    ),
)
_ACTIONS = frozenset({"add", "remove", "clear", "enable", "disable", "merge"})
_MAX_GRANULARITY = (1 << 32) - 1


def run(words: list[str]) -> int:
    """Run the command."""
    given: dict[str, str] = {}
    actions: list[tuple[str, str]] = []
    granularity = 0
    scan = Words(COMMAND, words)
    with Images() as images:
        for key, value in scan:
            if key == "object":
                images.add_object(value)
            elif key == "granularity":
                granularity = number_of("granularity", value)
            elif key in _ACTIONS:
                actions.append((key, value))
            given[key] = value
        _check(given, granularity, scan.operands)
        filename, bitmap = scan.operands
        node = images.open(
            filename,
            given.get("format"),
            Open.RDWR | Open.NO_BACKING,
            image_opts="image-opts" in given,
        ).node
        source = node
        if "source" in given:
            source = images.open(given["source"], given.get("source-format"), Open.NO_BACKING).node
        for action, other in actions:
            try:
                _act(action, node, bitmap, other=(source, other), granularity=granularity)
            except BlockError as error:
                console.block_error(error, f"Operation {action} on bitmap {bitmap} failed: ")
                return 1
    return 0


def _check(given: dict[str, str], granularity: int, operands: list[str]) -> None:
    """Refuse what does not fit together."""
    if not _ACTIONS & set(given):
        console.fail(
            "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"
        )
    if granularity and "add" not in given:
        console.fail("granularity only supported with --add")
    if "source-format" in given and "source" not in given:
        console.fail("-F only supported with -b")
    if "source" in given and "merge" not in given:
        console.fail("Merge bitmap source file only supported with --merge")
    if len(operands) != 2:
        console.fail("Expecting filename and bitmap name")


def _act(
    action: str, node: BlockNode, bitmap: str, *, other: tuple[BlockNode, str], granularity: int
) -> None:
    if action == "add":
        add_bitmap(node, bitmap, granularity & _MAX_GRANULARITY if granularity else None)
        return
    holder = holder_of(node, bitmap)
    if action == "remove":
        holder.remove_bitmap(bitmap)
    elif action == "clear":
        holder.clear_bitmap(bitmap)
    elif action == "merge":
        holder.merge_bitmap(bitmap, holder_of(*other), other[1])
    else:
        holder.set_bitmap_enabled(bitmap, action == "enable")
