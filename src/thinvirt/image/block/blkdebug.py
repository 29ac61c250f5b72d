"""Errors on demand: a filter that fails requests at chosen events, for tests.

Rules come from a configuration file, from options, or both::

    [inject-error]
    event = "l2_update"
    errno = "28"
    once = "on"
"""

from __future__ import annotations

import errno
import os

from thinvirt.image.block.blkdebug_rules import Rule, read_rules
from thinvirt.image.block.errors import BlockError, NotSupported, failed
from thinvirt.image.block.filter import FilterNode
from thinvirt.image.block.flags import Permission, Status
from thinvirt.image.block.names import MAX_NAME
from thinvirt.image.block.node import Extent
from thinvirt.image.block.options import crumple, take_prefixed
from thinvirt.image.block.schema import Option, OptionList, OptionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import Buffer, Child
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.schema import Values

_LIMITS = ("max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard")

RUNTIME_OPTIONS = OptionList(
    "blkdebug",
    (
        Option("config", OptionType.STRING, "path of the configuration file"),
        Option("x-image", OptionType.STRING, "file name of the image, from a blkdebug: name"),
        Option("align", OptionType.SIZE, "required alignment in bytes"),
        Option("max-transfer", OptionType.SIZE, "largest transfer in bytes"),
        Option("opt-write-zero", OptionType.SIZE, "best alignment for writing zeroes in bytes"),
        Option("max-write-zero", OptionType.SIZE, "largest write of zeroes in bytes"),
        Option("opt-discard", OptionType.SIZE, "best alignment of discards in bytes"),
        Option("max-discard", OptionType.SIZE, "largest discard in bytes"),
    ),
)


class BlkdebugNode(FilterNode):
    """A filter over the child "image"."""

    driver = "blkdebug"
    is_protocol = True
    parses_filename = True
    makes_filename = True
    can_report_status = True
    strong_options = ("config", "inject-error.", "set-state.", "align", *_LIMITS)

    config = ""
    _state = 1

    @classmethod
    def parse_filename(cls, filename: str, options: Options) -> None:
        """Take ``blkdebug:CONFIG:IMAGE`` apart."""
        if not filename.startswith("blkdebug:"):
            options["x-image"] = filename
            return
        config, colon, image = filename.removeprefix("blkdebug:").partition(":")
        if not colon:
            raise BlockError("blkdebug requires both config file and image path")
        if config:
            options["config"] = config
        options["x-image"] = image

    def _open(self, options: Options) -> None:
        values = RUNTIME_OPTIONS.absorb(options)
        self.config = values.text("config") or ""
        self._rules = read_rules(self.config, options)
        self._active: list[Rule] = []
        self._taken = _permissions(options, "take-child-perms")
        self._unshared = _permissions(options, "unshare-child-perms")
        image = self.graph.open_file_child(
            self, options, name="image", filename=values.text("x-image")
        )
        self._take_flags(image)
        self._alignment = values.size("align")
        self._limits = self._checked_limits(values, image.request_alignment)
        self.debug_event("none")

    def _checked_limits(self, values: Values, alignment: int) -> dict[str, int]:
        """Return the limits given, each a multiple of what it stands on."""
        mine = self._alignment
        if mine and (mine >= 1 << 31 or mine & (mine - 1)):
            raise BlockError(f"Cannot meet constraints with align {mine}")
        alignment = max(mine, alignment)
        limits = {name: values.size(name) for name in _LIMITS}
        units = {"max-write-zero": "opt-write-zero", "max-discard": "opt-discard"}
        for name, value in limits.items():
            unit = max(limits[units[name]], alignment) if name in units else alignment
            if value and (value >= 1 << 31 or value % unit):
                raise BlockError(f"Cannot meet constraints with {name} {value}")
        return limits

    def _refresh_limits(self) -> None:
        limits = self._limits
        self.request_alignment = self._alignment or self.request_alignment
        self.max_transfer = limits["max-transfer"] or self.max_transfer
        self.zeroes_alignment = limits["opt-write-zero"] or self.zeroes_alignment
        self.max_zeroes = limits["max-write-zero"] or self.max_zeroes
        self.discard_alignment = limits["opt-discard"] or self.discard_alignment
        self.max_discard = limits["max-discard"] or self.max_discard

    def _child_permissions(self, child: Child, perm: int, shared: int) -> tuple[int, int]:
        perm, shared = super()._child_permissions(child, perm, shared)
        return perm | self._taken, shared & ~self._unshared

    # ---------------------------------------------------------------- rules

    def debug_event(self, event: str) -> None:
        """Act on the rules for an event, the newest first."""
        rules = self._rules.get(event)
        if not rules:
            return
        state = self._state
        active: list[Rule] = []
        for rule in rules:
            if rule.state in (0, self._state):
                if rule.new_state is None:
                    active.insert(0, rule)
                else:
                    state = rule.new_state
        if active:
            self._active = active
        self._state = state

    def _fail_if_asked(self, kind: str, offset: int, length: int) -> None:
        for rule in self._active:
            if rule.applies(kind, offset, length):
                break
        else:
            return
        if not rule.error:
            return
        if rule.once:
            self._active.remove(rule)
            self._rules[rule.event].remove(rule)
        raise failed(rule.error, offset=offset)

    # ---------------------------------------------------------------- requests

    def _read(self, offset: int, length: int) -> bytes:
        self._fail_if_asked("read", offset, length)
        return super()._read(offset, length)

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        self._fail_if_asked("write", offset, len(data))
        super()._write(offset, data, flags)

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        if length < max(self.request_alignment, self.zeroes_alignment):
            raise NotSupported  # so that the fallback is tested
        self._fail_if_asked("write-zeroes", offset, length)
        super()._write_zeroes(offset, length, flags)

    def _write_compressed(self, offset: int, data: Buffer) -> None:
        raise NotSupported

    def _discard(self, offset: int, length: int) -> None:
        if length < self.request_alignment:
            raise NotSupported
        self._fail_if_asked("discard", offset, length)
        super()._discard(offset, length)

    def _status(self, offset: int, length: int, *, want_zero: bool) -> Extent:
        self._fail_if_asked("block-status", offset, length)
        return Extent(length, Status.RAW | Status.OFFSET_VALID, offset, self.file)

    def _flush_to_disk(self) -> None:
        self._fail_if_asked("flush", 0, 0)

    # ---------------------------------------------------------------- names

    def _refresh_filename(self) -> None:
        below = self.file.exact_filename
        if below and self.full_open_options.keys() <= {"config", "image", "x-image", "driver"}:
            name = f"blkdebug:{self.config}:{below}"
            self.exact_filename = name if len(os.fsencode(name)) <= MAX_NAME else ""


def _permissions(options: Options, name: str) -> int:
    given = take_prefixed(options, f"{name}.")
    if not given:
        return 0
    values = crumple(given)
    if not isinstance(values, list):
        raise BlockError(f"Invalid parameter type for '{name}', expected: array")
    known = [text.replace(" ", "-") for text in Permission.NAMES]
    bits = 0
    for index, value in enumerate(values):
        if value not in known:
            raise BlockError(
                f"Parameter '{name}[{index}]' does not accept value '{value}'", number=errno.EINVAL
            )
        bits |= 1 << known.index(value)
    return bits
