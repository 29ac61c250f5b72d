"""A process is told to have ended only when all its threads have, whatever its first one did."""

import os
import subprocess
import sys
from pathlib import Path

from thinvirt.run import liveness, process

# The first thread ends at once, the second goes on: the process shows as a zombie and is none.
LEADER_ENDS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # exit(2): of this thread alone
"""


def test_a_process_whose_first_thread_ended_has_not_ended(tmp_path: Path) -> None:
    lock = liveness.hold(tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", LEADER_ENDS], stdout=subprocess.PIPE, pass_fds=[lock]
    )
    os.close(lock)
    assert child.stdout is not None
    child.stdout.readline()
    stat = Path(f"/proc/{child.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    ticks = liveness.start_ticks(child.pid)
    assert ticks is not None
    assert not process.wait_end(child.pid, ticks, 0)
    assert liveness.is_alive(tmp_path)
    child.kill()
    assert process.wait_end(child.pid, ticks, 10)
    assert liveness.wait_dead(tmp_path)
    child.communicate()
