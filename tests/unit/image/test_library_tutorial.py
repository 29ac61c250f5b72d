"""docs/guide/image-library.md says what really happens: its code is run, in order."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "image-library.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_guide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the blocks of Python; each must print the block of text after it. Return how many."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(GUIDE.read_text())
    for number, (kind, source) in enumerate(blocks):
        if kind != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(source, f"{GUIDE.name}, block {number}", "exec"), names)
        follows, expected = blocks[number + 1]
        assert follows == "text"
        assert printed.getvalue() == expected
    return len(blocks) // 2


def test_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_guide(tmp_path, monkeypatch) == 5
