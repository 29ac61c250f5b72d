"""What a node is opened with: its own options, those of its parent, and its file name."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, prefixed
from thinvirt.image.block.flags import Open, Role
from thinvirt.image.block.options import flatten, get_str
from thinvirt.image.block.registry import find_driver, find_protocol
from thinvirt.image.block.schema import Option, OptionList, OptionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.base import BaseNode
    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.schema import Values

COMMON_OPTIONS = OptionList(
    "bdrv_common",
    (
        Option("node-name", OptionType.STRING, "name of the node, to refer to it"),
        Option("driver", OptionType.STRING, "name of the driver"),
        Option("cache.direct", OptionType.BOOL, "go around the host's page cache"),
        Option("cache.no-flush", OptionType.BOOL, "ignore flushes"),
        Option("read-only", OptionType.BOOL, "open for reading only"),
        Option("auto-read-only", OptionType.BOOL, "open for reading if writing is not possible"),
        Option("detect-zeroes", OptionType.STRING, "make written zeroes cheap (off, on, unmap)"),
        Option("discard", OptionType.STRING, "what discards do (ignore/off, unmap/on)"),
        Option("force-share", OptionType.BOOL, "accept any other user (read-only nodes)"),
    ),
)

# Options that say the same as flags: (option, flag, meaning of the flag's absence).
_AS_OPTIONS = (
    ("cache.direct", Open.NOCACHE),
    ("cache.no-flush", Open.NO_FLUSH),
    ("auto-read-only", Open.AUTO_RDONLY),
)


class Heritage:
    """What a child takes over from its parent."""

    __slots__ = ("flags", "is_format", "options")

    def __init__(self, options: Options, flags: int, *, is_format: bool) -> None:
        self.options = options
        self.flags = flags
        self.is_format = is_format

    @classmethod
    def of(cls, parent: BlockNode) -> Heritage:
        """Return what the children of `parent` take over."""
        return cls(parent.options, parent.open_flags, is_format=parent.is_format)

    def hand_down(self, role: int, options: Options) -> int:
        """Complete a child's options; return its flags."""
        flags = self.flags
        pure_data = not role & (Role.METADATA | Role.FILTERED) and role & Role.DATA
        if not self.is_format and pure_data:
            flags &= ~Open.PROTOCOL  # whatever it is, find out
        if (self.is_format and not role & Role.COW) or role & Role.METADATA:
            flags |= Open.PROTOCOL
        self._copy(options, "cache.direct", "cache.no-flush", "force-share")
        if role & Role.COW:
            options.setdefault("read-only", "on")
            options.setdefault("auto-read-only", "off")
        else:
            self._copy(options, "read-only", "auto-read-only")
        # The parent decides which discards to pass on.
        options.setdefault("discard", "unmap")
        flags &= ~(Open.NO_BACKING | Open.COPY_ON_READ)
        if role & Role.METADATA:
            flags &= ~Open.NO_IO
        return flags

    def _copy(self, options: Options, *names: str) -> None:
        for name in names:
            if name in self.options:
                options.setdefault(name, self.options[name])


def fill_options(
    filename: str | None, options: Options, flags: int, *, parse_filename: bool
) -> tuple[int, type[BaseNode] | None]:
    """Bring file name, flags and options together.

    Args:
        filename: as given, "json:" names resolved; None if there is none.
        options: completed in place.
        flags: of `Open`.
        parse_filename: a protocol prefix in `filename` means something.

    Returns:
        The flags, and the driver if it is known already; None means to look into the file.

    Raises:
        BlockError: unknown driver or protocol, or two names.
    """
    driver = None
    is_protocol = bool(flags & Open.PROTOCOL)
    name = get_str(options, "driver")
    if name is not None:
        driver = find_driver(name)
        if driver is None:
            raise BlockError(f"Unknown driver '{name}'")
        is_protocol = driver.is_protocol
    flags = flags | Open.PROTOCOL if is_protocol else flags & ~Open.PROTOCOL
    for key, flag in _AS_OPTIONS:
        options.setdefault(key, bool(flags & flag))
    options.setdefault("read-only", not flags & Open.RDWR)
    parse = False
    if is_protocol and filename is not None:
        if "filename" in options:
            raise BlockError("Can't specify 'file' and 'filename' options at the same time")
        options["filename"] = filename
        parse = parse_filename
    filename = get_str(options, "filename")
    if driver is None and is_protocol:
        if filename is None:
            raise BlockError("Must specify either driver or file")
        driver = find_protocol(filename, allow_prefix=parse)
        options["driver"] = driver.driver
    if driver is not None and parse and filename is not None and driver.parses_filename:
        driver.parse_filename(filename, options)
        if not driver.needs_filename:
            options.pop("filename", None)
    return flags, driver


def apply_flags(node: BlockNode, values: Values) -> None:
    """Set the flags that `COMMON_OPTIONS` speak of."""
    flags = node.open_flags & ~(Open.CACHE | Open.RDWR | Open.AUTO_RDONLY)
    for name, flag in _AS_OPTIONS:
        if values.flag(name):
            flags |= flag
    if not values.flag("read-only"):
        flags |= Open.RDWR
    node.open_flags = flags


def parse_json_name(filename: str) -> Options:
    """Return the flat options of a ``json:`` name.

    Raises:
        BlockError: no JSON, or no object.
    """
    with prefixed("Could not parse the JSON options: "):
        from thinvirt.image.block.qemu_json import loads

        value = loads(filename.removeprefix("json:"))
    if not isinstance(value, dict):
        raise BlockError("Invalid JSON object given")
    return flatten(value)


def is_on(options: Options, name: str) -> bool:
    """Return whether an option is set, be it given as text or as JSON has it."""
    return options.get(name) is True or options.get(name) == "on"
