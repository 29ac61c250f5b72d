"""What no command may answer with a traceback: odd words, odd streams, odd surroundings."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from thinvirt.cli.main import main

NOT_UTF8 = os.fsdecode(b"\xff\xfe")  # what Python makes of an argument that is no UTF-8


@pytest.fixture
def tiny(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    image = tmp_path / "tiny.img"
    image.write_bytes(os.urandom(65536))
    assert main(["template", "import", str(image), "--quiet"]) == 0
    assert main(["clone", "tiny", "web", "--quiet"]) == 0
    capsys.readouterr()
    return home


def thinvirt(home: Path, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which ``thinvirt`` stands for the program."""
    program = f'thinvirt() {{ "{sys.executable}" -m thinvirt.cli.main "$@"; }}; {command}'
    surroundings = {**os.environ, "THINVIRT_HOME": str(home), **environment}
    return subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, env=surroundings, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        ["show", NOT_UTF8],
        ["rm", NOT_UTF8],
        ["ls", NOT_UTF8 + "*"],
        ["df", NOT_UTF8],
        ["clone", NOT_UTF8, "x"],
        ["template", "show", NOT_UTF8],
        ["template", "rm", NOT_UTF8],
        ["template", "verify", NOT_UTF8],
        ["template", "promote", NOT_UTF8],
        ["template", "show", "tiny@99999999999999999999"],
        ["template", "show", "tiny@" + "9" * 5000],
    ],
)
def test_what_cannot_be_a_name_is_not_found(
    tiny: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(words) == 3
    assert main([*words, "--json"]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert json.loads(last)["error"]["kind"] == "not-found"


def test_a_url_that_is_no_text_is_refused(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url in (f"http://{NOT_UTF8}/a.img", "http://host:99999999/a.img", "http://host:x/a.img"):
        assert main(["template", "pull", url, "--no-verify"]) == 2, url
        assert "URL" in capsys.readouterr().err


def test_a_file_whose_name_is_no_text_is_imported_and_shown(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / (NOT_UTF8 + "odd.img")
    image.write_bytes(os.urandom(4096))
    assert main(["template", "import", str(image), "--quiet"]) == 0
    shown = thinvirt(tiny, "thinvirt template show odd && thinvirt template show odd --json")
    assert shown.returncode == 0, shown.stderr
    assert "odd.img" in shown.stdout


def test_the_verb_is_what_is_unknown_whatever_follows_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["foo", "--json"], ["template", "foo", "--json"], ["foo", "bar", "--baz"]):
        assert main(words) == 2
        assert "there is no verb" in capsys.readouterr().err
    assert main(["foo"]) == 2
    assert "thinvirt --help" in capsys.readouterr().err


def test_messages_carry_nothing_that_a_terminal_obeys(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["template", "import", "no\x1b[31m\nsuch"]) == 3
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "no\\x1b[31m\\nsuch" in told


def test_an_empty_store_option_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ls"], ["template", "pull", "debian"]):
        assert main([*words, "--store", ""]) == 2
        assert "--store" in capsys.readouterr().err


def test_a_timeout_that_is_no_number_is_refused(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clone", "tiny", "x", "--dry-run", "--timeout", "nan"]) == 2
    assert main(["template", "pull", "debian", "--dry-run", "--timeout", "nan"]) == 2
    assert "timeout" in capsys.readouterr().err


def test_closed_streams(tiny: Path) -> None:
    done = thinvirt(tiny, "thinvirt ls >&-; echo $? >&2")
    assert done.stderr.strip() == "0"
    done = thinvirt(tiny, "thinvirt show nope 2>&-; echo $?")
    assert done.stdout.strip() == "3"  # and no message among what programs read
    done = thinvirt(tiny, "thinvirt ls <&- >&- 2>&-; echo $?")
    assert done.stdout.strip() == "0"


def test_a_full_output_is_told(tiny: Path) -> None:
    for command in ("ls", "template ls --json", "template --help"):
        done = thinvirt(tiny, f"thinvirt {command} >/dev/full; echo $?")
        assert done.stdout.strip() == "1", command
        assert "No space left" in done.stderr
        assert "Traceback" not in done.stderr
    done = thinvirt(tiny, "thinvirt show nope 2>/dev/full; echo $?")
    assert done.stdout.strip() == "3"


def test_a_vanished_directory_is_told(home: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = thinvirt(home, f"cd '{gone}'; rmdir '{gone}'; thinvirt ls --store x; echo $?")
    assert done.stdout.strip() == "1"
    assert "current directory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_our_characters(tiny: Path, encoding: str) -> None:
    done = thinvirt(
        tiny,
        "thinvirt clone --help >/dev/null && thinvirt clone tiny many --count 2 && "
        "thinvirt template show tiny >/dev/null",
        PYTHONIOENCODING=encoding,
    )
    assert done.returncode == 0, done.stderr
    assert "many-001" in done.stdout


def test_a_dry_run_tells_of_taken_names(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clone", "tiny", "web", "--dry-run"]) == 4
    told = capsys.readouterr()
    assert "'web'" in told.err
    assert "would make" not in told.out
    assert main(["clone", "tiny", "web", "--dry-run", "--json"]) == 4
    told = capsys.readouterr()
    assert [row["taken"] for row in json.loads(told.out)] == [True]
    assert json.loads(told.err)["error"]["kind"] == "conflict"


def test_sizes_that_look_the_same_are_told_in_bytes(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "tiny.img"
    with image.open("wb") as file:
        file.truncate((64 << 20) + 512)
    assert main(["template", "import", str(image), "--quiet"]) == 0
    assert main(["clone", "tiny", "x", "--size", "64M"]) == 2
    assert "67108864 bytes is smaller" in capsys.readouterr().err


def test_a_store_behind_a_broken_link_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, link = tmp_path / "tiny.img", tmp_path / "link"
    image.write_bytes(bytes(512))
    link.symlink_to(tmp_path / "nowhere")
    assert main(["template", "import", str(image), "--store", str(link)]) == 74
    assert "symbolic link" in capsys.readouterr().err


def test_a_file_that_cannot_boot_is_imported_and_told(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "passwd"
    text.write_text("root:x:0:0:root:/root:/bin/bash\n" * 40)
    assert main(["template", "import", str(text), "--quiet"]) == 0
    assert "no boot record" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "words"),
    [("batches SET spec", ["show", "web"]), ("templates SET facts", ["template", "show", "tiny"])],
)
@pytest.mark.parametrize("text", ["{no", "[1]", '"x"'])
def test_a_catalogue_with_foreign_texts_is_damaged(
    tiny: Path, capsys: pytest.CaptureFixture[str], column: str, words: list[str], text: str
) -> None:
    with sqlite3.connect(tiny / "catalog.sqlite3") as connection:
        connection.execute(f"UPDATE {column} = ?", (text,))
    assert main(words) == 74
    assert "damaged" in capsys.readouterr().err


def test_missing_folders_are_made_anew(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("locks", "incoming", "run", "log", "networks"):
        for file in (tiny / name).iterdir():
            file.rmdir() if file.is_dir() else file.unlink()
        (tiny / name).rmdir()
    assert main(["clone", "tiny", "other"]) == 0
    assert main(["rm", "web"]) == 0


def test_a_path_too_long_for_sqlite_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "i"
    image.write_bytes(bytes(512))
    for length in range(380, 520, 7):
        deep = tmp_path / ("d" * 200) / ("e" * 100)
        home = deep / ("f" * max(1, length - len(str(deep)) - 1))
        status = main(["template", "import", str(image), "--store", str(home), "--quiet"])
        assert (status == 0) == (len(str(home / "catalog.sqlite3")) <= 500), length
        if status:
            assert "too long" in capsys.readouterr().err
