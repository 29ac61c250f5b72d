"""Images that are imported boot over the bus, and in the cache mode, that was asked for."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import sector_guest
from tests.mini_guest import thinvirt

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


@pytest.fixture
def running(home: Path) -> Iterator[Path]:
    yield home
    sector_guest.kill_all(home / "run")


@pytest.mark.parametrize(("bus", "cache", "disk"), [("scsi", "none", "sda"), ("ide", None, "sda")])
def test_tiny_is_imported(
    running: Path, tiny_image: Path, bus: str, cache: str | None, disk: str
) -> None:
    """Its disk is the one described, an overlay of the image; what was waited for is its login."""
    described = f"backing_store={tiny_image},bus={bus}" + (f",cache={cache}" if cache else "")
    words = ["install", "--name", "box", "--import", "--disk", described, "--memory", "128M"]
    words += ["--osinfo", "none", "--network", "user", "--nographics", "--wait", "5"]
    done = thinvirt(running, *words, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["spec"]["disks"][0]["bus"] == bus
    seen = thinvirt(running, "ssh", "box", "--", "ls", "/sys/block")
    assert disk in seen.stdout.split(), seen.stderr
    assert thinvirt(running, "stop", "--force", "box").returncode == 0
