"""``thinvirt template build tiny`` as an ordinary user types it, without network."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from thinvirt.build import tiny
from thinvirt.build.programs import sha256_of
from thinvirt.service.builds import build_image, package_cache, recorded

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

NOBODY = 65534
THINVIRT = Path(sys.executable).with_name("thinvirt")


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a directory of an ordinary user, with a name that needs quoting, and our packages."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "it's a home"
        packages = home / "cache/thinvirt/packages"
        shutil.copytree(package_cache().directory / "requests", packages / "requests")
        (packages / "debs").mkdir()
        meta = package_cache().fetch((*tiny.PACKAGES, tiny.KERNEL_PACKAGE))  # as `tiny.fetch` asks
        for deb in (*tiny.fetch(package_cache()), *meta):
            shutil.copy(deb.path, packages / "debs")
        left = home / "cache/thinvirt/images/work-tiny"  # by a build that was killed
        (left / "tiny/packages").mkdir(parents=True)
        (left / "image.qcow2").write_bytes(b"half")
        if os.geteuid() == 0:
            Path(folder).chmod(0o755)
            for path in (home, *home.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        yield home


def build(home: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run the command as nobody in an empty network, and return the facts it printed."""
    command = [str(THINVIRT), "template", "build", "tiny", "--json", *arguments]
    if os.geteuid() == 0:
        ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        command = ["unshare", "--net", "setpriv", *ids, *command]
    done = subprocess.run(
        command, cwd=home, check=True, capture_output=True, text=True, umask=0o077,
        env={
            "PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C", "TZ": "Asia/Tokyo",
            "XDG_CACHE_HOME": str(home / "cache"), "THINVIRT_HOME": str(home / "the store"),
        },
    )  # fmt: skip
    facts: list[dict[str, Any]] = json.loads(done.stdout)
    return facts


def test_an_ordinary_user_builds_the_same_bytes_without_network(
    home: Path, tiny_image: Path
) -> None:
    (facts,) = build(home)
    assert (facts["name"], facts["version"], facts["was_cached"]) == ("tiny", 1, False)
    assert facts["digest"] == sha256_of(tiny_image)
    assert facts["facts"]["login_user"] == "root"
    assert facts["facts"]["kernel_repacked"]
    images = home / "cache/thinvirt/images"
    assert sorted(path.suffix for path in images.iterdir()) == [".json", ".lock", ".qcow2"]

    (facts,) = build(home)
    assert (facts["version"], facts["was_cached"], facts["was_there"]) == (1, True, True)


def test_an_image_cut_short_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "tiny-0.qcow2"
    path.write_bytes(b"1234")
    path.with_suffix(".json").write_text(
        '{"sha256": "0", "size_bytes": 4, "inputs_digest": "0", "facts": {}}'
    )
    assert recorded(path) is not None
    path.write_bytes(b"123")
    assert recorded(path) is None
    path.with_suffix(".json").write_text("{")
    assert recorded(path) is None


def test_the_cache_keeps_one_image_of_each_guest(tiny_image: Path) -> None:
    image = build_image("tiny", package_cache())
    assert image.was_cached
    assert image.path == tiny_image
    assert sorted(tiny_image.parent.glob("tiny-*.qcow2")) == [tiny_image]
