"""Many hundreds of command lines, good and bad, in qemu-img and in ours, each in the same folder.

Output, messages, exit status and every file afterwards are the same; where ours does better the
line names the reason, which the reference gives.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.oracle.image.qemu_img.side_by_side import Bench, Line, lines_of

from thinvirt.image.qemu_img.differences import DIFFERENCES

pytestmark = pytest.mark.oracle

HERE = Path(__file__).parent
TABLES = sorted((HERE / "lines").glob("*.txt"))
EVERY_FILE = HERE / "lines" / "every-file.txt"
_WARNINGS = re.compile(r"(WARNING: Image format .*\n.*\n.*\n)\1+")
_GROUP = 20  # lines a test: naming each would take longer than running it
_ALWAYS = 3  # of the tests of groups one in so many is run always, the others with the slow ones
_SAMPLE = 40  # of the lines for every file, one in so many is run always


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Return the folder the lines are run in. It is in memory: there are thousands of runs."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(prefix="thinvirt-lines-", dir=memory) as name:
        root = Path(name)
        root.chmod(0o755)  # an ordinary user is to get in
        template = root / "template"
        template.mkdir()
        subprocess.run(
            ["bash", HERE / "template.sh"], cwd=template, check=True, timeout=120, stdout=-3
        )
        yield Bench(template, root / "work")
        (template / "dir").chmod(0o755)
        (root / "work" / "dir").chmod(0o755)


def _groups(lines: list[Line]) -> Iterator[list[Line]]:
    for start in range(0, len(lines), _GROUP):
        yield lines[start : start + _GROUP]


def _parameters() -> Iterator[object]:
    for table in TABLES:
        if table != EVERY_FILE:
            for number, group in enumerate(_groups(lines_of(table))):
                marks = [] if number % _ALWAYS == 0 else [pytest.mark.slow]
                yield pytest.param(group, id=f"{table.stem}-{number}", marks=marks)


@pytest.mark.parametrize("lines", _parameters())
def test_same(bench: Bench, lines: list[Line]) -> None:
    _hold(bench, lines)


def _for_every_file(bench: Bench) -> list[Line]:
    files = sorted(
        str(path.relative_to(bench.template))
        for path in bench.template.rglob("*")
        if path.name not in ("fifo", "selfish")  # qemu-img never ends with them
    )
    return [
        Line(tuple(word.replace("FILE", name) for word in line.words), line.how, line.differs)
        for name in files
        for line in lines_of(EVERY_FILE)
    ]


def test_every_command_with_some_files(bench: Bench) -> None:
    _hold(bench, _for_every_file(bench)[::_SAMPLE])


@pytest.mark.exhaustive
def test_every_command_with_more_files(bench: Bench) -> None:
    _hold(bench, _for_every_file(bench)[7 :: _SAMPLE // 4])


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(8))
def test_every_command_with_every_file(bench: Bench, part: int) -> None:
    _hold(bench, _for_every_file(bench)[part::8])


def _hold(bench: Bench, lines: list[Line]) -> None:
    trouble = []
    for line in lines:
        theirs, ours = bench.both(line)
        for result in theirs, ours:  # what differs from run to run
            result.out = re.sub(r"completed in [0-9.]+", "completed in", result.out)
            result.err = re.sub(r"#block[0-9]+", "#block", result.err)
            result.err = _WARNINGS.sub(r"\1", result.err)  # "warning" in the differences
        # Where QEMU's program dies of a damaged image there is nothing to be held against.
        if line.differs:
            assert line.differs in DIFFERENCES
            differs = theirs != ours
            if not differs:
                trouble.append(f"{line}\n  is said to differ, and does not")
        elif theirs != ours and not (isinstance(theirs.status, int) and theirs.status < 0):
            trouble.append(f"{line}\n  theirs: {theirs}\n  ours:   {ours}")
    assert not trouble, "\n".join(trouble)
