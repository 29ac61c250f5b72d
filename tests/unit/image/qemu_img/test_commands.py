"""Every command declares itself in one form, which help and reference are made from."""

import sys
from pathlib import Path

import pytest

from thinvirt.image.qemu_img import main as program
from thinvirt.image.qemu_img.getopt import ACCEPTED, DIFFERS, YES, Command
from thinvirt.image.qemu_img.table import COMMANDS, command_module


@pytest.mark.parametrize("name", COMMANDS)
def test_declaration(name: str) -> None:
    command: Command = command_module(name).COMMAND
    assert command.name == name
    names = [n for option in command.options for n in option.names]
    assert len(names) == len(set(names))
    keys = [option.key for option in command.options]
    assert len(keys) == len(set(keys))
    assert all(
        option.help and option.support in {YES, DIFFERS, ACCEPTED} for option in command.options
    )


def test_help_names_all(capfd: pytest.CaptureFixture[str]) -> None:
    assert program.main(["thin-img", "info", "--help"]) == 0
    out, err = capfd.readouterr()
    assert not err
    assert all(f"\n  {name} [options]" in out for name in COMMANDS)


def test_version_begins_as_qemu_img_does(capfd: pytest.CaptureFixture[str]) -> None:
    assert program.main(["/usr/bin/qemu-img", "-V"]) == 0
    first, second = capfd.readouterr().out.splitlines()
    assert first.startswith("qemu-img version 7.2.")
    assert first.endswith(")")
    assert second.startswith("Copyright")


def test_info_loads_little() -> None:
    """What takes long to import is nowhere on the way of ``info``."""
    import subprocess

    code = (
        "import sys; from thinvirt.image.qemu_img.main import main;"
        "main(['thin-img', 'info', '/dev/null/nothing']);"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"argparse", "dataclasses", "enum", "json", "numpy", "cryptography", "subprocess"}
    assert not loaded & (heavy | {"re", "typing", "pathlib", "tempfile", "zlib"})


def test_a_full_output_is_an_error() -> None:
    import subprocess

    code = "from thinvirt.image.qemu_img.main import program; program()"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.endswith(": Could not write the output: No space left on device\n")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_went_away_is_none() -> None:
    import os
    import subprocess

    code = "from thinvirt.image.qemu_img.main import program; program()"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, "--version"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_image_gets_the_output_of_a_closed_descriptor(tmp_path: Path) -> None:
    """The first file that is opened would have the number of standard output."""
    import subprocess

    code = "from thinvirt.image.qemu_img.main import program; program()"
    image = tmp_path / "image"
    image.write_bytes(bytes(4096))
    words = (sys.executable, "-c", code, "resize", "-f", "raw", str(image), "8192")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Could not write the output" in done.stderr
    assert image.read_bytes() == bytes(8192)
