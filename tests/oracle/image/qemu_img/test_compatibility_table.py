"""The tables that the compatibility page is made from name all that the real qemu-img has."""

import re
import subprocess

import pytest

from thinvirt.image.block.abilities import Amendable
from thinvirt.image.ops.create import creation_options, find_creatable
from thinvirt.image.qemu_img.table import COMMANDS, command_module

pytestmark = pytest.mark.oracle


def help_text() -> str:
    return subprocess.run(["qemu-img", "--help"], capture_output=True, text=True, check=True).stdout


def test_every_command_is_there() -> None:
    section = help_text().split("Command syntax:\n")[1].split("\n\n")[0]
    named = [line.split()[0] for line in section.splitlines()]
    assert sorted(named) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_there(name: str) -> None:
    (line,) = (ln for ln in help_text().splitlines() if ln.startswith(f"  {name} "))
    mentioned = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*|-[a-zA-Z])(?![\w])", line))
    ours = {word for option in command_module(name).COMMAND.options for word in option.names}
    assert mentioned <= ours
    # And nothing is promised that the real one does not take.
    for word in sorted(ours - mentioned - {"-h", "--help"}):
        said = subprocess.run(
            ["qemu-img", name, word], capture_output=True, text=True, check=False
        ).stderr
        assert "unrecognized option" not in said, word
        assert "invalid option" not in said, word


@pytest.mark.parametrize("name", ["raw", "qcow2", "luks"])
def test_every_option_of_a_format_is_there(name: str) -> None:
    def lines(*words: str) -> list[str]:
        done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if line.startswith("  ")]

    driver = find_creatable(name)
    assert creation_options(driver, None).help_lines() == lines("create", "-f", name, "-o", "help")
    assert creation_options(driver, "a").help_lines() == lines(
        "create", "-f", name, "-o", "help", "a"
    )
    if issubclass(driver, Amendable):
        assert driver.amend_options.help_lines() == lines("amend", "-f", name, "-o", "help")
