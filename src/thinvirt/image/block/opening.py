"""Open a node and all below it: its file first, then itself, then its backing file."""

from __future__ import annotations

import sys

from thinvirt.image.block.errors import BlockError, prefixed, with_reason
from thinvirt.image.block.flags import Open, Role
from thinvirt.image.block.inheritance import (
    COMMON_OPTIONS,
    Heritage,
    apply_flags,
    fill_options,
    is_on,
    parse_json_name,
)
from thinvirt.image.block.names import full_backing_filename, refresh_one
from thinvirt.image.block.node_set import NodeSet
from thinvirt.image.block.options import clone, get_str, join, qemu_order, take_prefixed
from thinvirt.image.block.registry import PROBE_BYTES, find_driver, guess_format

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from thinvirt.image.block.base import BaseNode
    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.options import Options

MAX_DEPTH = 200  # layers of backing files
_MAX_NESTED = 2 * MAX_DEPTH  # nodes below each other
_FRAMES_PER_NODE = 24  # nested calls that one node takes at most, with room to spare


class Opener(NodeSet):
    """What opens nodes; `graph.BlockGraph` says how it is used."""

    def __init__(
        self,
        objects: Mapping[tuple[str, str], Any] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(objects, warn)
        self._nested = 0
        self.layers: list[BlockNode] = []  # images whose backing file is being opened

    def open_child(
        self,
        parent: BlockNode,
        options: Options,
        name: str,
        role: int,
        *,
        filename: str | None = None,
        allow_none: bool = False,
        parse_filename: bool = False,
    ) -> BlockNode | None:
        """Open and attach a child; see `Graph.open_child`."""
        node = self.open_unattached(
            Heritage.of(parent),
            options,
            name,
            role,
            filename,
            allow_none=allow_none,
            parse_filename=parse_filename,
        )
        if node is not None:
            self.attach(parent, node, name, role)
        return node

    def open_file_child(
        self,
        parent: BlockNode,
        options: Options,
        *,
        name: str = "file",
        filename: str | None = None,
    ) -> BlockNode:
        """Open the primary child of a format or filter."""
        role = Role.FILTERED | Role.PRIMARY if parent.is_filter else Role.IMAGE
        node = self.open_child(parent, options, name, role, filename=filename, parse_filename=True)
        assert node is not None
        return node

    def open_unattached(
        self,
        heritage: Heritage,
        options: Options,
        name: str,
        role: int,
        filename: str | None,
        *,
        allow_none: bool = False,
        parse_filename: bool = False,
    ) -> BlockNode | None:
        """Open what will become a child; see `open_child`."""
        own = take_prefixed(options, name + ".")
        reference = get_str(options, name)
        if filename is None and reference is None and not own:
            if not allow_none:
                raise BlockError(f'A block device must be specified for "{name}"')
            return None
        node = self.open_node(
            filename, own, reference=reference, heritage=heritage, role=role, parse=parse_filename
        )
        options.pop(name, None)
        return node

    def open_node(
        self,
        filename: str | None,
        options: Options,
        flags: int = 0,
        *,
        reference: str | None = None,
        heritage: Heritage | None = None,
        role: int = 0,
        parse: bool = True,
    ) -> BlockNode:
        """Open one node with all below it.

        Args:
            filename: where the options do not say it.
            options: its own, flat; used up.
            flags: of `Open`, for a node without parent.
            reference: the name of a node that is open already, instead of all this.
            heritage: what it takes over from its parent.
            role: what it will be to its parent.
            parse: `filename` may have a protocol prefix or be ``json:``.
        """
        if reference is not None:
            return self._referenced(reference, filename, options)
        if parse and filename is not None and filename.startswith("json:"):
            join(options, parse_json_name(filename))
            filename = None
        explicit = clone(options)
        if heritage is not None:
            flags = heritage.hand_down(role, options)
        flags, driver = fill_options(filename, options, flags, parse_filename=parse)
        if is_on(options, "read-only"):
            flags &= ~Open.RDWR
        else:
            flags |= Open.RDWR | Open.ALLOW_RDWR
        self._make_room()
        self._nested += 1
        try:
            return _Opening(self, filename, options, explicit, flags).run(driver)
        finally:
            self._nested -= 1

    def _make_room(self) -> None:
        """Each node is opened, read and closed by calls nested in those of the node above."""
        if self._nested >= _MAX_NESTED:
            raise BlockError(f"more than {_MAX_NESTED} nodes below each other")
        needed = 1000 + self._nested * _FRAMES_PER_NODE
        if sys.getrecursionlimit() < needed:
            sys.setrecursionlimit(needed + 10 * _FRAMES_PER_NODE)

    def one_layer_down(self, node: BlockNode) -> _Layer:
        """Return what guards the opening of the backing file of `node`."""
        return _Layer(self.layers, node)

    def _referenced(self, name: str, filename: str | None, options: Options) -> BlockNode:
        if filename is not None or options:
            raise BlockError(
                "Cannot reference an existing block device with additional options or a new "
                "filename"
            )
        node = self.nodes.get(name)
        if node is None:
            raise BlockError(f"Cannot find device='{name}' nor node-name='{name}'")
        return node


class _Opening:
    """One node on its way to being open."""

    def __init__(
        self,
        graph: Opener,
        filename: str | None,
        options: Options,
        explicit: Options,
        flags: int,
    ) -> None:
        self.graph = graph
        self.filename = filename
        self.all_options = options  # the node keeps these
        self.explicit = explicit
        self.flags = flags
        self.rest = clone(options)  # what nobody has taken yet

    def run(self, driver: type[BaseNode] | None) -> BlockNode:
        self._note_backing()
        file = None if self.flags & Open.PROTOCOL else self._open_file()
        try:
            probed = driver is None
            if driver is None:
                driver = self._probe(file)
            node = driver(self.graph, self.all_options, self.flags)
            node.explicit_options = self.explicit
            node.probed = probed
            self._open_node(node, file)
        finally:
            # Either the node has it now, or nobody wants it.
            if file is not None:
                self.graph.abandon(file)
        try:
            if not self.flags & Open.NO_BACKING:
                self._open_backing(node)
            self._forget_children_options(node)
            self._refuse_unknown(node)
            refresh_one(node)  # whoever opens it needs its name
        except BaseException:
            self.graph.abandon(node)
            raise
        return node

    def _note_backing(self) -> None:
        """An explicit null (or, as once, an empty name) means: no backing file."""
        if "backing" not in self.rest or self.rest["backing"] not in (None, ""):
            return
        if self.rest["backing"] == "":
            self.graph.warn(
                'warning: Use of "backing": "" is deprecated; use "backing": null instead'
            )
        self.flags |= Open.NO_BACKING
        for options in (self.explicit, self.all_options, self.rest):
            options.pop("backing", None)

    def _open_file(self) -> BlockNode | None:
        """Open what the format stands on; its driver will find it by name."""
        heritage = Heritage(self.all_options, self.flags, is_format=True)  # whatever it will be
        node = self.graph.open_unattached(
            heritage,
            self.rest,
            "file",
            Role.IMAGE,
            self.filename,
            allow_none=True,
            parse_filename=True,
        )
        if node is not None:
            self.rest["file"] = node.node_name
        return node

    def _probe(self, file: BlockNode | None) -> type[BaseNode]:
        if file is None:
            raise BlockError("Must specify either driver or file")
        name = "raw"
        if file.size:
            try:
                head = file.read(0, PROBE_BYTES)
            except BlockError as error:
                raise with_reason(
                    "Could not read image for determining its format", error.errno
                ) from error
            name = guess_format(head, self.filename, size=file.size)
        driver = find_driver(name)
        assert driver is not None
        self.all_options["driver"] = self.rest["driver"] = name
        return driver

    def _open_node(self, node: BaseNode, file: BlockNode | None) -> None:
        values = COMMON_OPTIONS.absorb(self.rest)
        apply_flags(node, values)
        node.force_share = values.flag("force-share")
        if node.force_share and not node.read_only:
            raise BlockError("force-share=on can only be used with read-only images")
        if file is not None:
            self._refuse_loop(node, file)
            filename = file.filename
        else:
            filename = get_str(self.rest, "filename") or ""
        if node.needs_filename and not filename:
            raise BlockError(f"The '{node.driver}' block driver requires a file name")
        if node.copy_on_read and node.read_only:
            raise BlockError("Can't use copy-on-read on read-only device")
        discard = values.text("discard")
        if discard is not None:
            if discard not in ("off", "ignore", "on", "unmap"):
                raise BlockError("Invalid discard option")
            node.open_flags &= ~Open.UNMAP
            node.open_flags |= Open.UNMAP if discard in ("on", "unmap") else 0
        node.detect_zeroes = values.choice("detect-zeroes", ("off", "on", "unmap"), "off")
        if node.detect_zeroes == "unmap" and not node.open_flags & Open.UNMAP:
            raise BlockError(
                "setting detect-zeroes to unmap is not allowed without setting discard operation "
                "to unmap"
            )
        node.filename = node.exact_filename = filename
        self.graph.name_node(node, values.text("node-name"))
        try:
            node._open(self.rest)
            self._measure(node)
        except BaseException:
            # It never was open: nothing to flush, and nobody to ask.
            self._drop(node)
            raise

    def _refuse_loop(self, node: BlockNode, file: BlockNode) -> None:
        """An image below itself would be opened for ever."""
        identity = file.identity()
        if identity is None or "offset" in self.rest:
            return
        for above in self.graph.layers:
            if above.driver == node.driver and above.file.identity() == identity:
                raise BlockError(
                    f"Backing file '{file.filename}' creates an infinite loop.",
                    hint="thin-img rebase -u -b '' takes an image out of its chain",
                )

    def _measure(self, node: BaseNode) -> None:
        try:
            node.refresh_size()
        except BlockError as error:
            node._close()
            raise with_reason("Could not refresh total sector count", error.errno) from error
        try:
            node.refresh_limits()
        except BaseException:
            node._close()
            raise

    def _drop(self, node: BlockNode) -> None:
        del self.graph.nodes[node.node_name]
        for child in list(node.children.values()):
            self.graph.detach(child)

    def _open_backing(self, node: BlockNode) -> None:
        options = take_prefixed(self.rest, "backing.")
        reference = get_str(self.rest, "backing")
        if not reference and "file.filename" not in options:
            if not node.backing_file and not options:
                return
            is_implicit = not options and node.auto_backing_file == node.backing_file
            filename = full_backing_filename(node)
        else:
            is_implicit, filename = False, None
        if not node.supports_backing:
            raise BlockError("Driver doesn't support backing files")
        if not reference and node.backing_format and "driver" not in options:
            options["driver"] = node.backing_format
        with self.graph.one_layer_down(node), prefixed("Could not open backing file: "):
            heritage = Heritage.of(node)
            backing = self.graph.open_node(
                filename, options, reference=reference, heritage=heritage, role=Role.COW
            )
        if is_implicit:
            node.auto_backing_file = backing.filename
        self.graph.attach(node, backing, "backing", Role.COW)
        self.rest.pop("backing", None)
        node.refresh_limits()

    def _forget_children_options(self, node: BlockNode) -> None:
        """They are in the children now, and names are made from there."""
        for name in node.children:
            for options in (node.explicit_options, node.options):
                take_prefixed(options, name + ".")
                options.pop(name, None)

    def _refuse_unknown(self, node: BlockNode) -> None:
        for key, _ in qemu_order(self.rest):
            if node.is_protocol:
                raise BlockError(
                    f"Block protocol '{node.driver}' doesn't support the option '{key}'"
                )
            raise BlockError(f"Block format '{node.driver}' does not support the option '{key}'")


class _Layer:
    """Guards against backing chains without end."""

    def __init__(self, layers: list[BlockNode], node: BlockNode) -> None:
        self.layers = layers
        self.node = node

    def __enter__(self) -> None:
        if len(self.layers) + 1 >= MAX_DEPTH:
            raise BlockError(
                f"more than {MAX_DEPTH} layers of backing files",
                hint="flatten the chain: thin-img convert, commit or rebase",
            )
        self.layers.append(self.node)

    def __exit__(self, *_: object) -> None:
        self.layers.pop()
