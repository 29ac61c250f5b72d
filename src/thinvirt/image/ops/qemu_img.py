"""Hand work to an installed qemu-img: for formats that are not ours."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from thinvirt.errors import CorruptImage, ImageError, NoSpace, ProgramMissing
from thinvirt.progress import Progress

_INFO_SECONDS = 20
_INFO_MEMORY = 1 << 30
_NAME = "qemu-img"


def program() -> str:
    """Return the path of qemu-img.

    Raises:
        ProgramMissing: it is not installed.
    """
    import shutil

    found = shutil.which(_NAME)
    if found is None:
        raise ProgramMissing(
            "qemu-img is not installed, and this needs it",
            hint="apt install qemu-utils",
        )
    return found


def image_facts(path: Path, image_format: str) -> dict[str, Any]:
    """Return what ``qemu-img info`` says of one file whose header has been screened.

    The format is told, never guessed; time and memory of the program are bounded.

    Raises:
        CorruptImage: qemu-img cannot open it, or takes more than a header is worth.
        ProgramMissing: there is no qemu-img.
    """
    import json
    import resource
    import subprocess

    command = [program(), "info", "--output=json", "-f", image_format, str(path.absolute())]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    ) as process:
        with suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(process.pid, resource.RLIMIT_AS, (_INFO_MEMORY,) * 2)
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (_INFO_SECONDS,) * 2)
        try:
            output, errors = process.communicate(timeout=_INFO_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise CorruptImage(
                f"qemu-img is still busy with the header after {_INFO_SECONDS} s", path=path
            ) from error
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise CorruptImage(f"qemu-img does not open it: {_reason(errors)}", path=path)
    facts: dict[str, Any] = json.loads(output)
    return facts


def convert(arguments: list[str], *, progress: Progress, title: str, target: Path) -> None:
    """Run ``qemu-img convert -p`` with `arguments`, passing its progress on.

    Raises:
        NoSpace: the file system of `target` is full.
        ImageError: qemu-img failed; the message quotes it.
        ProgramMissing: there is no qemu-img.
    """
    import subprocess
    import tempfile

    progress.step(title, 100, "%")
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [program(), "convert", "-p", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
        ) as process,
    ):
        try:
            assert process.stdout is not None
            _follow(process.stdout.fileno(), progress)
            status = process.wait()
        except BaseException:  # Ctrl-C, or a progress that cancels
            process.kill()
            raise
        errors.seek(0)
        text = errors.read(1 << 16).decode("utf-8", "replace")
    if status != 0:
        if os.strerror(errno.ENOSPC) in text:
            raise NoSpace(
                "no space left for the converted image",
                path=target,
                hint=f"make room: df -h '{target.parent}'",
            )
        raise ImageError(f"qemu-img convert failed: {_reason(text) or f'status {status}'}")


def _follow(fd: int, progress: Progress) -> None:
    """Report what qemu-img prints: ``    (12.34/100%)`` and a carriage return, over and over."""
    done, pending = 0, b""
    while piece := os.read(fd, 4096):
        *reports, pending = (pending + piece).split(b"\r")
        for report in reports:
            percent = report.strip(b" (\n").split(b".", 1)[0].split(b"/", 1)[0]
            if percent.isdigit() and int(percent) > done:
                progress.advance(int(percent) - done)
                done = int(percent)


def _reason(errors: str) -> str:
    """Return qemu-img's message without its name, on one line."""
    lines = (line.removeprefix(f"{_NAME}: ").strip() for line in errors.splitlines())
    return "; ".join(line for line in lines if line)


def _environment() -> dict[str, str]:
    """Return our environment with messages in English: they are looked at."""
    return os.environ | {"LC_ALL": "C"}
