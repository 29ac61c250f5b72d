"""One file from one URL into the store's downloads: resumed, verified, told about.

A download is ``KEY.part`` and ``KEY.json``: the bytes so far, and which version of the file they
belong to. Both stay when a download ends early, for whatever reason, so the same command goes on
from there. The digest is computed while the bytes arrive; what was there before is read once more.
"""

import errno
import hashlib
import json
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from thinvirt.errors import NoSpace, StoreUnusable, VerificationFailed
from thinvirt.progress import Progress
from thinvirt.store.fetch.http import Answer, Client, Transient, check_url
from thinvirt.store.layout import Layout
from thinvirt.store.locks import take_lock
from thinvirt.store.trouble import FULL, explain_os_error
from thinvirt.units import MIB, format_size
from thinvirt.vm.checksums import Checksum
from thinvirt.vm.cloud_images import file_name_of

RESERVE: Final = 64 * MIB  # left free: a full disk also stops the VMs that run
RESUME_HINT: Final = "what has come so far is kept: the same command goes on from there"
_PROGRESS_MADE: Final = MIB  # a try that brought this much does not count as failed
_READ: Final = MIB


@dataclass(frozen=True, slots=True)
class Fetched:
    """A finished download.

    Attributes:
        path: the file.
        size: in bytes.
        checksum: what it was verified against; without that, the SHA-256 it has.
        verified: whether a checksum had been promised.
    """

    path: Path
    size: int
    checksum: Checksum
    verified: bool


@dataclass(slots=True)
class _Version:
    """Which version of which file a part belongs to; saved beside it."""

    url: str
    checksum: str  # the promised one; empty without
    etag: str = ""
    last_modified: str = ""
    size: int | None = None  # in bytes, of the whole file

    @property
    def validator(self) -> str:
        """What If-Range takes (RFC 9110, 13.1.5): a strong ETag, else the date."""
        strong = self.etag if not self.etag.startswith("W/") else ""
        return strong or self.last_modified

    def save(self, path: Path) -> None:
        """Write it. A crash may tear the file: it is then no JSON, and the part begins anew."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Return what was saved, None if that is nothing usable."""
        try:
            saved = cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        texts = (saved.url, saved.checksum, saved.etag, saved.last_modified)
        sound = all(isinstance(text, str) for text in texts)
        return saved if sound and isinstance(saved.size, int | None) else None


def download_key(url: str) -> str:
    """Return the name of a URL's files in the store: readable, and never the same for two URLs."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", file_name_of(url))[:80].lstrip(".")
    return f"{readable or 'image'}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def fetched_so_far(layout: Layout, url: str) -> int:
    """Return how many bytes of `url` are kept from an unfinished download."""
    try:
        return layout.download_part(download_key(url)).stat().st_size
    except OSError:
        return 0


def require_room(folder: Path, size: int, *, kept: str) -> None:
    """Make sure that `size` more bytes fit into the file system of `folder`.

    Raises:
        NoSpace: they do not; `kept` says what becomes of what is there.
    """
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < size + RESERVE:
        raise NoSpace(
            f"{format_size(size)} more are needed in {folder}, {format_size(free)} are free "
            f"and {format_size(RESERVE)} of these stay free",
            hint=f"thinvirt df shows who uses the store; {kept}",
        )


class Download:
    """The download of one URL; a context manager that holds its lock.

    Args:
        layout: of the store that takes the file.
        client: makes the requests.
        url: http or https.
        checksum: what the file has to have; None takes anything.

    Raises:
        Busy: another process fetches the same URL.
    """

    def __init__(self, layout: Layout, client: Client, url: str, checksum: Checksum | None) -> None:
        check_url(url)
        self._layout = layout
        self._client = client
        self._url = url
        self._promised = checksum
        self._key = download_key(url)
        self._part = layout.download_part(self._key)
        self._version = _Version(url, str(checksum or ""))
        self._hash = hashlib.new(self._algorithm)
        self._at = 0  # bytes that are in the part, and in the hash
        self._shown = -1  # bytes that the bar for `_shown_total` has been told of
        self._shown_total: int | None = None
        self._fd = -1
        try:
            layout.downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
            layout.locks.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = take_lock(
                layout.download_lock(self._key),
                "thinvirt template pull",
                what=f"the download of {url}",
            )
        except OSError as error:
            raise explain_os_error(error, layout.home) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        if not fetched_so_far(self._layout, self._url):
            self._part.unlink(missing_ok=True)  # nothing came: nothing to go on from
        self._lock.release()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def unpacked(self) -> Path:
        """Where the image inside a compressed download may be put; removed by `forget`."""
        return self._layout.download_unpacked(self._key)

    def fetch(self, progress: Progress) -> Fetched:
        """Fetch the file, or what is missing of it, and verify it.

        Raises:
            VerificationFailed: it is not the file promised, and has been removed.
            NoSpace: the file system has not enough room; what has come is kept.
            Transient: the network failed `Timing.tries` times in a row; what has come is kept.
            NotFound, TemporaryFailure: what `Client.get` raises.
        """
        try:
            resumed = self._take_up(progress)
            self._complete(progress)
            if resumed and not self._as_promised():
                # The part may be to blame: damaged on this disk, or of a file since replaced.
                self._start_over()
                self._complete(progress)
        except OSError as error:
            raise self._explain(error) from error
        finally:
            self._close()
        checksum = Checksum(self._algorithm, self._hash.hexdigest())
        if not self._as_promised():
            size = format_size(self._at)
            self.forget()
            raise VerificationFailed(
                f"{self._url} is not the file its publisher promises: expected {self._promised}, "
                f"got {checksum} ({size}); it has been removed",
                hint="the publisher may be replacing it right now: try again later; if it stays "
                "so, a proxy or mirror changes it, and another network or URL is needed",
            )
        return Fetched(self._part, self._at, checksum, self._promised is not None)

    def forget(self) -> None:
        """Remove everything of this download."""
        for path in (self._part, self.unpacked, self._layout.download_state(self._key)):
            path.unlink(missing_ok=True)

    @property
    def _algorithm(self) -> str:
        return self._promised.algorithm if self._promised else "sha256"

    def _as_promised(self) -> bool:
        return self._promised is None or self._hash.hexdigest() == self._promised.hexadecimal

    def _explain(self, error: OSError) -> NoSpace | Exception:
        if error.errno in FULL:
            return NoSpace(
                f"no space left in {self._layout.downloads} after {format_size(self._at)}",
                hint=f"thinvirt df shows who uses the store; {RESUME_HINT}",
            )
        if error.errno == errno.ELOOP:
            return StoreUnusable("is a symbolic link, not a download", path=self._part)
        return explain_os_error(error, self._layout.home)

    # -- what is there already ---------------------------------------------------------------

    def _take_up(self, progress: Progress) -> bool:
        """Open the part, and hash what it has if that can be continued; tell whether it can."""
        self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        saved = _Version.load(self._layout.download_state(self._key))
        same = saved is not None and (saved.url, saved.checksum) == (
            self._version.url,
            self._version.checksum,
        )
        size = os.fstat(self._fd).st_size
        # Without a validator two builds could be mixed: only a checksum would notice.
        if saved is None or not same or not size or not (saved.validator or saved.checksum):
            self._start_over()
            return False
        progress.step("checking what is already here", size, "bytes")
        self._version = saved
        while chunk := os.pread(self._fd, _READ, self._at):
            self._hash.update(chunk)
            self._at += len(chunk)
            progress.advance(len(chunk))
        return True

    def _start_over(self) -> None:
        os.ftruncate(self._fd, 0)
        self._version = _Version(self._url, str(self._promised or ""))
        self._hash = hashlib.new(self._algorithm)
        self._at = 0

    # -- what is missing ---------------------------------------------------------------------

    def _complete(self, progress: Progress) -> None:
        """Request until the file is whole, pausing longer after each failure in a row."""
        if self._promised is not None and self._at and self._at == self._version.size:
            return  # the digest tells whether it is still the right one
        timing, failures = self._client.timing, 0
        while True:
            before = self._at
            try:
                self._request(progress)
            except Transient as error:
                failures = 1 if self._at - before >= _PROGRESS_MADE else failures + 1
                if failures >= timing.tries:
                    raise Transient(
                        f"{error.message}; given up after {failures} tries without progress",
                        hint=RESUME_HINT if self._at else error.hint,
                    ) from error
                time.sleep(timing.pause_before(failures))
            else:
                return

    def _request(self, progress: Progress) -> None:
        """Make one request and take in its body."""
        headers = {}
        if self._at:
            headers["Range"] = f"bytes={self._at}-"
            if self._version.validator:
                headers["If-Range"] = self._version.validator
        with self._client.get(self._url, headers) as answer:
            if answer.status == 416:
                if self._at and answer.content_range.total == self._at:
                    return
                self._start_over()
                raise Transient(f"{self._url}: the file is now shorter than what was fetched of it")
            total = self._whole_size(answer)
            self._version.size = total
            self._version.save(self._layout.download_state(self._key))
            if total is not None:
                require_room(self._part.parent, total - self._at, kept=RESUME_HINT)
            self._show(progress, total)
            for chunk in answer.chunks():
                self._take(chunk)
                self._shown += len(chunk)
                progress.advance(len(chunk))
        if total is not None and self._at != total:
            raise Transient(f"{self._url}: the answer broke off after {format_size(self._at)}")
        self._version.size = self._at
        self._version.save(self._layout.download_state(self._key))

    def _show(self, progress: Progress, total: int | None) -> None:
        """Begin a bar, unless the one that stands there goes on after a failure."""
        if (self._shown, self._shown_total) == (self._at, total):
            return
        anew = " anew" if self._shown > self._at else ""
        progress.step(f"fetching {file_name_of(self._url) or self._url}{anew}", total, "bytes")
        progress.advance(self._at)
        self._shown, self._shown_total = self._at, total

    def _whole_size(self, answer: Answer) -> int | None:
        """Return the size of the whole file; begin anew if this is not the rest of the part."""
        seen = (answer.header("ETag"), answer.header("Last-Modified"))
        if answer.status == 206:
            part, known = answer.content_range, self._version
            changed = (
                part.start != self._at
                or (known.size is not None and part.total not in (None, known.size))
                or (known.etag and seen[0] and seen[0] != known.etag)
            )
            if changed:
                self._start_over()
                raise Transient(f"{self._url}: the file was replaced while it was fetched")
            return part.total if part.total is not None else known.size
        if self._at:
            self._start_over()  # the server knows no ranges, or the file is another now
        self._version.etag, self._version.last_modified = seen
        return answer.length

    def _take(self, chunk: bytes) -> None:
        """Append to the part and the hash together, so that they agree whatever comes."""
        if self._version.size is None:
            require_room(self._part.parent, len(chunk), kept=RESUME_HINT)
        rest = memoryview(chunk)
        while rest:
            written = os.pwrite(self._fd, rest, self._at)
            self._hash.update(rest[:written])
            self._at += written
            rest = rest[written:]
