"""Ctrl-C at any moment of a command's life: never a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path


def test_an_interrupt_while_the_command_is_loading_is_silent(tmp_path: Path) -> None:
    # A module that takes long to load, in the place of one that is needed early.
    slow = tmp_path / "argparse.py"
    slow.write_text("import os, time\nos.write(1, b'loading')\ntime.sleep(20)\n")
    program = "import sys; from thinvirt.cli.entry import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(7) == b"loading"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (-signal.SIGINT, b"")
