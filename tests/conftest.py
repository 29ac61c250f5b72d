"""What every test gets: deterministic hypothesis in CI, and a store of its own."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# A shell starts what it puts in the background with Ctrl-C ignored, and every process below
# inherits that: the tests that interrupt commands mean a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty directory that $THINVIRT_HOME names while the test runs."""
    directory = tmp_path / "store"
    monkeypatch.setenv("THINVIRT_HOME", str(directory))
    return directory
