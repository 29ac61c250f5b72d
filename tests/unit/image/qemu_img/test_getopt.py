"""Command lines as GNU's getopt_long reads them."""

import pytest

from thinvirt.image.qemu_img.getopt import Getopt, MissingArgument, Option, UnknownOption

OPTIONS = (
    Option("format", "-f --format", "FORMAT"),
    Option("force", "--force"),
    Option("quiet", "-q"),
    Option("share", "-U --force-share"),
    Option("output", "--output", "FORM"),
)


def parsed(line: str, *, permute: bool = True) -> tuple[list[tuple[str, str]], list[str]]:
    scan = Getopt(["command", *line.split(" ")] if line else ["command"], OPTIONS, permute=permute)
    return list(scan), scan.operands


@pytest.mark.parametrize(
    ("line", "options", "operands"),
    [
        ("", [], []),
        ("-f raw a", [("format", "raw")], ["a"]),
        ("-fraw a", [("format", "raw")], ["a"]),
        ("-qUfraw", [("quiet", ""), ("share", ""), ("format", "raw")], []),
        ("--format=raw --format qcow2", [("format", "raw"), ("format", "qcow2")], []),
        ("--format= a", [("format", "")], ["a"]),
        ("--out json", [("output", "json")], []),
        ("--force", [("force", "")], []),
        ("--force-s", [("share", "")], []),
        ("a -q b -f raw c", [("quiet", ""), ("format", "raw")], ["a", "b", "c"]),
        ("a -- -q", [], ["a", "-q"]),
        ("- -q", [("quiet", "")], ["-"]),
        ("-f -- -q", [("format", "--"), ("quiet", "")], []),
        ("-f -q", [("format", "-q")], []),
    ],
)
def test_reads(line: str, options: list[tuple[str, str]], operands: list[str]) -> None:
    assert parsed(line) == (options, operands)


@pytest.mark.parametrize(
    ("line", "error", "word"),
    [
        ("-x", UnknownOption, "-x"),
        ("--nope=1", UnknownOption, "--nope=1"),
        ("--fo", UnknownOption, "--fo"),  # format, force or force-share
        ("--force=1", UnknownOption, "--force=1"),
        ("-q -xq a", UnknownOption, "-q"),  # in a bundle the word before it is quoted
        ("a -xq", UnknownOption, "a"),
        ("-xq", UnknownOption, "command"),
        ("-qx", UnknownOption, "-qx"),
        ("a -f", MissingArgument, "-f"),
        ("-qf", MissingArgument, "-qf"),
        ("--output", MissingArgument, "--output"),
    ],
)
def test_refuses(line: str, error: type[Exception], word: str) -> None:
    with pytest.raises(error) as caught:
        parsed(line)
    assert str(caught.value) == word


def test_what_stood_before_an_error_was_yielded() -> None:
    scan = iter(Getopt(["command", "-q", "-x"], OPTIONS))
    assert next(scan) == ("quiet", "")
    with pytest.raises(UnknownOption):
        next(scan)


def test_stops_at_the_first_operand() -> None:
    assert parsed("-q a -f raw", permute=False) == ([("quiet", "")], ["a", "-f", "raw"])


def test_posix_stops_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSIXLY_CORRECT", "1")
    assert parsed("-q a -f raw") == ([("quiet", "")], ["a", "-f", "raw"])
