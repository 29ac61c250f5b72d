"""What is booted from an installation tree or disc."""

import subprocess
from pathlib import Path

import pytest

from thinvirt.errors import NotFound, UsageError
from thinvirt.service.locations import Location, NotAnInstaller, find_boot_files
from thinvirt.vm.install_trees import PLACES, boot_files

TREEINFO = """[general]
family = Fedora
version = 40
[images-x86_64]
kernel = images/k
initrd = images/i
"""


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def disc(folder: Path, *options: str) -> Path:
    iso = folder.with_suffix(".iso")
    subprocess.run(["genisoimage", "-quiet", *options, "-o", iso, folder], check=True)
    return iso


@pytest.mark.parametrize(("kernel", "initrd"), PLACES)
def test_known_places_are_looked_at(tmp_path: Path, kernel: str, initrd: str) -> None:
    found = find_boot_files(Location(str(tree(tmp_path / "tree", kernel, initrd))))
    assert (found.kernel, found.initrd, found.is_disc) == (kernel, initrd, False)


def test_a_tree_says_so_itself() -> None:
    """What it names goes before places that are known, if it is there and inside."""
    assert boot_files(lambda _: True, TREEINFO) == ("images/k", "images/i")
    assert boot_files(lambda _: False, TREEINFO) is None
    for outside in ("../k", "/k", "a/../../k"):
        said = TREEINFO.replace("images/k", outside)
        assert boot_files(lambda _: True, said) == PLACES[0]
    for broken in ("no section", "[images-x86_64]\nkernel", "[images-x86_64]\nkernel=k", "%"):
        assert boot_files(lambda _: True, broken) == PLACES[0]


@pytest.mark.parametrize("options", [("-R",), ("-J",), ("-R", "-J"), ()])
def test_a_disc_is_read_by_each_of_its_directories(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    names = ("install.amd/vmlinuz", "install.amd/initrd.gz")
    if not options:  # plain ISO 9660: names have eight and three characters, and no dots in folders
        names = ("casper/vmlinuz", "casper/initrd")
    iso = disc(tree(tmp_path / "tree", *names), *options)
    found = find_boot_files(Location(str(iso)))
    assert (found.kernel, found.initrd) == names
    found.copy(tmp_path / "k", tmp_path / "i")
    assert [(tmp_path / name).read_text() for name in "ki"] == list(names)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600


def test_named_files_are_taken(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree", "a/k", "a/i")
    for place in (root, disc(root, "-R")):
        found = find_boot_files(Location(str(place), "a/k", "/a/i"))
        assert (found.kernel, found.initrd) == ("a/k", "a/i")
        with pytest.raises(NotFound, match="there is no 'a/x'"):
            find_boot_files(Location(str(place), "a/k", "a/x"))
        with pytest.raises(NotFound, match=r"there is no '\.\./"):
            find_boot_files(Location(str(place), "../tree/a/k", "a/i"))
        with pytest.raises(NotAnInstaller, match="no installer's kernel"):
            find_boot_files(Location(str(place)))


def test_what_is_no_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no disc")
    with pytest.raises(NotAnInstaller, match="neither a folder nor a disc"):
        find_boot_files(Location(str(tmp_path / "text")))
    with pytest.raises(NotFound, match="there is no"):
        find_boot_files(Location(str(tmp_path / "nothing")))
    with pytest.raises(UsageError, match="read from this host"):
        find_boot_files(Location("https://deb.debian.org/debian"))
    with pytest.raises(UsageError, match="go together"):
        find_boot_files(Location(str(tmp_path), kernel="k"))


def test_a_disc_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """Wherever it is cut, it is read whole or refused."""
    root = tree(tmp_path / "tree", "casper/vmlinuz", "casper/initrd")
    (root / "casper" / "initrd").write_bytes(bytes(100_000))
    iso = disc(root, "-R")
    whole = iso.read_bytes()
    for length in range(0, len(whole), 7 * 2048):
        iso.write_bytes(whole[:length])
        for name in "ki":
            (tmp_path / name).unlink(missing_ok=True)
        try:
            find_boot_files(Location(str(iso))).copy(tmp_path / "k", tmp_path / "i")
        except NotAnInstaller:
            continue
        assert (tmp_path / "i").read_bytes() == bytes(100_000)
