"""What the tests against libosinfo and virt-install share: one index, and their answers as JSON."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thinvirt.service.os_knowledge import OsKnowledge, places

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's libraries with introspection are for this one
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def osinfo_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Only the package's database, whatever this machine's users have."""
    if not Path("/usr/share/osinfo/VERSION").exists():
        pytest.skip("osinfo-db is not installed")
    home = tmp_path_factory.mktemp("osinfo-home")
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    return kept | {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "OSINFO_LOCAL_DIR": str(home / "none"),
        "OSINFO_USER_DIR": str(home / "none"),
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture(scope="session")
def knowledge(
    osinfo_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> OsKnowledge:
    where = places(osinfo_environment)
    return OsKnowledge(where, cache_dir=tmp_path_factory.mktemp("os-index"))


Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def ask(osinfo_environment: dict[str, str]) -> Ask:
    """Run a script of this folder under the system's Python and return what it prints as JSON."""

    def run(script: str, *arguments: str, needs: str) -> Any:
        probe = [SYSTEM_PYTHON, "-c", needs]
        if subprocess.run(probe, check=False, capture_output=True).returncode:
            pytest.skip(f"the system's Python cannot do: {needs}")
        done = subprocess.run(
            [SYSTEM_PYTHON, HERE / script, *arguments],
            env=osinfo_environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return json.loads(done.stdout)

    return run
