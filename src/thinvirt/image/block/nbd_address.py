"""Where an NBD export is: URIs, ``nbd:`` names and options."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, with_reason
from thinvirt.image.block.options import qemu_order, take_prefixed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

    from thinvirt.image.block.options import Options
    from thinvirt.image.block.schema import Values

DEFAULT_PORT = "10809"
MAX_STRING = 4096  # of export names, by the protocol
_EXPORT = ":exportname="
_LOCATORS = ("host", "port", "path", "export")


class Address:
    """A server: a Unix socket's path, or a host and port.

    Attributes:
        kind: "unix", "inet", "vsock" or "fd".
    """

    __slots__ = ("host", "is_plain", "kind", "path", "port")

    def __init__(self, kind: str, *, path: str = "", host: str = "", port: str = "") -> None:
        self.kind = kind
        self.path = path
        self.host = host
        self.port = port
        self.is_plain = True  # a URI can say it

    def connect(self) -> socket:
        """Return a connected socket.

        Raises:
            BlockError: nobody answers there.
        """
        import socket as sockets

        if self.kind == "unix":
            return self._connect_unix(sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM))
        if self.kind == "fd":
            return self._adopt()
        if self.kind == "vsock":
            connection = sockets.socket(sockets.AF_VSOCK, sockets.SOCK_STREAM)
            return _connected(connection, (int(self.host), int(self.port)), self._place())
        return self._connect_inet()

    def _place(self) -> str:
        return self.path if self.kind == "unix" else f"{self.host}:{self.port}"

    def _connect_unix(self, connection: socket) -> socket:
        if len(self.path.encode("utf-8", "surrogateescape")) > 108:
            connection.close()
            raise BlockError(
                f"UNIX socket path '{self.path}' is too long",
                qemu_hint="Path must be less than 108 bytes\n",
            )
        # No name is, for QEMU, one of zeroes: nobody listens there.
        return _connected(connection, self.path or b"\0" * 108, self._place())

    def _adopt(self) -> socket:
        import socket as sockets

        try:
            return sockets.socket(fileno=int(self.path))
        except (OSError, ValueError) as error:
            raise BlockError(f"Failed to get fd {self.path}") from error

    def _connect_inet(self) -> socket:
        import socket as sockets

        try:
            found = sockets.getaddrinfo(
                self.host, self.port, type=sockets.SOCK_STREAM, flags=sockets.AI_ADDRCONFIG
            )
        except (sockets.gaierror, UnicodeError) as error:
            reason = error.strerror if isinstance(error, sockets.gaierror) else "Name too long"
            raise BlockError(
                f"address resolution failed for {self.host}:{self.port}: {reason}"
            ) from error
        trouble: BlockError | None = None
        for family, kind, protocol, _, where in found:
            try:
                connection = _connected(
                    sockets.socket(family, kind, protocol), where, self._place()
                )
            except BlockError as error:
                trouble = error
                continue
            # Requests are small and answered one by one.
            connection.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
            return connection
        raise trouble or BlockError(f"Failed to connect to '{self._place()}'")


def _connected(connection: socket, where: object, place: str) -> socket:
    try:
        connection.connect(where)  # type: ignore[arg-type]  # by family: a path or a tuple
    except (OSError, ValueError) as error:
        connection.close()
        number = getattr(error, "errno", None) or 22
        raise with_reason(f"Failed to connect to '{place}'", number) from error
    return connection


# ---------------------------------------------------------------- names


def parse_filename(filename: str, options: Options) -> None:
    """Put what an NBD name says into options.

    Raises:
        BlockError: no NBD name, or options say it too.
    """
    for key, _ in qemu_order(options):
        if key in _LOCATORS or key.startswith("server."):
            raise BlockError(f"Option '{key}' cannot be used with a file name")
    if "://" in filename:
        if not _parse_uri(filename, options):
            raise BlockError("No valid URL specified")
        return
    place, found, export = filename.partition(_EXPORT)
    if found:
        if not export:
            return
        options["export"] = export
    if not place.startswith("nbd:"):
        raise BlockError("File name string for NBD must start with 'nbd:'")
    place = place.removeprefix("nbd:")
    if place.startswith("unix:"):
        _put_unix(options, place.removeprefix("unix:"))
    elif place:
        _put_inet(options, *_split_host_port(place))


def _put_unix(options: Options, path: str) -> None:
    options["server.type"] = "unix"
    options["server.path"] = path


def _put_inet(options: Options, host: str, port: str) -> None:
    options["server.type"] = "inet"
    options["server.host"] = host
    options["server.port"] = port


def _parse_uri(uri: str, options: Options) -> bool:
    """Return whether it is one, and fill in the options."""
    from urllib.parse import parse_qsl, unquote, urlsplit

    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    query = parse_qsl(parts.query, keep_blank_values=True, errors="surrogateescape")
    export = unquote(parts.path, errors="surrogateescape").removeprefix("/")
    if export:
        options["export"] = export
    if parts.scheme == "nbd+unix":
        if len(query) != 1 or parts.netloc or query[0][0] != "socket":
            return False
        _put_unix(options, query[0][1])
        return True
    if parts.scheme not in ("nbd", "nbd+tcp") or query or not parts.hostname:
        return False
    host = parts.netloc.rpartition("@")[2]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    _put_inet(options, host, str(port or DEFAULT_PORT))
    return True


def _split_host_port(text: str) -> tuple[str, str]:
    place = text.partition(",")[0]
    if place.startswith(":"):
        if not place[1:]:
            raise BlockError(f"error parsing port in address '{text}'")
        return "", place[1:]
    if place.startswith("["):
        host, found, port = place[1:].partition("]:")
        if not found or not host or not port:
            raise BlockError(f"error parsing IPv6 address '{text}'")
        return host, port
    host, _, port = place.partition(":")
    if not host or not port:
        raise BlockError(f"error parsing address '{text}'")
    return host, port


def address_from_options(options: Options, values: Values) -> Address:
    """Return the server that options name, and take those out.

    Args:
        options: flat; ``server.…`` is taken out.
        values: the older ``path``, ``host`` and ``port``.

    Raises:
        BlockError: no address, two, or half of one.
    """
    server = take_prefixed(options, "server.")
    path, host, port = (values.text(name) for name in ("path", "host", "port"))
    if path or host or port:
        if server:
            raise BlockError("Cannot use 'server' and path/host/port at the same time")
        if path and host:
            raise BlockError("path and host may not be used at the same time")
        if path and port:
            raise BlockError("port may not be used without host")
        if path:
            server = {"type": "unix", "path": path}
        elif host:
            server = {"type": "inet", "host": host, "port": port or DEFAULT_PORT}
    if not server:
        raise BlockError("NBD server address missing")
    return _from_server(server)


_PARTS = {"unix": ("path",), "inet": ("host", "port"), "vsock": ("cid", "port"), "fd": ("str",)}
_EXTRAS = {
    "inet": {"numeric", "to", "ipv4", "ipv6", "keep-alive", "mptcp"},
    "unix": {"abstract", "tight"},
}


def _from_server(server: Options) -> Address:
    kind = server.pop("type", None)
    if kind is None:
        raise BlockError("Parameter 'type' is missing")
    if kind not in _PARTS:
        raise BlockError(f"Parameter 'type' does not accept value '{kind}'")
    for name in _PARTS[kind]:
        if name not in server:
            raise BlockError(f"Parameter '{name}' is missing")
    values = [str(server.pop(name)) for name in _PARTS[kind]]
    for name, _ in qemu_order(server):
        if name not in _EXTRAS.get(kind, ()):
            raise BlockError(f"Parameter '{name}' is unexpected")
    if kind in ("unix", "fd"):
        address = Address(kind, path=values[0])
    else:
        address = Address(kind, host=values[0], port=values[1])
    address.is_plain = kind in ("unix", "inet") and not server.keys() & {"ipv4", "ipv6", "to"}
    return address
