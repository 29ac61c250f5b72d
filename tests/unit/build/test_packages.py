"""The package cache, with the real apt and dpkg-deb; no archive is reached."""

import json
import subprocess
from pathlib import Path

import pytest

from thinvirt.build.packages import Deb, PackageCache, write_repository
from thinvirt.build.programs import sha256_of
from thinvirt.errors import ProgramMissing, TemporaryFailure, UsageError, VerificationFailed

NOBODY_THERE = "file:/nonexistent/archive"


def make_deb(folder: Path, name: str = "hello") -> Deb:
    tree = folder / f"tree-{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr").mkdir()
    (tree / "usr/file").write_text("content\n")
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: M <m@example.org>\n"
        "Depends: other (= 1)\nDescription: a test\n"
    )
    path = folder / f"{name}_1%3a2.0-1_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tree, path], check=True, capture_output=True
    )
    return Deb(name, "1:2.0-1", path, sha256_of(path))


@pytest.fixture
def cache(tmp_path: Path) -> PackageCache:
    """Return a cache that holds one answered request, and whose archive cannot be reached."""
    folder = tmp_path / "a cache"
    (folder / "debs").mkdir(parents=True)
    deb = make_deb(folder / "debs")
    cache = PackageCache(folder, mirror=NOBODY_THERE)
    question = {"form": 2, "names": ["hello"], "closure": False, "recommends": False}
    from hashlib import sha256

    key = sha256(json.dumps(question).encode()).hexdigest()[:24]
    (folder / "requests").mkdir()
    cache._write_record(folder / f"requests/{key}.json", question, [deb])
    return cache


def test_what_was_answered_before_needs_no_network(cache: PackageCache) -> None:
    (deb,) = cache.fetch(["hello"])
    assert (deb.name, deb.version) == ("hello", "1:2.0-1")
    assert deb.field("Depends") == "other (= 1)"
    assert deb.field("No-Such") == ""


def test_unpacks_only_what_was_fetched(cache: PackageCache, tmp_path: Path) -> None:
    (deb,) = cache.fetch(["hello"])
    deb.unpack(tmp_path / "out")
    assert (tmp_path / "out/usr/file").read_text() == "content\n"
    content = bytearray(deb.path.read_bytes())
    content[-1] ^= 1
    deb.path.write_bytes(content)
    with pytest.raises(VerificationFailed, match="not what was fetched"):
        deb.unpack(tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


@pytest.mark.parametrize("damage", ["gone", "cut", "record"])
def test_asks_again_when_the_cache_is_damaged(cache: PackageCache, damage: str) -> None:
    (deb,) = cache.fetch(["hello"])
    if damage == "gone":
        deb.path.unlink()
    elif damage == "cut":
        deb.path.write_bytes(deb.path.read_bytes()[:-1])
    else:
        next((cache.directory / "requests").iterdir()).write_text("{")
    with pytest.raises(TemporaryFailure, match="fetching packages failed") as caught:
        cache.fetch(["hello"])
    assert "--mirror" in caught.value.hint


def test_refresh_asks_again(cache: PackageCache) -> None:
    cache.refresh = True
    with pytest.raises(TemporaryFailure):
        cache.fetch(["hello"])


def test_refuses_an_archive_that_nobody_signed(tmp_path: Path) -> None:
    suites = tmp_path / "archive/dists"
    for suite in ("bookworm", "bookworm-updates"):
        packages = suites / suite / "main/binary-amd64"
        packages.mkdir(parents=True)
        (packages / "Packages").write_text("Package: busybox\nVersion: 1\nArchitecture: amd64\n")
        (suites / suite / "Release").write_text(f"Suite: {suite}\nComponents: main\n")
    cache = PackageCache(tmp_path / "cache", mirror=f"file:{tmp_path}/archive")
    with pytest.raises(TemporaryFailure, match="not signed"):
        cache.fetch(["busybox"])


def test_names_the_package_of_a_missing_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("thinvirt.build.programs._SYSTEM_PATH", str(tmp_path))
    with pytest.raises(ProgramMissing) as caught:
        PackageCache(tmp_path / "cache").fetch(["busybox"])
    assert caught.value.hint == "apt-get install apt"


def test_a_mirror_is_a_url(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the URL"):
        PackageCache(tmp_path / "cache", mirror="ftp.example.org").fetch(["busybox"])


def test_apt_reads_the_repository_written(tmp_path: Path) -> None:
    debs = [make_deb(tmp_path, "one"), make_deb(tmp_path, "two")]
    write_repository(debs, tmp_path / "repository")
    paragraphs = (tmp_path / "repository/Packages").read_text().split("\n\n")
    assert [p.splitlines()[0] for p in paragraphs] == ["Package: one", "Package: two"]
    listing = _apt_listing(tmp_path, tmp_path / "repository")
    assert f"{debs[0].path.stat().st_size} SHA256:{debs[0].sha256}" in listing


def _apt_listing(folder: Path, repository: Path) -> str:
    """Let the real apt read a repository and say what it would fetch."""
    (folder / "sources.list").write_text(f"deb [trusted=yes] file:{repository} ./\n")
    (folder / "state/lists/partial").mkdir(parents=True)
    (folder / "cache/archives/partial").mkdir(parents=True)
    (folder / "status").touch()
    options = [
        f"Dir::Etc::sourcelist={folder}/sources.list", "Dir::Etc::sourceparts=/dev/null",
        f"Dir::State={folder}/state", f"Dir::Cache={folder}/cache",
        f"Dir::State::status={folder}/status", "APT::Sandbox::User=root",
        "Acquire::ForceHash=SHA256", "APT::Update::Post-Invoke=true",
    ]  # fmt: skip
    command = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    subprocess.run([*command, "update"], check=True, capture_output=True)
    done = subprocess.run(
        [*command, "--print-uris", "download", "one"],
        check=True, capture_output=True, text=True, cwd=folder / "cache",
    )  # fmt: skip
    return done.stdout
