"""Systems in TOML, and complaints that say where."""

from pathlib import Path

import pytest

from thinvirt.errors import UsageError
from thinvirt.vm.osinfo.fragments import OsRecord
from thinvirt.vm.osinfo.merging import merge_fragments, resolve
from thinvirt.vm.osinfo.records import Resources
from thinvirt.vm.osinfo.user_file import ID_PREFIX, parse_user_file

ORIGIN = Path("/home/resident/os.toml")
HOUSE = """
[os.house-1]
name = "House Linux 1"
aliases = ["house"]
family = "linux"
release_date = 2024-05-01
min_memory = "512M"
memory = "2G"
disk = "10G"
cpus = 2
devices = ["virtio-blk", "q35"]
firmware = ["efi"]
no_firmware = ["bios"]
good_buses = ["sata"]
bad_buses = ["ide"]
media = [{ volume_id = "^HOUSE", kernel = "k", initrd = "i" }]
"""


def test_a_system() -> None:
    (record,) = parse_user_file(HOUSE, ORIGIN, {})
    info = resolve(record, {record.id: record}, {}, source=str(ORIGIN))
    assert info.id == ID_PREFIX + "house-1"
    assert info.short_ids == ("house-1", "house")
    assert info.resource("minimum", "memory_bytes", "x86_64") == 512 << 20
    assert info.recommended("memory_bytes", "x86_64") == 2 << 30
    assert info.recommended("cpus", "aarch64") == 2
    assert info.drives("virtio-blk")
    assert info.drives("q35")
    assert not info.drives("virtio-net")
    assert (info.starts_from("efi", "x86_64"), info.starts_from("bios", "x86_64")) == (True, False)
    assert (info.good_buses, info.bad_buses) == (("sata",), ("ide",))
    assert record.media[0].kernel == "k"
    assert info.release_date == "2024-05-01"


def test_like_inherits_and_own_figures_win() -> None:
    base = OsRecord(
        id="urn:base",
        short_ids=("base",),
        resources=(
            Resources("all", "minimum", memory_bytes=1 << 30, disk_bytes=5 << 30),
            Resources("x86_64", "recommended", memory_bytes=4 << 30),
        ),
    )
    text = '[os.mine]\nlike = "base"\nmin_memory = "256M"\nmemory = "1G"'
    (mine,) = parse_user_file(text, ORIGIN, {"base": base.id})
    info = resolve(mine, {base.id: base, mine.id: mine}, {})
    assert info.resource("minimum", "memory_bytes", "x86_64") == 256 << 20
    assert info.resource("minimum", "disk_bytes", "x86_64") == 5 << 30
    assert info.recommended("memory_bytes", "x86_64") == 1 << 30


def test_a_known_name_adds_to_that_system() -> None:
    base = OsRecord(
        id="urn:base",
        short_ids=("base",),
        name="Base",
        resources=(Resources("x86_64", "minimum", memory_bytes=1 << 30, cpus=3),),
    )
    declared = parse_user_file(
        '[os.base]\nmin_memory = "2G"\nbad_buses = "sata"', ORIGIN, {"base": base.id}
    )
    merged = merge_fragments([base, *declared])
    info = resolve(merged[base.id], merged, {})
    assert (info.name, info.short_ids, info.bad_buses) == ("Base", ("base",), ("sata",))
    assert info.resource("minimum", "memory_bytes", "x86_64") == 2 << 30
    assert info.resource("minimum", "cpus", "x86_64") == 3


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("os = 1", "must be a table"),
        ("[os.a", "TOML"),
        ("[vm.a]", "'vm' means nothing"),
        ("[os.'a b']", "os.a b cannot be a name"),
        ("[os.a]\ncolour = 'red'", "os.a.colour is no key"),
        ("[os.a]\nmin_memory = 512", "os.a.min_memory must be a size as a text"),
        ("[os.a]\ndisk = 'big'", "os.a.disk is 'big'"),
        ("[os.a]\ncpus = 0", "os.a.cpus"),
        ("[os.a]\ncpus = true", "os.a.cpus"),
        ("[os.a]\ngood_buses = ['floppy']", "os.a.good_buses has 'floppy'"),
        ("[os.a]\nrelease_date = 'spring'", "os.a.release_date must be a date"),
        ("[os.a]\nrelease_date = 2020", "os.a.release_date must be a date"),
        ("[os.a]\nlike = 'a'", "os.a.like names the system itself"),
        ("[os.a]\nmedia = [{ volume_id = '(' }]", "os.a.media.volume_id is no regular expression"),
        ("[os.a]\nmedia = [{ label = 'x' }]", "os.a.media.label is no key"),
        ("[os.a]\nmedia = [{ live = 'x' }]", "os.a.media.live must be a text"),
        ('[os.a]\nname = "a\\u0007"', "os.a.name must be a text"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, where: str) -> None:
    with pytest.raises(UsageError, match=where) as caught:
        parse_user_file(text, ORIGIN, {})
    assert caught.value.path == ORIGIN
