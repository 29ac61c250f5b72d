"""The real programs, for whole-image operations: failing loudly, paths as arguments."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Qemu:
    """qemu-img and qemu-io, failing loudly."""

    def img(self, *arguments: str | Path) -> str:
        return subprocess.run(
            ["qemu-img", *map(str, arguments)], check=True, capture_output=True, text=True
        ).stdout

    def io(self, image: Path, *commands: str) -> None:
        options = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(
            ["qemu-io", "-f", "qcow2", *options, str(image)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "failed" not in done.stdout, done.stdout

    def info(self, image: Path) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.img("info", "--output=json", "-f", "qcow2", image))
        return facts

    def create(self, image: Path, size: str, *options: str) -> Path:
        words = [word for option in options for word in ("-o", option)]
        self.img("create", "-q", "-f", "qcow2", *words, image, size)
        return image


@pytest.fixture
def qemu() -> Qemu:
    return Qemu()
