"""LUKS as a format of its own: a header with the keys, and the guest's disk encrypted behind it."""

from __future__ import annotations

import errno

from thinvirt.image.block.abilities import Amendable, Creatable, Measurable, Measure
from thinvirt.image.block.base import BaseNode
from thinvirt.image.block.errors import BlockError, failed
from thinvirt.image.block.flags import (
    MAX_LENGTH,
    SECTOR,
    Open,
    Permission,
    Preallocation,
    WriteFlags,
)
from thinvirt.image.block.luks_options import (
    AMEND_OPTIONS,
    CREATE_OPTIONS,
    KEY_SECRET,
    NewVolume,
    NodeHeader,
    amend_slots,
    as_block_errors,
    find_passphrase,
    required_secret,
)
from thinvirt.image.block.new_file import create_file, empty_file_removed, remove_file
from thinvirt.image.block.permissions import refresh
from thinvirt.image.block.schema import Option, OptionList, OptionType, Values, parse_choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from thinvirt.image.block.abilities import Watcher
    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.node import BlockNode, Buffer, Child, Graph
    from thinvirt.image.block.options import Options
    from thinvirt.image.crypto.ciphers import SectorCipher
    from thinvirt.image.crypto.volume import Volume

RUNTIME_OPTIONS = OptionList("crypto", (KEY_SECRET,))
_PIECE = 1 << 20  # bytes read or written at once: what is encrypted must be held twice
_TOO_LARGE = "The requested file size is too large"


class LuksNode(BaseNode, Creatable, Measurable, Amendable):
    """A LUKS 1 volume in a file.

    Attributes:
        volume: header and key slots.
        payload_offset: where the guest's disk begins in the file, bytes.
    """

    driver = "luks"
    is_format = True
    is_encrypted = True
    strong_options = ("key-secret",)
    create_options = OptionList(
        "crypto", (Option("size", OptionType.SIZE, "Virtual disk size"), *CREATE_OPTIONS)
    )
    amend_options = OptionList("crypto", AMEND_OPTIONS)
    can_truncate = True

    volume: Volume
    payload_offset = 0

    def __init__(self, graph: Graph, options: Options, flags: int) -> None:
        super().__init__(graph, options, flags)
        self._secret = ""
        self._updates_keys = False

    # ---------------------------------------------------------------- open

    def _open(self, options: Options) -> None:
        from thinvirt.image.crypto.volume import Volume

        self.graph.open_file_child(self, options)
        self.write_flags = WriteFlags.FUA & self.file.write_flags
        secret = RUNTIME_OPTIONS.absorb(options).text("key-secret")
        passphrase = None
        if not self.open_flags & Open.NO_IO:
            self._secret = required_secret(secret, "")
            passphrase = find_passphrase(self.graph, self._secret)
        with as_block_errors():
            self.volume = Volume.open(NodeHeader(self.file))
            self.payload_offset = self.volume.header.payload_offset
            if passphrase is not None:
                self.volume.unlock(passphrase)

    @property
    def _cipher(self) -> SectorCipher:
        if self.volume.cipher is None:
            raise failed(errno.EIO)  # opened to be looked at only
        return self.volume.cipher

    def _length(self) -> int:
        length = self.file.size - self.payload_offset
        if length < 0:
            raise failed(errno.EIO)
        return length

    def _refresh_limits(self) -> None:
        self.request_alignment = SECTOR

    def _child_permissions(self, child: Child, perm: int, shared: int) -> tuple[int, int]:
        below, shared_below = super()._child_permissions(child, perm, shared)
        # The header does not change while guests write: others may write to the data as well.
        mine = Permission.WRITE | Permission.RESIZE
        below = below & ~mine | perm & mine
        shared_below |= shared & mine
        if self._updates_keys:
            below |= Permission.WRITE
            shared_below &= ~(Permission.CONSISTENT_READ | Permission.WRITE)
        return below, shared_below

    # ---------------------------------------------------------------- requests

    def _read(self, offset: int, length: int) -> bytes:
        cipher = self._cipher
        parts = []
        end = offset + length
        for at in range(offset, end, _PIECE):
            stored = self.file.read(self.payload_offset + at, min(_PIECE, end - at))
            parts.append(cipher.decrypt(at, stored))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read into a buffer, and decrypt in there."""
        is_odd = (offset | len(buffer)) & self.request_alignment - 1
        if self.copy_on_read or is_odd or offset + len(buffer) > self.size:
            super().read_into(offset, buffer)
        else:
            self.file.read_into(self.payload_offset + offset, buffer)
            self._cipher.decrypt_into(offset, buffer, buffer)

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        cipher = self._cipher
        view = memoryview(data)
        stored = memoryview(bytearray(min(len(view), _PIECE)))
        for at in range(0, len(view), _PIECE):
            part = view[at : at + _PIECE]
            target = stored[: len(part)]
            cipher.encrypt_into(offset + at, part, target)
            self.file.write(self.payload_offset + offset + at, target, flags)

    def _truncate(self, size: int, *, exact: bool, preallocation: str, flags: int) -> None:
        if size > MAX_LENGTH - self.payload_offset:
            raise BlockError(_TOO_LARGE, number=errno.EFBIG)
        self.file.truncate(size + self.payload_offset, exact=exact, preallocation=preallocation)

    # ---------------------------------------------------------------- facts

    @property
    def cluster_size(self) -> int:
        """That of what lies below."""
        return self.file.cluster_size

    def format_specific(self) -> Mapping[str, Any] | None:
        """Return cipher and key slots."""
        return {"type": "luks", "data": self.volume.facts()}

    # ---------------------------------------------------------------- whole images

    @classmethod
    def create_image(cls, graph: BlockGraph, filename: str, values: Values) -> None:
        """Make a volume in a new file; nothing is left behind if that fails."""
        preallocation = parse_choice(
            values.text("preallocation") or Preallocation.OFF, Preallocation.ALL
        )
        if preallocation == Preallocation.METADATA:
            preallocation = Preallocation.OFF  # all metadata is in the header
        size = values.size("size")
        plan = NewVolume(values)
        with empty_file_removed(graph, filename):
            plan.prepare(graph)
            plan.check_cipher()
        root = create_file(graph, filename, values)
        try:
            _fill_file(root.node, plan, size, preallocation)
        except BaseException:
            remove_file(root)
            raise
        root.close()

    @classmethod
    def measure_image(cls, values: Values, source: BlockNode | None) -> Measure:
        """Return the size with the header: what was never written is stored like all else."""
        size = values.size("size") if source is None else source.size
        plan = NewVolume(values)
        plan.prepare(None)
        total = plan.header.payload_offset + size
        return Measure(total, total)

    def amend_image(self, values: Values, *, force: bool, watch: Watcher) -> None:
        """Change key slots, with the file to ourselves meanwhile."""
        self._updates_keys = True
        try:
            refresh(self)
            amend_slots(self.graph, self.volume, values, secret=self._secret, force=force)
        finally:
            self._updates_keys = False
            refresh(self)


def _fill_file(file: BlockNode, plan: NewVolume, size: int, preallocation: str) -> None:
    from thinvirt.image.crypto.volume import Volume

    payload = plan.header.payload_offset
    if size > MAX_LENGTH - payload:
        raise BlockError(_TOO_LARGE)
    file.truncate(size + payload, preallocation=preallocation)
    with as_block_errors():
        Volume.create(plan.header, plan.passphrase, plan.milliseconds, NodeHeader(file))
