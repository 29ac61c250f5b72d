"""The README's tour is true: its commands are typed here and print what it says they print.

A ``console`` block of the tour is a sequence of ``$ command`` lines, each followed by its output.
Output is compared after numbers became ``#`` (times, sizes and ports vary) and runs of blanks
became one; a line of ``…`` stands for any lines, and ``…`` inside a line for any text.
"""

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOUR_HEADING = {"README.md": "## A five-minute tour", "README.zh-CN.md": "## 五分钟导览"}


@dataclass
class Step:
    command: str
    output: list[str] = field(default_factory=list)


def tour(readme: str) -> list[Step]:
    """The steps of the tour section, in order."""
    text = (ROOT / readme).read_text()
    _, _, section = text.partition(TOUR_HEADING[readme] + "\n")
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    steps: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:]))
            else:
                steps[-1].output.append(line)
    return steps


def shape(text: str) -> str:
    """A line with what varies taken out."""
    text = re.sub(r"\d+(?:\.\d+)?(?: [KMGT]iB| B\b)?", "#", text)
    text = re.sub(r"[█▏▎▍▌▋▊▉░─━#]+", "#", text)
    return re.sub(r"\s+", " ", text).strip()


def expected_pattern(lines: list[str]) -> str:
    parts = []
    for line in lines:
        if line.strip() == "…":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            parts.append(".*?".join(re.escape(shape(piece)) for piece in line.split("…")) + r"\n")
    return "".join(parts)


def test_both_readmes_tell_the_same_tour() -> None:
    english, chinese = tour("README.md"), tour("README.zh-CN.md")
    assert english, "the tour has no commands"
    assert [step.command for step in english] == [step.command for step in chinese]
    assert [step.output for step in english] == [step.output for step in chinese]


@pytest.mark.system
def test_the_tour_prints_what_the_readme_says(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "THINVIRT_HOME": str(tmp_path / "store"),
        "COLUMNS": "100",
        "LC_ALL": "C.UTF-8",
    }
    mismatches = []
    try:
        for step in tour("README.md"):
            done = subprocess.run(
                ["bash", "-c", step.command],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=400,
                check=False,
            )
            printed = "".join(f"{shape(line)}\n" for line in done.stdout.splitlines())
            if done.returncode or not re.fullmatch(expected_pattern(step.output), printed):
                mismatches.append(
                    f"$ {step.command}\n(status {done.returncode})\n{done.stdout}{done.stderr}"
                )
    finally:
        subprocess.run(
            ["thinvirt", "rm", "--force", "*"], env=environment, capture_output=True, check=False
        )
    assert not mismatches, "\n".join(mismatches)
