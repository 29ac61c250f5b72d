"""The index over osinfo-db: it is always what the files say, however it was kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thinvirt.errors import NotFound, ThinvirtError, UsageError
from thinvirt.service import os_knowledge
from thinvirt.service.os_knowledge import OURS, OsKnowledge, Places, place_of, places
from thinvirt.vm.osinfo.media import NotIso


class World:
    """Three databases and a user's file in a folder."""

    def __init__(self, folder: Path) -> None:
        self.system, self.local, self.user = (folder / n for n in ("system", "local", "user"))
        self.file = folder / "os.toml"
        self.cache = folder / "cache"
        self.places = Places((self.system, self.local, self.user), (OURS, self.file))
        self.write(self.system, "1", "<name>House 1</name><short-id>house1</short-id>")

    def write(self, root: Path, name: str, body: str, *, extension: str = "") -> Path:
        path = root / "os" / "example.org" / f"house-{name}.xml"
        if extension:
            path = path.with_suffix(".d") / f"{extension}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        system = f'<os id="http://example.org/house/{name}">{body}</os>'
        path.write_text(f"<libosinfo>{system}</libosinfo>")
        return path

    def knowledge(self) -> OsKnowledge:
        return OsKnowledge(self.places, cache_dir=self.cache)

    def name(self, short_id: str) -> str:
        return self.knowledge().find(short_id).name

    def index(self) -> Path:
        (found,) = self.cache.iterdir()
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_places_are_libosinfos_and_ours() -> None:
    found = places({"XDG_CONFIG_HOME": "/c", "OSINFO_SYSTEM_DIR": "/s"})
    assert found.databases == (Path("/s"), Path("/etc/osinfo"), Path("/c/osinfo"))
    assert found.files[1:] == (Path("/etc/thinvirt/os.toml"), Path("/c/thinvirt/os.toml"))
    found = places({"OSINFO_LOCAL_DIR": "/l", "OSINFO_USER_DIR": "/u"})
    assert found.databases == (Path("/usr/share/osinfo"), Path("/l"), Path("/u"))


@pytest.mark.parametrize(
    ("entity", "place"),
    [
        ("http://debian.org/debian/12", "os/debian.org/debian-12"),
        ("http://microsoft.com/win/8.1", "os/microsoft.com/win-8.1"),
        ("http://x.org/a/b c", "os/x.org/a-b-c"),
    ],
)
def test_where_a_system_belongs(entity: str, place: str) -> None:
    assert place_of(entity) == place


def test_files_are_read_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.name("house1") == "House 1"

    def fail(*_: object) -> None:
        raise AssertionError("a second command made the index anew")

    monkeypatch.setattr(os_knowledge, "build", fail)
    assert world.name("house1") == "House 1"
    assert world.knowledge().find("http://example.org/house/1").name == "House 1"


def test_a_later_directory_replaces_a_file_with_its_extensions(world: World) -> None:
    world.write(world.system, "1", "<short-id>houseone</short-id>", extension="more")
    assert world.knowledge().find("house1").short_ids == ("house1", "houseone")
    world.write(world.user, "1", "<codename>Den</codename>", extension="mine")
    info = world.knowledge().find("house1")
    assert (info.short_ids, info.codename) == (("house1", "houseone"), "Den")
    world.write(world.local, "1", "<name>Our house</name><short-id>house1</short-id>")
    info = world.knowledge().find("house1")
    assert (info.name, info.short_ids, info.codename) == ("Our house", ("house1",), "Den")


def test_every_change_is_noticed(world: World) -> None:
    assert world.name("house1") == "House 1"
    path = world.write(world.system, "2", "<name>House 2</name><short-id>house2</short-id>")
    assert world.name("house2") == "House 2"
    with path.open("r+") as file:  # in place, as some editors write
        text = file.read().replace("House 2", "Manor 2")
        file.seek(0)
        file.write(text)
    assert world.name("house2") == "Manor 2"
    path.unlink()
    assert not world.knowledge().has("house2")
    world.file.write_text('[os.mine]\nlike = "house1"\nname = "Mine"')
    assert world.name("mine") == "Mine"
    assert world.knowledge().find("mine").source == str(world.file)
    world.file.write_text('[os.mine]\nlike = "house1"\nname = "Ours"')
    assert world.name("mine") == "Ours"


def test_a_damaged_index_is_made_anew(world: World) -> None:
    expected = world.knowledge().find("house1")
    whole = world.index().read_bytes()
    for damaged in (
        b"",
        b"thinvirt",
        whole[: len(whole) // 2],
        whole[:-1],
        whole.replace(b"House 1", b"Hause 1"),
        whole.replace(b'"names"', b'"nomes"'),
        b"\xff" * 200,
        whole.replace(b"thinvirt-os-index 1 ", b"thinvirt-os-index 0 "),
    ):
        world.index().write_bytes(damaged)
        assert world.knowledge().find("house1") == expected
        assert world.knowledge().summaries(today="2026-01-01")
        assert world.index().read_bytes() == whole or whole.startswith(damaged)


def test_without_a_place_for_the_index(world: World) -> None:
    world.cache.write_text("a file where the directory would be")
    assert world.name("house1") == "House 1"
    assert world.cache.read_text()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_cache_that_may_not_be_written(world: World) -> None:
    world.cache.mkdir(mode=0o755)
    code = (
        "import os, sys; os.setgid(65534); os.setuid(65534)\n"
        "from pathlib import Path\n"
        "from thinvirt.service.os_knowledge import OURS, OsKnowledge, Places\n"
        "where = Places((Path('/nowhere'),), (OURS,))\n"
        f"print(OsKnowledge(where, cache_dir=Path({str(world.cache)!r})).find('linux2022').name)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "Generic Linux 2022\n"
    assert list(world.cache.iterdir()) == []


def test_several_at_once(world: World) -> None:
    code = (
        "from pathlib import Path\n"
        "from thinvirt.service.os_knowledge import OURS, OsKnowledge, Places\n"
        f"where = Places((Path({str(world.system)!r}),), (OURS,))\n"
        f"print(OsKnowledge(where, cache_dir=Path({str(world.cache)!r})).find('house1').name)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate()[0] for process in started] == ["House 1\n"] * 4
    assert len(list(world.cache.iterdir())) == 1


def test_without_a_database_the_generics_are_there(tmp_path: Path) -> None:
    known = OsKnowledge(Places((tmp_path / "none",), (OURS,)), cache_dir=tmp_path / "cache")
    assert "apt-get install osinfo-db" in known.notes[0]
    assert known.find("generic").is_generic
    assert known.find("linux2024").drives("virtio-blk")
    assert known.find("debian13").source == "built in"


def test_a_database_goes_before_what_we_say(world: World) -> None:
    assert world.knowledge().find("debian13").source == "built in"
    path = world.system / "os" / "debian.org" / "debian-13.xml"
    path.parent.mkdir()
    path.write_text(
        '<libosinfo><os id="http://debian.org/debian/13"><short-id>debian13</short-id>'
        "<name>theirs</name></os></libosinfo>"
    )
    info = world.knowledge().find("debian13")
    assert (info.name, info.source, info.short_ids) == ("theirs", "osinfo-db", ("debian13",))


def test_bad_files_are_passed_over_and_said(world: World) -> None:
    world.write(world.local, "2", "<name>&bad;</name>")
    misplaced = world.user / "os" / "house.xml"
    misplaced.parent.mkdir(parents=True)
    misplaced.write_text('<libosinfo><os id="http://example.org/house/3"/></libosinfo>')
    known = world.knowledge()
    assert known.find("house1").name == "House 1"
    assert len(known.notes) == 2
    assert "house-2.xml is passed over: not well-formed" in known.notes[0]
    assert "belongs in os/example.org/house-3.xml" in known.notes[1]
    assert world.knowledge().notes == known.notes  # kept with the index


def test_a_wrong_user_file_is_told_with_its_place(world: World) -> None:
    world.file.write_text("[os.mine]\nmemory = 5")
    with pytest.raises(UsageError, match=r"os\.mine\.memory"):
        world.knowledge()
    world.file.write_text('[os.mine]\nlike = "castle"')
    assert "os.mine is like a system that is not known" in world.knowledge().notes[-1]


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [("debain13", "debian13"), ("Debian 13", "debian13"), ("ubuntu", "ubuntu24.04")],
)
def test_near_misses(world: World, typed: str, suggested: str) -> None:
    with pytest.raises(NotFound, match=typed) as caught:
        world.knowledge().find(typed)
    assert suggested in caught.value.hint
    assert "thinvirt advise --list" in caught.value.hint


def test_ids_may_be_typed_in_capitals(world: World) -> None:
    assert world.knowledge().find("HOUSE1").name == "House 1"


def test_the_list_is_in_peoples_order(world: World) -> None:
    for number in ("10", "9"):
        world.write(world.system, number, f"<short-id>house{number}</short-id>")
    names = [s.short_id for s in world.knowledge().summaries(today="2026-01-01")]
    assert [n for n in names if n.startswith("house")] == ["house1", "house9", "house10"]


def test_discs_that_are_none(world: World, tmp_path: Path) -> None:
    iso = tmp_path / "disc.iso"
    with pytest.raises(NotFound, match=r"disc\.iso"):
        world.knowledge().detect(iso)
    iso.write_bytes(b"text")
    with pytest.raises(NotIso, match=r"disc\.iso"):
        world.knowledge().detect(iso)
    with pytest.raises(ThinvirtError, match="cannot be read"):
        world.knowledge().detect(tmp_path)


def test_trees(world: World) -> None:
    tree = (
        '<tree arch="x86_64"><treeinfo><family>House</family><version>^{}</version></treeinfo>'
        "<kernel>boot/k</kernel><initrd>boot/i</initrd></tree>"
    )
    for number in ("1", "10"):
        body = f"<short-id>house{number}</short-id>" + tree.format(number)
        world.write(world.system, number, body)
    said = "[general]\nfamily = House\nversion = {}\narch = {}\n"
    found = world.knowledge().detect_tree(said.format("10.2", "x86_64"))
    assert found is not None
    assert (found.os.short_id, found.kernel, found.initrd) == ("house10", "boot/k", "boot/i")
    assert world.knowledge().detect_tree(said.format("2", "x86_64")) is None
    assert world.knowledge().detect_tree(said.format("1", "s390x")) is None
    assert world.knowledge().detect_tree("") is None


def test_everything_we_ship_is_sound(tmp_path: Path) -> None:
    """With the package's database below, every `like` leads somewhere."""
    where = Places((Path("/usr/share/osinfo"),), (OURS,))
    if not where.databases[0].is_dir():
        pytest.skip("osinfo-db is not installed")
    known = OsKnowledge(where, cache_dir=tmp_path)
    for summary in known.summaries(today="2026-01-01"):
        info = known.find(summary.short_id)
        assert info.source != "built in" or info.kin or info.is_generic, info.short_id
