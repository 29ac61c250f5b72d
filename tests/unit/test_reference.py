"""Pages of docs/reference made from the code are what the code says today."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_generated_reference_pages_are_current() -> None:
    done = subprocess.run(
        [ROOT / "script" / "reference", "--check"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
