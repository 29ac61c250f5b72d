"""Debian's virt-install, many times, loaded once: run by the system's Python.

Standard input is a JSON list of command lines; standard output a list of [status, output, errors].
Every command line runs in a process of its own, forked once the modules are there.
"""

import json
import os
import sys
import tempfile
from contextlib import ExitStack
from typing import IO

sys.path.insert(0, "/usr/share/virt-manager")
from virtinst import OSDB, virtinstall  # type: ignore[import-not-found]

AT_ONCE = 2
Files = tuple[IO[str], IO[str]]


def start(words: list[str], files: Files) -> int:
    """Start one virt-install that writes into two files, and return its process."""
    child = os.fork()
    if child == 0:
        for number, file in enumerate(files, start=1):
            os.dup2(file.fileno(), number)
        sys.argv = words
        virtinstall.runcli()  # ends the process
    return child


def main() -> None:
    """Run all commands, some at once."""
    commands: list[list[str]] = json.load(sys.stdin)
    OSDB.lookup_os("linux2020")  # reads the database, once for all
    statuses: dict[int, int] = {}
    running: dict[int, int] = {}
    with ExitStack() as stack:
        outputs: list[Files] = []

        def finish() -> None:
            child, status = os.wait()
            statuses[running.pop(child)] = os.waitstatus_to_exitcode(status)

        for number, words in enumerate(commands):
            if len(running) == AT_ONCE:
                finish()
            out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
            outputs.append((out, err))
            running[start(words, outputs[-1])] = number
        while running:
            finish()
        results = []
        for number, files in enumerate(outputs):
            for file in files:
                file.seek(0)
            results.append([statuses[number], *(file.read() for file in files)])
        json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
