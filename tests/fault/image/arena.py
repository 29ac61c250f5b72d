"""A scenario at work: its start, one run without trouble, and judgement over what trouble left."""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fault.image.journal import Files, Journal, copied, restore, snapshot
from tests.fault.image.judge import assert_leaks_at_worst, assert_old_or_new, look
from tests.fault.image.scenarios import Scenario, prepare


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class Arena:
    """One scenario.

    Attributes:
        start: the files before.
        journal: of the run without trouble.
        judged: how many different states were judged.
    """

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.folder = folder / "files"
        self.folder.mkdir()
        with inside(self.folder):
            prepare(scenario)
        self.start = snapshot(self.folder)
        self.before = look(self.folder, scenario.views)
        self.journal = Journal(self.folder)
        status = self.run(self.journal)
        assert status == 0
        self.end = snapshot(self.folder)
        self.after = look(self.folder, scenario.views)
        self.judged = 0
        self._seen: set[tuple[bool, int]] = set()
        self.judge(self.end, lossy=False)

    def run(self, journal: Journal) -> int:
        """Do the work with calls noted; return its status."""
        with inside(self.folder), journal.recording():
            return self.scenario.act()

    def rerun(self, journal: Journal) -> int:
        """Do the work from the start again."""
        restore(copied(self.start), self.folder)
        return self.run(journal)

    def judge(self, files: Files, *, lossy: bool, is_done: bool = False) -> None:
        """Let real qemu-img judge what was left; what was judged before is not looked at again.

        Args:
            files: what was left.
            lossy: power failed.
            is_done: the operation said that all went well.
        """
        mark = 0
        for name in sorted(files):
            mark = zlib.crc32(files[name], zlib.crc32(name.encode(), mark))
        if (is_done, mark) in self._seen:
            return
        self._seen.add((is_done, mark))
        self.judged += 1
        restore(files, self.folder)
        scenario = self.scenario
        for name in scenario.images:
            if is_done or not scenario.is_unsound:
                assert_leaks_at_worst(self.folder, name)
        now = look(self.folder, scenario.views)
        if is_done:
            changed = [label for label, found in now.items() if found != self.after[label]]
            assert not changed, f"said to be done, but not what it should be: {changed}"
        assert_old_or_new(now, self.before, self.after, scenario.views, lossy=lossy)
