"""Kernel modules chosen with what they depend on."""

from pathlib import Path

import pytest

from thinvirt.build.modules import available_modules, close_over_dependencies
from thinvirt.errors import NotFound


def module(folder: Path, name: str, depends: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = f"\x7fELF…\0license=GPL\0depends={depends}\0name={name}\0"
    (folder / f"{name}.ko").write_bytes(content.encode())


def test_what_a_module_needs_comes_before_it(tmp_path: Path) -> None:
    module(tmp_path / "fs", "ext4", "jbd2,mbcache,crc16")
    module(tmp_path / "fs", "jbd2", "")
    module(tmp_path / "fs", "mbcache", "")
    module(tmp_path / "lib", "crc16", "")
    module(tmp_path / "lib", "unrelated", "")
    module(tmp_path / "char", "virtio-rng", "crc16")
    order = close_over_dependencies(["virtio_rng", "ext4"], available_modules(tmp_path))
    assert order == ["crc16", "virtio_rng", "jbd2", "mbcache", "ext4"]


def test_a_dependency_that_was_not_unpacked_is_named(tmp_path: Path) -> None:
    module(tmp_path, "sd_mod", "t10-pi")
    with pytest.raises(NotFound, match="t10_pi, needed by sd_mod"):
        close_over_dependencies(["sd_mod"], available_modules(tmp_path))
