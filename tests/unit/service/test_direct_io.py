"""Whether files can be opened past the host's cache."""

from pathlib import Path

import pytest

from thinvirt.errors import Conflict
from thinvirt.service.direct_io import require_direct, takes_direct
from thinvirt.vm.qemu import DiskLayer
from thinvirt.vm.spec import DiskSpec


def test_a_file_is_tried(tmp_path: Path) -> None:
    """What else is wrong with it is for others to say."""
    assert not takes_direct(Path("/proc/self/status"))
    assert takes_direct(tmp_path / "nothing")


def test_every_file_of_a_chain_counts(tmp_path: Path) -> None:
    """The base of an overlay may lie on another file system."""
    above, below = tmp_path / "above", tmp_path / "below"
    for path in (above, below):
        path.write_bytes(bytes(4096))
    layers = (DiskLayer(str(above)), DiskLayer("/proc/self/status"))
    for cache in (None, "writeback", "writethrough", "unsafe"):
        require_direct([DiskSpec(cache=cache)], [layers])
    for cache in ("none", "directsync"):
        with pytest.raises(Conflict, match=f"cache mode {cache} needs O_DIRECT.*/proc/self"):
            require_direct([DiskSpec(), DiskSpec(cache=cache)], [(), layers])  # type: ignore[arg-type]
