"""`thinvirt template pull` as typed, against HTTPS servers on this machine."""

import hashlib
import json
import lzma
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.http_faults import Authority, Server, cut_after, serving, stall_after, status

from thinvirt.cli.main import main
from thinvirt.store import open_store

DEADLINE_S = 30


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real qcow2 with a megabyte in it."""
    folder = tmp_path_factory.mktemp("image")
    raw = folder / "raw"
    raw.write_bytes(b"\x5a" * (1 << 20) + os.urandom(1 << 20))
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "qcow2"], check=True
    )
    return (folder / "qcow2").read_bytes()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with serving(authority.certificate()) as running:
        yield running


@pytest.fixture
def publish(server: Server, image: bytes, tmp_path: Path) -> Server:
    """A publisher with one image, its sums, and an entry in the user's own catalogue."""
    server.put("/12/disk-12.qcow2", image)
    digest = hashlib.sha512(image).hexdigest()
    server.put("/12/SHA512SUMS", f"{'0' * 128}  other\n{digest}  disk-12.qcow2\n".encode())
    catalogue = tmp_path / "config" / "thinvirt" / "cloud-images.toml"
    catalogue.parent.mkdir(parents=True)
    catalogue.write_text(f"""
[images.house-12]
aliases = ["house"]
os = "House Linux"
release = "12"
base = "{server.url}/12/"
sums = "SHA512SUMS"
files.x86_64 = "disk-12.qcow2"
login_user = "resident"
min_memory_mib = 96
notes = ["mind the step"]
""")
    return server


def pull(*words: str) -> int:
    return main(["template", "pull", "--arch", "x86_64", "--tries", "2", "--timeout", "1", *words])


def told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def fetched_paths(server: Server) -> list[str]:
    return [path for method, path, _ in server.log if method == "GET"]


def test_a_name_becomes_a_verified_template(
    publish: Server, image: bytes, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pull("house", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["name"] == "house-12"
    assert facts["fetched_bytes"] == len(image)
    assert facts["verified"] is True
    store = open_store(home)
    template = store.catalog.find_template("house-12")
    assert store.template_image(template).read_bytes() == image
    assert template.source == f"{publish.url}/12/disk-12.qcow2"
    assert template.facts == {
        "os": "House Linux 12",
        "login_user": "resident",
        "min_memory_mib": 96,
        "architecture": "x86_64",
        "bus": "virtio",
        "pulled_checksum": f"sha512:{hashlib.sha512(image).hexdigest()}",
        "pulled_verified": True,
    }
    assert list(store.layout.downloads.iterdir()) == [], "nothing is left"
    store.close()


def test_what_is_there_is_not_fetched_again(
    publish: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pull("house-12") == 0
    assert "mind the step" in told(capsys)
    publish.log.clear()
    assert pull("house-12") == 0
    assert "template house-12@1: already here, nothing fetched" in capsys.readouterr().out
    assert fetched_paths(publish) == ["/12/SHA512SUMS"]
    assert pull("house-12", "--name", "home") == 0
    assert "template home@1: already here" in capsys.readouterr().out
    assert "/12/disk-12.qcow2" not in fetched_paths(publish)
    store = open_store(home)
    assert [t.ref for t in store.catalog.templates()] == ["home@1", "house-12@1"]
    assert len(list(store.layout.templates.iterdir())) == 1, "one file, two names"
    store.close()


def test_a_new_build_becomes_a_new_version(publish: Server, image: bytes, home: Path) -> None:
    assert pull("house-12") == 0
    newer = image + bytes(65536)
    publish.put("/12/disk-12.qcow2", newer, etag='"2"')
    publish.put("/12/SHA512SUMS", f"{hashlib.sha512(newer).hexdigest()}  disk-12.qcow2".encode())
    assert pull("house-12") == 0
    store = open_store(home)
    assert [t.ref for t in store.catalog.templates()] == ["house-12@2", "house-12@1"]
    store.close()


def test_a_wrong_sum(publish: Server, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish.put("/12/SHA512SUMS", f"{'ab' * 64}  disk-12.qcow2".encode())
    assert pull("house-12") == 8
    assert "expected sha512:abab" in told(capsys)
    store = open_store(home)
    assert store.catalog.templates() == []
    assert list(store.layout.downloads.iterdir()) == []
    store.close()


def test_sums_without_the_image(
    publish: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish.put("/12/SHA512SUMS", f"{'ab' * 64}  disk-13.qcow2".encode())
    assert pull("house-12") == 8
    assert "has no SHA-256 or SHA-512 of disk-12.qcow2" in told(capsys)
    assert fetched_paths(publish) == ["/12/SHA512SUMS"]


def test_an_image_that_is_gone(
    publish: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del publish.files["/12/disk-12.qcow2"]
    assert pull("house-12") == 3
    assert "404" in told(capsys)


def test_the_same_command_goes_on(
    publish: Server, image: bytes, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish.files["/12/disk-12.qcow2"].faults.extend([cut_after(100_000), status(503)])
    assert pull("house-12", "--tries", "1") == 75
    assert "the same command goes on" in told(capsys)
    assert pull("house-12") == 0
    asked = [part for _, path, part in publish.log if path.endswith(".qcow2")]
    assert asked[-1] == "bytes=100000-"


def test_ctrl_c_keeps_what_came_and_says_so(publish: Server, image: bytes, home: Path) -> None:
    publish.files["/12/disk-12.qcow2"].faults.append(stall_after(600_000))
    command = [sys.executable, "-m", "thinvirt", "template", "pull", "house-12", "--arch", "x86_64"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    part = home / "incoming" / "downloads"
    until = time.monotonic() + DEADLINE_S
    while not any(p.stat().st_size for p in part.glob("*.part")) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert "are kept: the same command goes on from there" in complaint
    assert "Traceback" not in complaint
    assert pull("house-12") == 0
    assert publish.log[-1][2].startswith("bytes=")


def test_kill_leaves_a_part_that_is_continued(publish: Server, image: bytes, home: Path) -> None:
    publish.files["/12/disk-12.qcow2"].faults.append(stall_after(600_000))
    command = [sys.executable, "-m", "thinvirt", "template", "pull", "house-12", "--arch", "x86_64"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    part = home / "incoming" / "downloads"
    until = time.monotonic() + DEADLINE_S
    while not any(p.stat().st_size for p in part.glob("*.part")) and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait(DEADLINE_S)
    assert pull("house-12") == 0
    assert publish.log[-1][2].startswith("bytes=")
    assert not list((home / "incoming" / "downloads").iterdir())


# -- URLs ------------------------------------------------------------------------------------


def test_a_url_with_its_digest(server: Server, image: bytes, home: Path) -> None:
    server.put("/My%20Disk.qcow2", image)
    digest = hashlib.sha256(image).hexdigest()
    assert pull(f"{server.url}/My%20Disk.qcow2", "--checksum", f"sha256:{digest}") == 0
    store = open_store(home)
    assert store.catalog.find_template("My-Disk").digest == digest
    store.close()


@pytest.mark.parametrize(
    ("sums_path", "form"),
    [
        ("/SHA256SUMS", "{digest}  disk.img\n"),
        ("/CHECKSUM", "SHA256 (disk.img) = {digest}\n"),
        ("/disk.img.sha256", "{digest}\n"),
        ("/disk.img.sha256", "{digest}  disk-20260101.img\n"),
    ],
)
def test_a_url_with_its_publishers_sums(
    server: Server, image: bytes, home: Path, sums_path: str, form: str
) -> None:
    server.put("/disk.img", image)
    digest = hashlib.sha256(image).hexdigest()
    server.put(sums_path, form.format(digest=digest).encode())
    assert pull(f"{server.url}/disk.img", "--sums", server.url + sums_path) == 0


def test_a_url_without_proof_is_refused_unless_wanted(
    server: Server, image: bytes, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.put("/disk.img", image)
    assert pull(f"{server.url}/disk.img") == 2
    assert "nothing to verify" in told(capsys)
    assert server.log == []
    assert pull(f"{server.url}/disk.img", "--no-verify", "--json") == 0
    out = capsys.readouterr()
    assert "nothing vouches for" in out.err
    assert json.loads(out.out)["facts"]["pulled_verified"] is False


def test_a_page_instead_of_an_image_is_told(
    server: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.put("/disk.img", b"<html>Please log in</html>" * 100)
    assert pull(f"{server.url}/disk.img", "--no-verify") == 0
    assert "no boot record" in told(capsys)


def test_nothing_is_left_of_what_never_came(server: Server, home: Path) -> None:
    assert pull(f"{server.url}/nowhere.img", "--no-verify") == 3
    store = open_store(home)
    assert list(store.layout.downloads.iterdir()) == []
    store.close()


def test_a_harmed_image_is_fetched_again(server: Server, image: bytes, home: Path) -> None:
    server.put("/disk.img", image)
    words = (f"{server.url}/disk.img", "--checksum", "sha256:" + hashlib.sha256(image).hexdigest())
    assert pull(*words) == 0
    store = open_store(home)
    path = store.template_image(store.catalog.find_template("disk"))
    path.unlink()
    path.write_bytes(bytes(len(image)))
    for name in ("other", "disk"):  # neither takes over what is there
        assert pull(*words, "--name", name) == 0
        assert path.read_bytes() == image
    store.close()


def test_http_is_taken_if_the_digest_is_known_otherwise(image: bytes, home: Path) -> None:
    with serving() as plain:
        plain.put("/disk.img", image)
        digest = hashlib.sha256(image).hexdigest()
        assert pull(f"{plain.url}/disk.img", "--checksum", digest) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["file:///etc/passwd", "--no-verify"],
        ["https://127.0.0.1:1/x.img", "--sums", "http://127.0.0.1:1/SHA256SUMS"],
        ["https://127.0.0.1:1/x.img", "--checksum", "md5:abc"],
        ["https://127.0.0.1:1/x.img", "--checksum", "a" * 64, "--no-verify"],
        ["https://127.0.0.1:1/", "--no-verify"],
        ["debian-12", "--no-verify"],
        ["debian-12", "--name", "a b"],
        ["debian-12", "--tries", "0"],
        [],
    ],
)
def test_wrong_requests(home: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert pull(*words) == 2
    assert "hint" in told(capsys) or "tries" in " ".join(words)
    assert not home.exists()


def test_a_hostile_image_is_refused_and_not_kept(
    server: Server, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = tmp_path / "evil.qcow2"
    subprocess.run(
        [
            "qemu-img",
            "create",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            "/etc/passwd",
            evil,
            "1M",
        ],
        check=True,
    )
    server.put("/evil.qcow2", evil.read_bytes())
    assert pull(f"{server.url}/evil.qcow2", "--no-verify") == 6
    assert "/etc/passwd" in told(capsys)
    assert list((home / "incoming" / "downloads").iterdir()) == []


def test_a_compressed_image_is_unpacked(
    server: Server, image: bytes, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = lzma.compress(image)
    server.put("/disk.qcow2.xz", packed)
    digest = hashlib.sha256(packed).hexdigest()
    for _ in range(2):
        assert pull(f"{server.url}/disk.qcow2.xz", "--checksum", f"sha256:{digest}") == 0
    assert "disk@1: already here" in capsys.readouterr().out
    assert fetched_paths(server) == ["/disk.qcow2.xz"]
    store = open_store(home)
    assert store.template_image(store.catalog.find_template("disk")).read_bytes() == image
    assert list(store.layout.downloads.iterdir()) == []
    store.close()


# -- the catalogue ---------------------------------------------------------------------------


def test_the_newest_build_is_found_by_its_index(
    server: Server, image: bytes, home: Path, tmp_path: Path
) -> None:
    server.put("/c/", b'<a href="d-1.9.img">o</a><a href="d-1.10.img">n</a><a href="e-2.img">e</a>')
    server.put("/c/d-1.10.img", image)
    server.put("/c/d-1.10.img.sha256", hashlib.sha256(image).hexdigest().encode())
    own = tmp_path / "config" / "thinvirt" / "cloud-images.toml"
    own.parent.mkdir(parents=True)
    own.write_text(rf"""
[images.d]
os = "D"
release = "1"
base = "{server.url}/c/"
index = "{server.url}/c/"
sums = "{{file}}.sha256"
sums_kind = "single"
patterns.x86_64 = 'd-1\.\d+\.img'
login_user = "d"
min_memory_mib = 64
""")
    assert pull("d") == 0
    assert fetched_paths(server)[-1] == "/c/d-1.10.img"


def test_oracles_form_names_file_folder_and_digest(
    server: Server, image: bytes, home: Path, tmp_path: Path
) -> None:
    page = {
        "base_url": "/templates/u5",
        "kvm": {"image": "O-b9.qcow2", "sha256": hashlib.sha256(image).hexdigest()},
    }
    server.put("/templates/o.json", json.dumps(page).encode())
    server.put("/templates/u5/O-b9.qcow2", image)
    own = tmp_path / "config" / "thinvirt" / "cloud-images.toml"
    own.parent.mkdir(parents=True)
    own.write_text(rf"""
[images.o]
os = "O"
release = "9"
base = "{server.url}/templates/"
sums = "o.json"
sums_kind = "image-json"
patterns.x86_64 = 'O-b\d+\.qcow2'
login_user = "o"
min_memory_mib = 64
""")
    assert pull("o") == 0
    assert fetched_paths(server)[-1] == "/templates/u5/O-b9.qcow2"


def test_list_dry_run_and_commands(
    publish: Server, image: bytes, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["template", "pull", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "architecture", "url", "login_user"} <= rows[0].keys()
    assert "house-12" in {row["name"] for row in rows}
    assert main(["template", "pull", "--list"]) == 0
    assert "House Linux 12" in capsys.readouterr().out
    assert pull("house", "--dry-run") == 0
    assert f"{publish.url}/12/SHA512SUMS" in capsys.readouterr().out
    assert publish.log == []
    assert pull("house", "--print-command", "curl") == 0
    out = capsys.readouterr().out
    assert f"{publish.url}/12/disk-12.qcow2 &&" in out
    assert f"{hashlib.sha512(image).hexdigest()}  disk-12.qcow2' | sha512sum --check &&" in out
    assert fetched_paths(publish) == ["/12/SHA512SUMS"]
    assert not home.exists()


def test_check_catalogue_finds_what_moved(
    publish: Server, image: bytes, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pull("house", "--check-catalogue", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["ok"], row["size_bytes"]) == (True, len(image))
    assert "/12/disk-12.qcow2" not in fetched_paths(publish), "only asked for, not fetched"
    del publish.files["/12/disk-12.qcow2"]
    assert pull("house", "--check-catalogue") == 1
    assert "does not exist" in capsys.readouterr().out


def test_a_mistake_in_ones_own_catalogue_is_told(
    publish: Server, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "config" / "thinvirt" / "cloud-images.toml"
    own.write_text(own.read_text().replace("login_user", "loginuser"))
    assert pull("house") == 2
    assert f"{own}: images.house-12.login_user is missing" in told(capsys)
