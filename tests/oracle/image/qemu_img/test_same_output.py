"""Output, messages, exit status and what is left on disk: as from qemu-img, to the byte.

The scripts are in `scripts`, one per subject.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.oracle

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_same(path: Path, same: Callable[[str], None]) -> None:
    same(path.read_text())
