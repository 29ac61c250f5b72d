"""A small template to clone, in a store of the test's own."""

import os
from pathlib import Path

import pytest

from thinvirt.service.templates import import_image
from thinvirt.store import Store, Template, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "base.img"
    with path.open("wb") as file:
        file.write(os.urandom(65536))
        file.truncate(1 << 20)
    return path


@pytest.fixture
def tiny(store: Store, image: Path) -> Template:
    return import_image(store, image, name="tiny")
