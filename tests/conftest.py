"""What every test gets: deterministic hypothesis in CI, and a store of its own."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty directory that $THINVIRT_HOME names while the test runs."""
    directory = tmp_path / "store"
    monkeypatch.setenv("THINVIRT_HOME", str(directory))
    return directory
