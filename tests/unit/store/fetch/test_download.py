"""Downloads from real servers that break, lie and come back."""

import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.http_faults import Authority, Server, cut_after, serving, stall_after, status

from thinvirt.errors import (
    Busy,
    NoSpace,
    NotFound,
    TemporaryFailure,
    UsageError,
    VerificationFailed,
)
from thinvirt.progress import Silent
from thinvirt.store.fetch import download as download_module
from thinvirt.store.fetch.download import Download, Fetched, download_key, fetched_so_far
from thinvirt.store.fetch.http import Client, Timing, Transient
from thinvirt.store.layout import Layout
from thinvirt.vm.checksums import Checksum

BODY = random.Random(1).randbytes(3 << 20)
SUM = Checksum("sha256", hashlib.sha256(BODY).hexdigest())
QUICK = Timing(connect_s=5, stall_s=0.3, tries=3, pause_s=0.01)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving() as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


class Told(Silent):
    """A progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None]] = []
        self.done = 0

    def step(self, title: str, total: int | None = None, unit: str = "") -> None:
        assert unit == "bytes"
        self.steps.append((title, total))
        self.done = 0

    def advance(self, amount: int) -> None:
        self.done += amount


def fetch(
    layout: Layout,
    url: str,
    checksum: Checksum | None = SUM,
    progress: Told | None = None,
    timing: Timing = QUICK,
) -> Fetched:
    with Download(layout, Client(timing), url, checksum) as download:
        return download.fetch(progress or Told())


def ranges(server: Server) -> list[str]:
    return [asked for _, _, asked in server.log]


def interrupt_after(layout: Layout, server: Server, path: str, size: int) -> None:
    """Leave a part of `size` bytes, as a download that was given up does."""
    server.files[path].faults.append(cut_after(size))
    with pytest.raises(Transient):
        fetch(layout, server.url + path, timing=Timing(tries=1, stall_s=2))
    assert fetched_so_far(layout, server.url + path) == size


def test_whole_file_arrives_verified_and_is_told(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY)
    told = Told()
    result = fetch(layout, f"{server.url}/disk.img", progress=told)
    assert result.path.read_bytes() == BODY
    assert (result.size, result.checksum, result.verified) == (len(BODY), SUM, True)
    assert told.steps == [("fetching disk.img", len(BODY))]
    assert told.done == len(BODY)
    assert not list(layout.locks.iterdir())


def test_sha512_and_no_promise_at_all(server: Server, layout: Layout) -> None:
    server.put("/a", BODY)
    strong = Checksum("sha512", hashlib.sha512(BODY).hexdigest())
    assert fetch(layout, f"{server.url}/a", strong).verified
    server.put("/b", BODY)
    assert fetch(layout, f"{server.url}/b", None) == Fetched(
        layout.download_part(download_key(f"{server.url}/b")), len(BODY), SUM, False
    )


def test_an_answer_cut_short_is_continued_in_the_same_run(server: Server, layout: Layout) -> None:
    file = server.put("/disk.img", BODY)
    file.faults.extend([cut_after(2 << 20), cut_after(1000)])
    told = Told()
    assert fetch(layout, f"{server.url}/disk.img", progress=told).path.read_bytes() == BODY
    assert told.steps == [("fetching disk.img", len(BODY))], "one bar, which goes on"
    assert told.done == len(BODY)
    assert ranges(server)[:2] == ["", f"bytes={2 << 20}-"]
    assert len(server.log) == 3


def test_a_later_run_goes_on_where_the_last_ended(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY)
    interrupt_after(layout, server, "/disk.img", 2_000_000)
    server.log.clear()
    told = Told()
    assert fetch(layout, f"{server.url}/disk.img", progress=told).path.read_bytes() == BODY
    assert ranges(server) == ["bytes=2000000-"]
    assert [title for title, _ in told.steps] == [
        "checking what is already here",
        "fetching disk.img",
    ]
    assert told.done == len(BODY), "the bar counts what was there"


def test_last_modified_serves_where_there_is_no_strong_etag(server: Server, layout: Layout) -> None:
    date = "Sat, 01 Aug 2026 10:00:00 GMT"
    file = server.put("/disk.img", BODY, etag='W/"weak"', last_modified=date)
    interrupt_after(layout, server, "/disk.img", 1_000_000)
    assert fetch(layout, f"{server.url}/disk.img").path.read_bytes() == BODY
    assert ranges(server)[-1] == "bytes=1000000-"
    assert file.last_modified == date


def test_a_server_without_ranges_makes_it_start_over(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY, ranges=False)
    interrupt_after(layout, server, "/disk.img", 900_000)
    server.files["/disk.img"].faults.append(cut_after(1_000_000))
    told = Told()
    assert fetch(layout, f"{server.url}/disk.img", progress=told).path.read_bytes() == BODY
    assert [title for title, _ in told.steps][-1] == "fetching disk.img anew"
    assert told.done == len(BODY)


def test_a_changed_file_makes_it_start_over(server: Server, layout: Layout) -> None:
    file = server.put("/disk.img", b"old" * 1_000_000)
    interrupt_after(layout, server, "/disk.img", 1_000_000)
    file.body, file.etag = BODY, '"2"'
    assert fetch(layout, f"{server.url}/disk.img").path.read_bytes() == BODY


def test_a_changed_file_behind_a_server_that_ignores_if_range(
    server: Server, layout: Layout
) -> None:
    file = server.put("/disk.img", b"old" * 1_000_000, etag="")
    interrupt_after(layout, server, "/disk.img", 1_000_000)
    file.body = BODY  # no validator: the mixture has the wrong digest, and that is noticed
    assert fetch(layout, f"{server.url}/disk.img").path.read_bytes() == BODY


def test_a_file_that_shrank_makes_it_start_over(server: Server, layout: Layout) -> None:
    file = server.put("/disk.img", BODY + BODY, etag="")
    interrupt_after(layout, server, "/disk.img", len(BODY) + 5)
    file.body = BODY
    assert fetch(layout, f"{server.url}/disk.img").path.read_bytes() == BODY


def test_a_part_of_another_promise_is_not_continued(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY)
    server.files["/disk.img"].faults.append(cut_after(5000))
    with pytest.raises(Transient):
        fetch(
            layout, f"{server.url}/disk.img", Checksum("sha256", "0" * 64), timing=Timing(tries=1)
        )
    server.log.clear()
    fetch(layout, f"{server.url}/disk.img")
    assert ranges(server) == [""]


def test_a_part_damaged_on_disk_is_fetched_again(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY)
    interrupt_after(layout, server, "/disk.img", 2_000_000)
    with layout.download_part(download_key(f"{server.url}/disk.img")).open("r+b") as part:
        part.write(b"damage")
    assert fetch(layout, f"{server.url}/disk.img").path.read_bytes() == BODY


@pytest.mark.parametrize("content", ["", "{", '{"surprise": 1}', "[]", '{"url": 1, "checksum": 2}'])
def test_a_torn_state_file_only_costs_the_part(
    server: Server, layout: Layout, content: str
) -> None:
    server.put("/disk.img", BODY)
    interrupt_after(layout, server, "/disk.img", 1_000_000)
    layout.download_state(download_key(f"{server.url}/disk.img")).write_text(content)
    assert fetch(layout, f"{server.url}/disk.img").path.read_bytes() == BODY


def test_a_whole_part_needs_no_request(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY)
    fetch(layout, f"{server.url}/disk.img")
    server.log.clear()
    assert fetch(layout, f"{server.url}/disk.img").path.read_bytes() == BODY
    assert server.log == []


def test_a_whole_part_without_promise_is_asked_about(server: Server, layout: Layout) -> None:
    file = server.put("/disk.img", BODY)
    fetch(layout, f"{server.url}/disk.img", None)
    assert fetch(layout, f"{server.url}/disk.img", None).size == len(BODY)
    file.body, file.etag = b"another", '"2"'
    assert fetch(layout, f"{server.url}/disk.img", None).path.read_bytes() == b"another"


def test_wrong_file_is_removed_and_both_digests_are_told(server: Server, layout: Layout) -> None:
    wrong = Checksum("sha256", "ab" * 32)
    server.put("/disk.img", BODY)
    with pytest.raises(VerificationFailed) as caught:
        fetch(layout, f"{server.url}/disk.img", wrong)
    assert caught.value.exit_status == 8
    assert str(wrong) in caught.value.message
    assert str(SUM) in caught.value.message
    assert list(layout.downloads.iterdir()) == []


def test_missing_file(server: Server, layout: Layout) -> None:
    with pytest.raises(NotFound, match=r"/none\.img does not exist \(HTTP 404\)"):
        fetch(layout, f"{server.url}/none.img")
    assert len(server.log) == 1, "asking again would not help"


@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_a_server_in_trouble_is_asked_again(server: Server, layout: Layout, code: int) -> None:
    server.put("/disk.img", BODY).faults.extend([status(code), status(code)])
    assert fetch(layout, f"{server.url}/disk.img").size == len(BODY)


def test_a_server_that_stays_in_trouble_is_given_up(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY).faults.extend([status(503)] * 9)
    with pytest.raises(TemporaryFailure, match=r"503.*given up after 3 tries") as caught:
        fetch(layout, f"{server.url}/disk.img")
    assert caught.value.exit_status == 75
    assert len(server.log) == 3


def test_refused_is_not_asked_again(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY).faults.append(status(403))
    with pytest.raises(TemporaryFailure, match="HTTP 403"):
        fetch(layout, f"{server.url}/disk.img")
    assert len(server.log) == 1


def test_a_stalled_server_counts_as_dead_and_what_came_is_kept(
    server: Server, layout: Layout
) -> None:
    server.put("/disk.img", BODY).faults.extend([stall_after(300 << 10)] * 3)
    with pytest.raises(Transient, match=r"nothing came for 0\.30 s") as caught:
        fetch(layout, f"{server.url}/disk.img")
    assert "same command" in caught.value.hint
    assert fetched_so_far(layout, f"{server.url}/disk.img") >= 256 << 10
    assert fetch(layout, f"{server.url}/disk.img").path.read_bytes() == BODY


def test_nobody_there(layout: Layout, server: Server) -> None:
    address = server.url
    server.server_close()
    with pytest.raises(Transient, match=r"no connection to 127\.0\.0\.1"):
        fetch(layout, f"{address}/disk.img", timing=Timing(tries=2, pause_s=0.01))


def test_an_answer_without_length(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY, length=False)
    assert fetch(layout, f"{server.url}/disk.img").path.read_bytes() == BODY


def test_redirects_are_followed(server: Server, layout: Layout) -> None:
    server.put("/latest", b"", redirect="/builds/7")
    server.put("/builds/7", BODY)
    assert fetch(layout, f"{server.url}/latest").size == len(BODY)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "https://", "http://[", ""])
def test_redirects_lead_to_the_web_only(server: Server, layout: Layout, target: str) -> None:
    server.put("/a", b"", redirect=target or " ")
    with pytest.raises(TemporaryFailure, match="which is no http or https URL"):
        fetch(layout, f"{server.url}/a")


def test_redirects_end(server: Server, layout: Layout) -> None:
    server.put("/a", b"", redirect="/b")
    server.put("/b", b"", redirect="/a")
    with pytest.raises(TemporaryFailure, match="redirects more than"):
        fetch(layout, f"{server.url}/a")


def test_another_process_at_the_same_url_is_named(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY)
    url = f"{server.url}/disk.img"
    with (
        Download(layout, Client(QUICK), url, SUM),
        pytest.raises(Busy, match=f"process {os.getpid()} \\(thinvirt template pull\\)"),
    ):
        fetch(layout, url)


def test_room_is_asked_for_before_the_first_byte(
    server: Server, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "RESERVE", 1 << 60)
    server.put("/disk.img", BODY)
    with pytest.raises(NoSpace, match=r"3 MiB more are needed") as caught:
        fetch(layout, f"{server.url}/disk.img")
    assert "kept" in caught.value.hint
    assert fetched_so_far(layout, f"{server.url}/disk.img") == 0


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "/a/path", "https://", "x"])
def test_other_than_http_is_refused(layout: Layout, url: str) -> None:
    with pytest.raises(UsageError, match="no http or https URL"):
        fetch(layout, url)


def test_an_interrupted_download_keeps_what_came(server: Server, layout: Layout) -> None:
    class Interrupting(Told):
        def advance(self, amount: int) -> None:
            super().advance(amount)
            if self.done > 1 << 20:
                raise KeyboardInterrupt

    server.put("/disk.img", BODY)
    with pytest.raises(KeyboardInterrupt):
        fetch(layout, f"{server.url}/disk.img", progress=Interrupting())
    kept = fetched_so_far(layout, f"{server.url}/disk.img")
    assert kept > 1 << 20
    server.log.clear()
    assert fetch(layout, f"{server.url}/disk.img").path.read_bytes() == BODY
    assert ranges(server) == [f"bytes={kept}-"]


def test_a_link_in_place_of_the_part_is_refused(
    server: Server, layout: Layout, tmp_path: Path
) -> None:
    server.put("/disk.img", BODY)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    layout.downloads.mkdir(parents=True)
    layout.download_part(download_key(f"{server.url}/disk.img")).symlink_to(victim)
    with pytest.raises(Exception, match="symbolic link"):
        fetch(layout, f"{server.url}/disk.img")
    assert victim.read_text() == "precious"


def test_the_state_says_which_version_the_part_is_of(server: Server, layout: Layout) -> None:
    server.put("/disk.img", BODY)
    interrupt_after(layout, server, "/disk.img", 1000)
    state = json.loads(layout.download_state(download_key(f"{server.url}/disk.img")).read_text())
    assert state == {
        "url": f"{server.url}/disk.img",
        "checksum": str(SUM),
        "etag": '"1"',
        "last_modified": "",
        "size": len(BODY),
    }


# -- TLS -------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_https_with_a_trusted_certificate(
    layout: Layout, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with serving(authority.certificate()) as secure:
        secure.put("/disk.img", BODY)
        assert fetch(layout, f"{secure.url}/disk.img").size == len(BODY)


def test_https_with_a_certificate_nobody_vouches_for(layout: Layout, authority: Authority) -> None:
    with serving(authority.certificate()) as secure:
        secure.put("/disk.img", BODY)
        with pytest.raises(TemporaryFailure, match=r"certificate of 127\.0\.0\.1 is not") as caught:
            fetch(layout, f"{secure.url}/disk.img")
        assert "SSL_CERT_FILE" in caught.value.hint
        assert secure.log == []


def test_a_redirect_never_gives_up_tls(
    layout: Layout, authority: Authority, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    server.put("/disk.img", BODY)
    with serving(authority.certificate()) as secure:
        secure.put("/disk.img", b"", redirect=f"{server.url}/disk.img")
        with pytest.raises(TemporaryFailure, match="gives up TLS"):
            fetch(layout, f"{secure.url}/disk.img")
    assert server.log == []


def test_a_proxy_is_used_and_no_proxy_honoured(
    layout: Layout, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asked as a proxy, the server gets whole URLs: that is how it knows.
    server.files["http://images.invalid/disk.img"] = server.put("/x", BODY)
    monkeypatch.setenv("http_proxy", server.url)
    assert fetch(layout, "http://images.invalid/disk.img").size == len(BODY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.put("/direct", BODY)
    fetch(layout, f"{server.url}/direct")
    assert server.log[-1][1] == "/direct"


def test_https_goes_through_a_proxy_that_wants_a_login(
    layout: Layout, authority: Authority, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setenv("https_proxy", server.url.replace("//", "//me:secret@"))
    with serving(authority.certificate()) as secure:
        secure.put("/disk.img", BODY)
        assert fetch(layout, f"{secure.url}/disk.img").size == len(BODY)
        assert server.log[0] == (
            "CONNECT",
            secure.url.removeprefix("https://"),
            "Basic bWU6c2VjcmV0",
        )


def test_a_proxy_that_is_not_there_is_told(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setenv("https_proxy", server.url)
    server.server_close()
    with pytest.raises(Transient, match="through the proxy"):
        fetch(layout, "https://images.invalid/disk.img", timing=Timing(tries=1))


# -- texts -----------------------------------------------------------------------------------


def test_a_text_is_bounded(server: Server) -> None:
    server.put("/SHA256SUMS", b"x" * (5 << 20))
    with pytest.raises(TemporaryFailure, match="larger than 4 MiB"):
        Client(QUICK).text(f"{server.url}/SHA256SUMS")


def test_a_text_is_asked_for_again(server: Server) -> None:
    server.put("/SHA256SUMS", b"sums").faults.extend([status(503), cut_after(2)])
    assert Client(QUICK).text(f"{server.url}/SHA256SUMS") == "sums"
