"""Real HTTP and HTTPS servers on 127.0.0.1 that misbehave as told."""

import re
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme


@dataclass
class Resource:
    """A file on the server, and how the next requests for it go wrong."""

    body: bytes = b""
    etag: str = '"1"'
    last_modified: str = ""
    ranges: bool = True
    length: bool = True  # whether Content-Length is sent
    redirect: str = ""
    faults: deque[Callable[["Handler", bytes], None]] = field(default_factory=deque)


def cut_after(size: int) -> Callable[["Handler", bytes], None]:
    """Promise the whole body, send `size` bytes, and hang up."""

    def fault(handler: "Handler", body: bytes) -> None:
        handler.wfile.write(body[:size])
        handler.close_connection = True

    return fault


def stall_after(size: int) -> Callable[["Handler", bytes], None]:
    """Send `size` bytes and then nothing, until the server is closed."""

    def fault(handler: "Handler", body: bytes) -> None:
        handler.wfile.write(body[:size])
        handler.wfile.flush()
        handler.server.closing.wait(20)
        handler.close_connection = True

    return fault


class Status(Exception):
    """Raised by a fault: answer with this status instead."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def status(code: int) -> Callable[["Handler", bytes], None]:
    """Answer with an error status."""

    def fault(handler: "Handler", body: bytes) -> None:
        raise Status(code)

    fault.early = True  # type: ignore[attr-defined]
    return fault


class Server(ThreadingHTTPServer):
    """The server; `files` by path, `log` of every request as (method, path, Range)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Resource] = {}
        self.log: list[tuple[str, str, str]] = []
        self.closing = threading.Event()
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def put(self, path: str, body: bytes, **details: object) -> Resource:
        self.files[path] = Resource(body, **details)  # type: ignore[arg-type]
        return self.files[path]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away: many tests make them."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_CONNECT(self) -> None:
        """Be a proxy: carry bytes to and fro until either side ends."""
        self.server.log.append(
            (self.command, self.path, self.headers.get("Proxy-Authorization", ""))
        )
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            here = self.connection
            other = {here: there, there: here}
            while True:
                for side in select.select(list(other), [], [], 10)[0] or [here]:
                    data = side.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    other[side].sendall(data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.log.append((self.command, self.path, wanted))
        file = self.server.files.get(self.path)
        if file is None:
            self.send_error(404)
            return
        if file.redirect:
            self.send_response(302)
            self.send_header("Location", file.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        fault = file.faults.popleft() if file.faults else None
        if fault is not None and getattr(fault, "early", False):
            try:
                fault(self, b"")
            except Status as answer:
                self.send_error(answer.code)
            return
        body = self._head(file, wanted)
        if body is None or self.command == "HEAD":
            return
        if fault is None:
            self.wfile.write(body)
        else:
            fault(self, body)

    def _head(self, file: Resource, wanted: str) -> bytes | None:
        """Send the headers and return the body to send."""
        condition = self.headers.get("If-Range", "")
        unchanged = not condition or condition in (file.etag, file.last_modified)
        match = re.fullmatch(r"bytes=(\d+)-", wanted)
        start = int(match[1]) if match and file.ranges and unchanged else 0
        if start and start >= len(file.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(file.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        body = file.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(file.body) - 1}/{len(file.body)}"
            )
        if file.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        if file.etag:
            self.send_header("ETag", file.etag)
        if file.last_modified:
            self.send_header("Last-Modified", file.last_modified)
        self.end_headers()
        return body


@contextmanager
def serving(certificate: "trustme.LeafCert | None" = None) -> Iterator[Server]:
    """Run a server; with a certificate it speaks HTTPS."""
    server = Server()
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Authority:
    """A certificate authority for the tests."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def certificate(self) -> trustme.LeafCert:
        """Return a certificate for 127.0.0.1."""
        return self._ca.issue_cert("127.0.0.1")
