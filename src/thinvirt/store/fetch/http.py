"""HTTP and HTTPS GET as a download needs it: TLS verified, redirects watched, errors explained.

urllib3 does the protocol and is loaded with the first request. What it reports becomes one of
three: `NotFound` (404, 410), `Transient` (worth another try) or `TemporaryFailure` (is not).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urljoin, urlsplit

from thinvirt.errors import NotFound, TemporaryFailure, UsageError
from thinvirt.units import format_duration, format_size

if TYPE_CHECKING:
    import urllib3

MAX_REDIRECTS: Final = 10
MAX_TEXT: Final = 4 << 20  # sums and directory pages are kilobytes; more is no such thing
_CHUNK: Final = 256 << 10
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_TRY_AGAIN: Final = (408, 425, 429, 500, 502, 503, 504)


class Transient(TemporaryFailure):
    """A request that failed in a way another try may mend."""

    kind = "network"


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient to be; all in seconds but `tries`.

    Attributes:
        connect_s: until a connection stands.
        stall_s: without a single byte before a connection counts as dead.
        tries: requests in a row without progress before giving up.
        pause_s: before the second try; doubled for each one after, up to 30.
    """

    connect_s: float = 20.0
    stall_s: float = 60.0
    tries: int = 6
    pause_s: float = 1.0

    def pause_before(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        return min(self.pause_s * 2.0 ** max(failures - 1, 0), 30.0)


@dataclass(frozen=True, slots=True)
class ContentRange:
    """What part of the file an answer is (RFC 9110, 14.4); sizes in bytes."""

    start: int | None
    total: int | None


class Answer:
    """An open response; a context manager that closes it."""

    def __init__(self, url: str, response: "urllib3.BaseHTTPResponse", timing: Timing) -> None:
        self.url = url
        self.status = response.status
        self._response = response
        self._timing = timing

    def header(self, name: str) -> str:
        """Return a header's value, empty if it is not there."""
        return self._response.headers.get(name, "")

    @property
    def length(self) -> int | None:
        """Content-Length in bytes, if the server tells."""
        text = self.header("Content-Length")
        return int(text) if text.isascii() and text.isdigit() else None

    @property
    def content_range(self) -> ContentRange:
        """Content-Range; its parts are None if they are missing."""
        match = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", self.header("Content-Range").strip()
        )
        if match is None:
            return ContentRange(None, None)
        return ContentRange(
            int(match[1]) if match[1] else None, int(match[2]) if match[2] else None
        )

    def chunks(self) -> Iterator[bytes]:
        """Yield the body.

        Raises:
            Transient: it stalled, broke off, or ended before its Content-Length.
        """
        with _explained(self.url, self._timing):
            while chunk := self._response.read(_CHUNK, decode_content=False):
                yield chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._response.close()  # not given back to the pool: a body may be left in it


class Client:
    """Makes requests; keeps connections, TLS settings and proxies for them.

    Certificates are checked against the system's store, or the one SSL_CERT_FILE and SSL_CERT_DIR
    name; proxies come from http_proxy, https_proxy, all_proxy and no_proxy.
    """

    def __init__(self, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self._pools: dict[str, urllib3.PoolManager] = {}

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET, following redirects, and return the open answer: 2xx or 416.

        Raises:
            NotFound: the server does not have it.
            Transient: another try may help.
            TemporaryFailure: refused, an untrusted certificate, a redirect that gives up TLS.
        """
        return self._request("GET", url, headers or {})

    def head(self, url: str) -> Answer:
        """HEAD, for the same answers and errors as `get`."""
        return self._request("HEAD", url, {})

    def text(self, url: str) -> str:
        """Return a small text: checksums, a directory page.

        Raises:
            TemporaryFailure: it is larger than 4 MiB; and what `get` raises.
        """
        import time

        failures = 0
        while True:
            try:
                return self._text(url)
            except Transient:
                failures += 1
                if failures >= self.timing.tries:
                    raise
                time.sleep(self.timing.pause_before(failures))

    def _text(self, url: str) -> str:
        body = bytearray()
        with self.get(url) as answer:
            for chunk in answer.chunks():
                body += chunk
                if len(body) > MAX_TEXT:
                    raise TemporaryFailure(
                        f"{url} is larger than {format_size(MAX_TEXT)}: no list of checksums"
                    )
        return body.decode("utf-8", errors="replace")

    def _request(self, method: str, url: str, headers: Mapping[str, str]) -> Answer:
        here = url
        for _ in range(MAX_REDIRECTS):
            answer = self._one(method, here, headers)
            if answer.status not in _REDIRECTS:
                _check_status(answer)
                return answer
            location = answer.header("Location")
            answer.__exit__(None, None, None)
            target = _redirected(here, location)
            if urlsplit(here).scheme == "https" and urlsplit(target).scheme != "https":
                raise TemporaryFailure(
                    f"{here} redirects to {target}, which gives up TLS: refused",
                    hint="another mirror may do better: thinvirt template pull URL --checksum …",
                )
            here = target
        raise TemporaryFailure(
            f"{url} redirects more than {MAX_REDIRECTS} times",
            hint="try it in a browser: it may want a login or a cookie",
        )

    def _one(self, method: str, url: str, headers: Mapping[str, str]) -> Answer:
        import urllib3

        with _explained(url, self.timing):
            response = self._pool(url).request(
                method,
                url,
                # A body packed for the wire would have neither the length nor the digest promised.
                headers={"User-Agent": "thinvirt", "Accept-Encoding": "identity", **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=self.timing.connect_s, read=self.timing.stall_s),
            )
        return Answer(url, response, self.timing)

    def _pool(self, url: str) -> "urllib3.PoolManager":
        """Return the pool for the way to `url`: direct, or through the proxy named for it."""
        from ssl import create_default_context
        from urllib.request import getproxies, proxy_bypass

        import urllib3

        parts = urlsplit(url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        if proxy and proxy_bypass(parts.hostname or ""):
            proxy = ""
        if proxy and "//" not in proxy:
            proxy = f"http://{proxy}"
        if proxy not in self._pools:
            context = create_default_context()
            if proxy:
                login = urlsplit(proxy)
                secret = f"{login.username}:{login.password or ''}" if login.username else None
                self._pools[proxy] = urllib3.ProxyManager(
                    proxy,
                    proxy_headers=urllib3.make_headers(proxy_basic_auth=secret),
                    ssl_context=context,
                )
            else:
                self._pools[proxy] = urllib3.PoolManager(ssl_context=context)
        return self._pools[proxy]


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - looks at it, and raises
        url.encode()
    except ValueError:  # UnicodeEncodeError is one: bytes that are no text
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _redirected(here: str, location: str) -> str:
    """Return where an answer sends us."""
    try:
        target = urljoin(here, location)
    except ValueError:
        target = location
    if not location or not _is_web(target):
        raise TemporaryFailure(
            f"{here} redirects to '{target}', which is no http or https URL",
            hint="the publisher may have moved it: look there, and name the new URL",
        )
    return target


def check_url(url: str) -> None:
    """Refuse what is not an HTTP or HTTPS URL with a host.

    Raises:
        UsageError: another scheme, no host, an impossible port, or no text.
    """
    if not _is_web(url):
        raise UsageError(
            f"'{url}' is no http or https URL",
            hint="a file on this machine is imported by: thinvirt template import FILE",
        )


def _check_status(answer: Answer) -> None:
    status, url = answer.status, answer.url
    if 200 <= status < 300 or status == 416:
        return
    retry_after = answer.header("Retry-After")
    answer.__exit__(None, None, None)
    if status in (404, 410):
        raise NotFound(
            f"{url} does not exist (HTTP {status})",
            hint="the publisher may have moved it: look there, and name the new URL with --sums "
            "or --checksum, or put an entry into your own catalogue",
        )
    if status in _TRY_AGAIN:
        after = f", asks to wait {retry_after} s" if retry_after.isdigit() else ""
        raise Transient(f"{url}: the server is in trouble (HTTP {status}{after})")
    raise TemporaryFailure(
        f"{url}: the server refuses (HTTP {status})",
        hint="try it in a browser: it may want a login, or block this address",
    )


class _explained:  # noqa: N801 - reads as a statement: with _explained(url, timing)
    """Turns urllib3's exceptions from inside into ours.

    A class and not a generator: it stands inside one (`Answer.chunks`), where an exception thrown
    in from outside has to pass unchanged.
    """

    def __init__(self, url: str, timing: Timing) -> None:
        self._url = url
        self._timing = timing

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import urllib3.exceptions as trouble

        if isinstance(error, trouble.HTTPError):
            raise _explain(error, self._url, self._timing) from error


def _explain(error: "urllib3.exceptions.HTTPError", url: str, timing: Timing) -> TemporaryFailure:
    """Return our error for what urllib3 reports."""
    from ssl import SSLCertVerificationError

    import urllib3.exceptions as trouble

    host = urlsplit(url).hostname or url
    proxy = isinstance(error, trouble.ProxyError)
    cause = error.original_error if isinstance(error, trouble.ProxyError) else error
    if isinstance(cause, trouble.SSLError):
        reason = next((a for a in cause.args if isinstance(a, SSLCertVerificationError)), None)
        what = reason.verify_message if reason else str(cause)
        return TemporaryFailure(
            f"{url}: the certificate of {host} is not to be trusted ({what})",
            hint="install the ca-certificates package, check this machine's clock, or name your "
            "own authority's certificate in SSL_CERT_FILE",
        )
    if isinstance(cause, trouble.ReadTimeoutError):
        return Transient(f"{url}: nothing came for {format_duration(timing.stall_s)}")
    if isinstance(cause, trouble.ConnectTimeoutError | trouble.NewConnectionError):
        through = " through the proxy" if proxy else ""
        return Transient(
            f"{url}: no connection to {host}{through} ({_reason(cause)})",
            hint="is this machine online? https_proxy names a proxy, if one is needed",
        )
    if isinstance(cause, trouble.LocationValueError):
        return TemporaryFailure(f"{url}: {_reason(error)}", hint="check the URL and https_proxy")
    if isinstance(cause, trouble.IncompleteRead):
        return Transient(f"{url}: the answer broke off before its end")
    return Transient(f"{url}: the connection broke ({_reason(error)})")


def _reason(error: BaseException) -> str:
    """Return the end of urllib3's message: the part that is not its own object's address."""
    return str(error).rpartition(": ")[2] or type(error).__name__
