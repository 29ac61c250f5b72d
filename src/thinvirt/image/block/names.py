"""File names and what they mean: protocol prefixes, relative backing names, names printed back.

A node has a plain name only if opening that name gives the same node again; otherwise its name is
``json:`` and the options that do.
"""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.options import qemu_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.options import Options

# What has no folder, though it has a name or a file, and how QEMU calls it.
_PLACELESS = {"nbd": "NBD", "blkverify": "blkverify"}
MAX_NAME = 4095  # longer names are cut where they are printed, as by QEMU

# ---------------------------------------------------------------- texts


def has_protocol(name: str) -> bool:
    """Return whether a colon stands before the first slash: ``nbd:…``, ``json:…``."""
    colon = name.find(":")
    return colon >= 0 and "/" not in name[:colon]


def is_absolute(name: str) -> bool:
    """Return whether a host path begins at the root."""
    return name.startswith("/")


def combine(base: str, name: str) -> str:
    """Return `name` as it is meant beside `base`: both may be URLs."""
    if is_absolute(name):
        return name
    keep = base.find(":") + 1 if has_protocol(base) else 0
    return base[: max(keep, base.rfind("/") + 1)] + name


def strip_protocol(name: str, prefix: str, options: Options) -> None:
    """Put a file name without its protocol prefix into ``options["filename"]``.

    A rest that would itself be taken for a protocol gets a ``./`` in front.
    """
    if name.startswith(prefix):
        rest = name[len(prefix) :]
        options["filename"] = f"./{rest}" if has_protocol(rest) else rest


def backing_filename(backed: str, backing: str) -> str | None:
    """Return the full name of a backing file, or None if there is none.

    Args:
        backed: the name of the image that has it.
        backing: as that image says.

    Raises:
        BlockError: a relative name, and `backed` has no folder.
    """
    if not backing:
        return None
    if has_protocol(backing) or is_absolute(backing):
        return backing
    if not backed or backed.startswith("json:"):
        raise BlockError(f"Cannot use relative backing file names for '{backed}'")
    return combine(backed, backing)


# ---------------------------------------------------------------- nodes


def folder(node: BlockNode) -> str:
    """Return what relative names within `node` are relative to, with its slash.

    Raises:
        BlockError: the node has no such place.
    """
    if node.driver in _PLACELESS:
        raise BlockError(f"Cannot generate a base directory for {_PLACELESS[node.driver]} nodes")
    if node.has_file:
        return folder(node.file)
    refresh_filename(node)
    if node.exact_filename:
        return combine(node.exact_filename, "")
    raise BlockError(f"Cannot generate a base directory for {node.driver} nodes")


def beside(node: BlockNode, name: str) -> str | None:
    """Return the full name of a file that `node` names, or None if it names none.

    Raises:
        BlockError: a relative name, and the node has no folder.
    """
    if not name:
        return None
    if has_protocol(name) or is_absolute(name):
        return name
    return folder(node) + name


def full_backing_filename(node: BlockNode) -> str | None:
    """Return the full name of the backing file that the image names, or None."""
    return beside(node, node.backing_file)


def backing_overridden(node: BlockNode) -> bool:
    """Return whether the backing file is another than the image itself names."""
    if node.backing is not None:
        return node.auto_backing_file != node.backing.filename
    return bool(node.auto_backing_file)


def refresh_filename(node: BlockNode) -> None:
    """Compute the names of a node and of all below: `filename`, `exact_filename`, options."""
    for child in node.children.values():
        refresh_filename(child.node)
    refresh_one(node)


def refresh_one(node: BlockNode) -> None:
    """Compute the names of a node, those of its children being up to date."""
    # Who reads nothing does not care for the backing file.
    overridden = not node.open_flags & Open.NO_IO and backing_overridden(node)
    options: Options = {}
    is_changed = _copy_strong_options(options, node) or overridden
    if not node._gather_child_options(options, backing_overridden=overridden):
        for child in node.children.values():
            if child.node is not node.backing or overridden:
                options[child.name] = child.node.full_open_options
        if overridden and node.backing is None:
            options["backing"] = None
    node.full_open_options = options

    if node.makes_filename:
        node.exact_filename = ""
        node._refresh_filename()
    elif node.has_file:
        node.exact_filename = ""
        below = node.file
        if below.is_protocol and not node.is_filter and not is_changed:
            node.exact_filename = below.exact_filename
    node.filename = node.exact_filename or _json_name(options)


def _json_name(options: Options) -> str:
    from thinvirt.image.block.qemu_json import dumps

    name = "json:" + dumps(options)
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "..."


def _copy_strong_options(target: Options, node: BlockNode) -> bool:
    """Copy what changes the content; return whether that is more than driver and file name."""
    found = False
    for name in ("driver", "filename", *node.strong_options):
        if name.endswith("."):
            given = {k: v for k, v in qemu_order(node.options) if k.startswith(name)}
        else:
            given = {name: node.options[name]} if name in node.options else {}
        target.update(given)
        found = found or bool(given and name not in ("driver", "filename"))
    target.setdefault("driver", node.driver)
    return found
