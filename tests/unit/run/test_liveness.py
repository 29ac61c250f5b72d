import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thinvirt.errors import Busy
from thinvirt.run import liveness, process
from thinvirt.run.liveness import RunState


def inherit(fd: int) -> subprocess.Popen[bytes]:
    """A process that does nothing but hold the descriptor, as QEMU would."""
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, pass_fds=(fd,))


def test_no_folder_is_not_alive(tmp_path: Path) -> None:
    assert not liveness.is_alive(tmp_path / "1")
    assert liveness.read_state(tmp_path / "1") is None


def test_alive_as_long_as_the_inheritor_lives(tmp_path: Path) -> None:
    fd = liveness.hold(tmp_path)
    child = inherit(fd)
    os.close(fd)
    assert liveness.is_alive(tmp_path)
    assert liveness.is_alive(tmp_path), "asking takes nothing away"
    with pytest.raises(Busy):
        liveness.hold(tmp_path)
    child.kill()
    # Not waited for: the child stays as a zombie, which must count as dead.
    deadline = time.monotonic() + 10
    while liveness.is_alive(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not liveness.is_alive(tmp_path)
    ticks = liveness.start_ticks(child.pid)
    assert Path(f"/proc/{child.pid}/stat").read_text().split()[2] == "Z"
    assert ticks is not None
    assert process.wait_end(child.pid, ticks, 0), "a zombie has ended"
    child.communicate()


def test_state_is_read_only_while_alive(tmp_path: Path) -> None:
    state = RunState(pid=1, start_ticks=2, started_at=3.5, ssh_port=4, argv=("a", "b"))
    fd = liveness.hold(tmp_path)
    assert liveness.read_state(tmp_path) is None
    liveness.write_state(tmp_path, state)
    assert liveness.read_state(tmp_path) == state
    os.close(fd)
    assert liveness.read_state(tmp_path) is None


def test_a_newer_field_is_passed_over() -> None:
    assert RunState.from_json('{"pid": 1, "start_ticks": 2, "started_at": 3, "x": 4}').pid == 1


def test_a_reused_process_id_is_not_opened() -> None:
    pid = os.getpid()
    ticks = liveness.start_ticks(pid)
    assert ticks is not None
    fd = liveness.open_process(pid, ticks)
    assert fd is not None
    signal.pidfd_send_signal(fd, 0)
    os.close(fd)
    assert liveness.open_process(pid, ticks - 1) is None
