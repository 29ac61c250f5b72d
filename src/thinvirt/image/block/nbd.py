"""NBD exports: the network protocol node, for Unix and TCP sockets."""

from __future__ import annotations

import errno

from thinvirt.image.block import nbd_address
from thinvirt.image.block.abilities import Creatable
from thinvirt.image.block.base import BaseNode
from thinvirt.image.block.errors import BlockError, ForeignDriver, NotSupported, with_reason
from thinvirt.image.block.existing import SIMPLE_OPTIONS, take_existing
from thinvirt.image.block.flags import SECTOR, Status, WriteFlags
from thinvirt.image.block.names import MAX_NAME
from thinvirt.image.block.nbd_handshake import MAX_BUFFER, ExportFlags, Handshake
from thinvirt.image.block.nbd_session import Broken, Command, CommandFlags, Session
from thinvirt.image.block.node import Extent
from thinvirt.image.block.schema import Option, OptionList, OptionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.node import Buffer
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.schema import Values

    _T = TypeVar("_T")

RUNTIME_OPTIONS = OptionList(
    "nbd",
    (
        Option("host", OptionType.STRING, "host to connect to"),
        Option("port", OptionType.STRING, "port to connect to"),
        Option("path", OptionType.STRING, "Unix socket to connect to"),
        Option("export", OptionType.STRING, "name of the export"),
        Option("tls-creds", OptionType.STRING, "TLS credentials; handed to qemu-img"),
        Option("tls-hostname", OptionType.STRING, "name in the server's certificate"),
        Option("x-dirty-bitmap", OptionType.STRING, "metadata context shown as block status"),
        Option("reconnect-delay", OptionType.NUMBER, "seconds to try to connect again"),
        Option("open-timeout", OptionType.NUMBER, "seconds to try to connect at first"),
    ),
)

_LARGEST = (1 << 31) - 1
_HOLE, _ZERO = 1, 2  # of the context base:allocation
_RETRY_S = 0.2


def _refused(number: int, reason: str) -> BlockError:
    """Return what QEMU says where the export is not as it must be: it keeps the errno alone."""
    error = with_reason("Could not open image", number)
    error.hint = reason
    return error


class NbdNode(BaseNode, Creatable):
    """An export of an NBD server."""

    driver = "nbd"
    is_protocol = True
    parses_filename = True
    makes_filename = True
    strong_options = ("path", "host", "port", "export", "tls-creds", "tls-hostname", "server.")
    can_write_zeroes = True
    can_discard = True
    can_report_status = True
    can_truncate = True
    create_options = SIMPLE_OPTIONS

    _session: Session | None = None
    _reconnect_s = 0

    @classmethod
    def parse_filename(cls, filename: str, options: Options) -> None:
        """Take an NBD URI or an ``nbd:`` name apart."""
        nbd_address.parse_filename(filename, options)

    @classmethod
    def create_image(cls, graph: BlockGraph, filename: str, values: Values) -> None:
        """Take an existing export, as long as it is large enough."""
        take_existing(graph, cls.driver, filename, values)

    # ---------------------------------------------------------------- open and close

    def _open(self, options: Options) -> None:
        values = RUNTIME_OPTIONS.absorb(options)
        self._address = nbd_address.address_from_options(options, values)
        self._export = values.text("export")
        if self._export is not None and len(self._export.encode(errors="replace")) > 4096:
            raise BlockError("export name too long to send to server")
        credentials = values.text("tls-creds")
        if credentials is not None:
            if self.graph.find_object("tls-creds", credentials) is None:
                raise BlockError(f"No TLS credentials with id '{credentials}'")
            raise ForeignDriver("nbd")
        context = values.text("x-dirty-bitmap")
        if context is not None and len(context) > nbd_address.MAX_STRING:
            raise BlockError("x-dirty-bitmap query too long to send to server")
        self._context = context or "base:allocation"
        self._session = self._connect(values.size("open-timeout"))
        self._reconnect_s = values.size("reconnect-delay")
        if context is not None and self._session.export.context is None:
            self._close()
            raise _refused(errno.EINVAL, f"requested x-dirty-bitmap {context} not found")
        try:
            self._note_flags(self._session.export.flags)
        except BlockError as error:
            self._close()
            raise _refused(error.errno, error.message) from error

    def _note_flags(self, flags: int) -> None:
        if flags & ExportFlags.READ_ONLY:
            self.fall_back_to_reading("NBD export is read-only")
        fua = WriteFlags.FUA if flags & ExportFlags.SEND_FUA else 0
        self.write_flags = self.zero_flags = fua
        if flags & ExportFlags.SEND_WRITE_ZEROES:
            self.zero_flags |= WriteFlags.MAY_UNMAP
            if flags & ExportFlags.SEND_FAST_ZERO:
                self.zero_flags |= WriteFlags.NO_FALLBACK

    def _connect(self, patience_s: int) -> Session:
        """Connect, and try again for so many seconds."""
        import time

        deadline = time.monotonic() + patience_s
        while True:
            try:
                connection = self._address.connect()
                try:
                    export = Handshake(connection).run(self._export or "", self._context)
                except BaseException:
                    connection.close()
                    raise
                return Session(connection, export)
            except BlockError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_RETRY_S)

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _length(self) -> int:
        return self._info.export.size

    @property
    def _info(self) -> Session:
        if self._session is None:
            raise Broken("the connection to the NBD server is lost")
        return self._session

    def _ask(self, question: Callable[[Session], _T]) -> _T:
        """Ask the server; connect anew if it is gone and patience was asked for.

        Requests can be repeated: doing one twice is doing it once.
        """
        try:
            return question(self._info)
        except Broken:
            session, self._session = self._session, None
            if session is not None:
                session.connection.close()
            if not self._reconnect_s:
                raise
        self._session = self._connect(self._reconnect_s)
        return question(self._info)

    def _refresh_limits(self) -> None:
        export = self._info.export
        unit = export.min_block
        if not unit:
            # A server too old to tell: whole sectors, unless its sizes show otherwise.
            unit = 1 if export.size % SECTOR or export.context is not None else SECTOR
        largest = min(MAX_BUFFER, export.max_block or MAX_BUFFER)
        self.request_alignment = unit
        self.max_transfer = self.max_zeroes = largest
        self.max_discard = _LARGEST // unit * unit
        self.opt_transfer = max(self.opt_transfer, export.opt_block)

    # ---------------------------------------------------------------- requests

    def _read(self, offset: int, length: int) -> bytes:
        # Sizes here are whole sectors; the server's need not be.
        available = max(min(length, self._info.export.size - offset), 0)
        if not available:
            return bytes(length)
        data = self._ask(lambda session: session.read(offset, available))
        return data if available == length else data + bytes(length - available)

    def _write(self, offset: int, data: Buffer, flags: int) -> None:
        length = len(data)
        fua = CommandFlags.FUA if flags & WriteFlags.FUA else 0
        self._ask(lambda session: session.command(Command.WRITE, fua, offset, length, data))

    def _write_zeroes(self, offset: int, length: int, flags: int) -> None:
        if not self._info.export.flags & ExportFlags.SEND_WRITE_ZEROES:
            raise NotSupported
        how = 0 if flags & WriteFlags.MAY_UNMAP else CommandFlags.NO_HOLE
        how |= CommandFlags.FUA if flags & WriteFlags.FUA else 0
        how |= CommandFlags.FAST_ZERO if flags & WriteFlags.NO_FALLBACK else 0
        self._ask(lambda session: session.command(Command.WRITE_ZEROES, how, offset, length))

    def _discard(self, offset: int, length: int) -> None:
        if self._info.export.flags & ExportFlags.SEND_TRIM:
            self._ask(lambda session: session.command(Command.TRIM, 0, offset, length))

    def _flush_to_disk(self) -> None:
        if self._info.export.flags & ExportFlags.SEND_FLUSH:
            self._ask(lambda session: session.command(Command.FLUSH, 0, 0, 0))

    def _status(self, offset: int, length: int, *, want_zero: bool) -> Extent:
        valid = Status.OFFSET_VALID
        export = self._info.export
        if export.context is None:
            return Extent(length, Status.DATA | valid, offset, self)
        if offset >= export.size:
            return Extent(length, Status.ZERO)  # the rest of the last sector
        most = min(
            length,
            export.size - offset,
            _LARGEST // self.request_alignment * self.request_alignment,
        )
        run, flags = self._ask(lambda session: session.block_status(offset, most))
        if self._context == "qemu:allocation-depth":
            flags = min(flags, 2)
        status = (0 if flags & _HOLE else Status.DATA) | (Status.ZERO if flags & _ZERO else 0)
        return Extent(run, status | valid, offset, self)

    def _truncate(self, size: int, *, exact: bool, preallocation: str, flags: int) -> None:
        present = self._info.export.size
        if size != present and exact:
            raise NotSupported("Cannot resize NBD nodes")
        if size > present:
            raise BlockError("Cannot grow NBD nodes")

    # ---------------------------------------------------------------- names

    def _refresh_filename(self) -> None:
        address, export = self._address, self._export
        if not address.is_plain:
            return
        if address.kind == "unix":
            place = f"/{export}" if export is not None else ""
            name = f"nbd+unix://{place}?socket={address.path}"
        else:
            place = f"/{export}" if export is not None else ""
            name = f"nbd://{address.host}:{address.port}{place}"
        self.exact_filename = name if len(name) <= MAX_NAME else ""
