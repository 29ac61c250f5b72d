"""What stands where a new image was to be made, when making it fails."""

from pathlib import Path

import pytest

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.new_file import empty_file_removed


def fail(path: Path) -> None:
    with pytest.raises(BlockError, match="no key"), empty_file_removed(BlockGraph(), str(path)):
        raise BlockError("no key")


def test_empty_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.touch()
    fail(path)
    assert not path.exists()
    fail(path)
    assert not path.exists()


def test_file_with_bytes_stays(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"somebody's")
    fail(path)
    assert path.read_bytes() == b"somebody's"


def test_success_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.touch()
    with empty_file_removed(BlockGraph(), str(path)):
        pass
    assert path.exists()
