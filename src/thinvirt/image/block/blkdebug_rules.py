"""The rules of blkdebug: what they say, and where they are read from."""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import BlockError, with_reason
from thinvirt.image.block.options import qemu_order, take_prefixed
from thinvirt.image.block.schema import Option, OptionList, OptionType, parse_choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from thinvirt.image.block.options import Options
    from thinvirt.image.block.schema import Values

EVENTS = frozenset(
    [
        "l1_update",
        "l1_grow_alloc_table",
        "l1_grow_write_table",
        "l1_grow_activate_table",
        "l2_load",
        "l2_update",
        "l2_update_compressed",
        "l2_alloc_cow_read",
        "l2_alloc_write",
        "read_aio",
        "read_backing_aio",
        "read_compressed",
        "write_aio",
        "write_compressed",
        "vmstate_load",
        "vmstate_save",
        "cow_read",
        "cow_write",
        "reftable_load",
        "reftable_grow",
        "reftable_update",
        "refblock_load",
        "refblock_update",
        "refblock_update_part",
        "refblock_alloc",
        "refblock_alloc_hookup",
        "refblock_alloc_write",
        "refblock_alloc_write_blocks",
        "refblock_alloc_write_table",
        "refblock_alloc_switch_table",
        "cluster_alloc",
        "cluster_alloc_bytes",
        "cluster_free",
        "flush_to_os",
        "flush_to_disk",
        "pwritev_rmw_head",
        "pwritev_rmw_after_head",
        "pwritev_rmw_tail",
        "pwritev_rmw_after_tail",
        "pwritev",
        "pwritev_zero",
        "pwritev_done",
        "empty_image_prepare",
        "l1_shrink_write_table",
        "l1_shrink_free_l2_clusters",
        "cor_write",
        "cluster_alloc_space",
        "none",
    ]
)
KINDS = ("read", "write", "write-zeroes", "discard", "flush", "block-status")

INJECT_ERROR = OptionList(
    "inject-error",
    (
        Option("event", OptionType.STRING, "when it begins to apply"),
        Option("state", OptionType.NUMBER, "only in this state, 0 for any"),
        Option("iotype", OptionType.STRING, "only requests of this kind"),
        Option("errno", OptionType.NUMBER, "how they fail"),
        Option("sector", OptionType.NUMBER, "only requests that touch this sector"),
        Option("once", OptionType.BOOL, "only the first one"),
        Option("immediately", OptionType.BOOL, "accepted: requests here always fail at once"),
    ),
)
SET_STATE = OptionList(
    "set-state",
    (
        Option("event", OptionType.STRING, "when"),
        Option("state", OptionType.NUMBER, "only in this state, 0 for any"),
        Option("new_state", OptionType.NUMBER, "the state from then on"),
    ),
)
_GROUPS = {group.name: group for group in (INJECT_ERROR, SET_STATE)}


class Rule:
    """What happens at an event: an error from then on, or (`new_state`) another state."""

    __slots__ = ("error", "event", "kinds", "new_state", "offset", "once", "state")

    def __init__(self, group: OptionList, values: Values) -> None:
        event = values.text("event")
        if event is None:
            raise BlockError("Missing event name for rule")
        self.event = parse_choice(event, EVENTS)
        self.state = values.size("state")
        self.new_state = values.size("new_state") if group is SET_STATE else None
        self.error = values.size("errno", errno.EIO)
        self.once = values.flag("once")
        sector = values.size("sector", -1)
        self.offset = -1 if sector in (-1, (1 << 64) - 1) else sector * 512
        kind = values.text("iotype")
        # The status of blocks fails only if that is said.
        self.kinds = KINDS[:-1] if kind is None else (parse_choice(kind, KINDS),)

    def applies(self, kind: str, offset: int, length: int) -> bool:
        """Return whether it concerns a request."""
        if kind not in self.kinds:
            return False
        return self.offset == -1 or offset <= self.offset < offset + length


def read_rules(config: str, options: Options) -> dict[str, list[Rule]]:
    """Return the rules by event, those given last first.

    Args:
        config: path of a configuration file, or nothing.
        options: flat; ``inject-error.…`` and ``set-state.…`` are taken out.

    Raises:
        BlockError: the file cannot be read, or a rule makes no sense.
    """
    given: dict[str, list[Values]] = {name: [] for name in _GROUPS}
    if config:
        for name, section in _read_file(config):
            group = _GROUPS[name]
            values = group.absorb(section)
            for key, _ in qemu_order(section):
                if key != "id":
                    raise BlockError(f"Invalid parameter '{key}'")
            given[name].append(values)
    for name, group in _GROUPS.items():
        given[name] += _from_options(group, options)
    rules: dict[str, list[Rule]] = {}
    for name, group in _GROUPS.items():
        for values in given[name]:
            rule = Rule(group, values)
            rules.setdefault(rule.event, []).insert(0, rule)
    return rules


def _from_options(group: OptionList, options: Options) -> list[Values]:
    """Read one rule (``inject-error.event``) or several (``inject-error.0.event``)."""
    mine = take_prefixed(options, f"{group.name}.")
    before = len(mine)
    if not before:
        return []
    single = group.absorb(mine)
    if mine and len(mine) < before:
        raise BlockError(f"Unknown option '{qemu_order(mine)[0][0]}' for [{group.name}]")
    if not mine:
        return [single]
    found: list[Values] = []
    while True:
        index = len(found)
        if str(index) in mine:
            raise BlockError(f"[{group.name}] section (index {index}) does not consist of keys")
        section = take_prefixed(mine, f"{index}.")
        if not section:
            break
        found.append(group.absorb(section))
        for key, _ in qemu_order(section):
            raise BlockError(f"[{group.name}] section doesn't support the option '{key}'")
    for key, _ in qemu_order(mine):
        raise BlockError(f"Unused option '{key}' for [{group.name}]")
    return found


def _read_file(path: str) -> Iterator[tuple[str, Options]]:
    """Yield the sections of a configuration file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError as error:
        number = error.errno or errno.EIO
        raise with_reason("Could not read blkdebug config file", number) from error
    name: str | None = None
    section: Options = {}
    for line in lines:
        text = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and "]" in line:
            if name is not None:
                yield name, section
            name, section = text[1 : text.index("]")].split(" ")[0], {}
            if name not in _GROUPS:
                raise BlockError(f"There is no option group '{name}'")
            continue
        key, equals, value = text.partition("=")
        value = value.strip()
        if not equals or not value.startswith('"') or '"' not in value[1:]:
            raise BlockError("parse error")
        if name is None:
            raise BlockError("no group defined")
        section[key.strip()] = value[1 : value.index('"', 1)]
    if name is not None:
        yield name, section
