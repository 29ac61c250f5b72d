"""The catalogue's form: ours and people's own."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from thinvirt.errors import NotFound, UsageError
from thinvirt.store.image_catalogue import OURS, catalogue_files, load_catalogue
from thinvirt.vm.cloud_images import ARCHITECTURES, find, merge, parse_catalogue

HERE = Path("mine.toml")

ENTRY = """
[images.mine]
aliases = ["my"]
os = "Mine"
release = "1"
base = "https://example.org/{arch}/"
sums = "SHA256SUMS"
files.x86_64 = "mine-amd64.img"
login_user = "me"
min_memory_mib = 64
"""


# -- ours ------------------------------------------------------------------------------------


def test_our_catalogue_is_well_formed() -> None:
    images = load_catalogue([OURS])
    assert len({image.name for image in images}) >= 25
    for image in images:
        assert image.architecture in ARCHITECTURES
        assert urlsplit(image.sums_url).scheme == "https", image
        assert urlsplit(image.url).scheme == "https", image
        assert "{" not in image.url + image.sums_url.replace("{file}", ""), image
        assert bool(image.file) != bool(image.pattern), image
        assert 64 <= image.min_memory_mib <= 4096, image
        assert image.login_user, image


def test_our_catalogue_has_the_systems_people_ask_for() -> None:
    images = load_catalogue([OURS])
    for name in (
        "cirros", "debian", "debian-11", "debian-12", "debian-13", "ubuntu", "ubuntu-24.04",
        "fedora", "centos-stream-9", "centos-stream-10", "rocky", "almalinux", "opensuse",
        "alpine", "arch", "oraclelinux", "freebsd",
    ):  # fmt: skip
        assert find(images, name, "x86_64")


def test_no_alias_of_ours_means_two_entries() -> None:
    images = parse_catalogue(OURS.read_text(), OURS)
    owners: dict[str, str] = {}
    names = {image.name for image in images}
    for image in images:
        for alias in image.aliases:
            assert alias not in names
            assert owners.setdefault(alias, image.name) == image.name


# -- the user's ------------------------------------------------------------------------------


def test_an_entry_is_read() -> None:
    (image,) = parse_catalogue(ENTRY, HERE)
    assert image.url == "https://example.org/x86_64/mine-amd64.img"
    assert image.sums_url == "https://example.org/x86_64/SHA256SUMS"
    assert image.guest_facts() == {
        "os": "Mine 1",
        "login_user": "me",
        "min_memory_mib": 64,
        "architecture": "x86_64",
        "bus": "virtio",
    }


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("release = ", "relaese = "), "images.mine.release is missing"),
        (('os = "Mine"', "os = 7"), "images.mine.os must be a text"),
        (("login_user", "colour = 1\nlogin_user"), "images.mine.colour is no key"),
        (("= 64", '= "64"'), "images.mine.min_memory_mib must be a whole number"),
        (("= 64", "= true"), "images.mine.min_memory_mib must be a whole number"),
        (("https://example.org", "ftp://example.org"), "images.mine.base is 'ftp://"),
        (("https://example.org", "https://[x"), "images.mine.base is 'https://[x"),
        (('"SHA256SUMS"', '"https://[x/"'), "images.mine.sums must be an https"),
        (("https://example.org", "http://example.org"), "images.mine.sums must be an https"),
        (("{arch}/", "{arch}"), "images.mine.base must end with a slash"),
        (("files.x86_64", "files.vax"), "images.mine.files.vax is no architecture"),
        (("files.x86_64", "checksums.x86_64"), "images.mine.files or patterns must be there"),
        (("files.x86_64 = ", "patterns.x86_64 = '['\n#"), "patterns.x86_64 is no regular"),
        (("login_user", "checksums.x86_64 = 'md5:00'\nlogin_user"), "checksums.x86_64 is no che"),
        (("login_user", "sums_kind = 'magic'\nlogin_user"), "images.mine.sums_kind is 'magic'"),
        (("login_user", "bus = 'floppy'\nlogin_user"), "images.mine.bus is 'floppy'"),
        (('["my"]', '"my"'), "images.mine.aliases must be a list of texts"),
        (("[images.mine]", "[images.'a b']"), "images.a b cannot be a template's name"),
        (("[images.mine]", "[[images.mine]]"), "images.mine must be a table"),
        (("[images.mine]", "[mine]"), "'mine' means nothing"),
        (("[images.mine]", "[images.mine"), "not valid TOML"),
    ],
)
def test_a_mistake_is_told_with_file_entry_and_key(change: tuple[str, str], complaint: str) -> None:
    assert change[0] in ENTRY
    with pytest.raises(UsageError) as caught:
        parse_catalogue(ENTRY.replace(*change), HERE)
    assert complaint in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_sums_named_after_an_unknown_file_need_an_index() -> None:
    text = ENTRY.replace("files.x86_64 = ", "patterns.x86_64 = ").replace(
        '"SHA256SUMS"', '"{file}.sha256"'
    )
    with pytest.raises(UsageError, match=r"images\.mine\.index is missing"):
        parse_catalogue(text, HERE)


def test_an_image_may_come_without_tls_if_its_sums_do_not() -> None:
    text = ENTRY.replace("https://example.org", "http://example.org").replace(
        '"SHA256SUMS"', '"https://example.org/SHA256SUMS"'
    )
    assert parse_catalogue(text, HERE)[0].url.startswith("http://")


def test_a_later_file_replaces_an_entry_and_takes_an_alias() -> None:
    theirs = parse_catalogue(ENTRY, HERE)
    text = ENTRY.replace("images.mine", "images.other").replace('"1"', '"2"')
    both = merge([theirs, parse_catalogue(text, HERE)])
    assert find(both, "my", "x86_64").name == "other"
    assert find(both, "mine", "x86_64").aliases == ()
    replaced = merge([theirs, parse_catalogue(ENTRY.replace('"1"', '"9"'), HERE)])
    assert [image.release for image in replaced] == ["9"]


def test_files_are_read_in_their_order(tmp_path: Path) -> None:
    config = tmp_path / "thinvirt"
    config.mkdir()
    (config / "cloud-images.toml").write_text(ENTRY.replace("images.mine", "images.cirros"))
    files = catalogue_files({"XDG_CONFIG_HOME": str(tmp_path)})
    assert find(load_catalogue(files), "cirros", "x86_64").os == "Mine"


def test_an_unreadable_catalogue_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"x\.toml: the catalogue cannot be read"):
        load_catalogue([file])


def test_finding() -> None:
    images = load_catalogue([OURS])
    assert find(images, "debian:12", "x86_64").name == "debian-12"
    assert find(images, "rocky-9", "x86_64").guest_facts()["min_cpu"] == "x86-64-v2"
    assert "min_cpu" not in find(images, "rocky-9", "aarch64").guest_facts()
    assert find(images, "ubuntu-noble", "aarch64").release == "24.04"
    with pytest.raises(NotFound, match="no 'arch' for aarch64"):
        find(images, "arch", "aarch64")
    with pytest.raises(NotFound) as caught:
        find(images, "debiam-12", "x86_64")
    assert "debian-12" in caught.value.hint
