"""The recipe of the guest `debian`, as far as it goes without building it."""

import re
from pathlib import Path

import pytest

from thinvirt.build import debian
from thinvirt.build.packages import Deb, PackageCache
from thinvirt.build.programs import ProgramFailed
from thinvirt.errors import NoSpace, UsageError

DEBS = [
    Deb("linux-image-6.1.0-1-amd64", "6.1.1-1", Path("/none/a.deb"), "a" * 64),
    Deb("cloud-init", "22.4", Path("/none/b.deb"), "b" * 64),
]
ROOT = Path(debian.__file__).parent / "guest" / "debian" / "root"


def test_digest_knows_order_from_content() -> None:
    first = debian.inputs_digest(DEBS)
    assert first == debian.inputs_digest(list(reversed(DEBS)))
    newer = Deb("cloud-init", "23.1", Path("/none/b.deb"), "c" * 64)
    assert first != debian.inputs_digest([DEBS[0], newer])
    assert first != debian.inputs_digest(DEBS, ["nginx"])


def test_digest_covers_the_files_put_into_the_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = debian.inputs_digest(DEBS)
    (tmp_path / "recipe").write_text("another")
    monkeypatch.setattr(
        debian, "_recipe_files", lambda: [*sorted(ROOT.rglob("*.cfg")), tmp_path / "recipe"]
    )
    monkeypatch.setattr(debian, "_SOURCE", Path("/"))
    assert debian.inputs_digest(DEBS) != before


@pytest.mark.parametrize(
    "name", ["", "nginx-", "~nnginx", "-y", "Nginx", "a b", "nginx=1", "x/sid"]
)
def test_extra_package_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    cache = PackageCache(tmp_path / "cache")
    with pytest.raises(UsageError, match="is not the name of a Debian package"):
        debian.build_debian(
            tmp_path / "image.qcow2", work=tmp_path, cache=cache, extra_packages=[name]
        )
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "_SPACE_NEEDED", 1 << 60)
    with pytest.raises(NoSpace, match=re.escape(f"1 EiB below {tmp_path}")):
        debian.build_debian(
            tmp_path / "image.qcow2", work=tmp_path, cache=PackageCache(tmp_path / "cache")
        )
    assert list(tmp_path.iterdir()) == []


def test_failure_names_step_reason_and_end_of_the_log(tmp_path: Path) -> None:
    said = "\n".join([*(f"noise {n}" for n in range(40)), "E: dpkg said no", "I: cleaning up"])
    told = debian.explain(ProgramFailed("mmdebstrap", 1, said), "unpacking", tmp_path)
    assert told.message == "mmdebstrap failed after 'unpacking': dpkg said no"
    assert "noise 39" in told.hint
    assert "noise 9\n" not in told.hint


def test_full_disk_is_told_as_such(tmp_path: Path) -> None:
    said = "dpkg: error: cannot copy: No space left on device\nE: mmdebstrap failed to run"
    told = debian.explain(ProgramFailed("mmdebstrap", 1, said), "unpacking", tmp_path)
    assert isinstance(told, NoSpace)


def test_every_file_for_the_guest_is_text_that_says_what_it_is_for() -> None:
    files = [path for path in ROOT.rglob("*") if path.is_file()]
    assert files
    unexplained = [p for p in files if "#" not in p.read_text() and p.suffix != ".sources"]
    assert [p.name for p in unexplained] == ["fstab"]
