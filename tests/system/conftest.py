"""Guest images for the tests that boot them: built once, kept in the user's cache."""

from pathlib import Path

import pytest

from thinvirt.service.builds import build_image, package_cache


@pytest.fixture(scope="session")
def tiny_image() -> Path:
    """Return the image of the guest `tiny`; never to be written to."""
    return build_image("tiny", package_cache()).path


@pytest.fixture(scope="session")
def debian_image() -> Path:
    """Return the image of the guest `debian`; never to be written to."""
    return build_image("debian", package_cache()).path
