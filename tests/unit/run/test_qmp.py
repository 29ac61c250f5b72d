"""Held against the real QEMU: a machine without anything takes a few milliseconds."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from thinvirt.errors import Busy, Timeout
from thinvirt.run import sockets
from thinvirt.run.qmp import QmpClient, QmpClosed, QmpError
from thinvirt.vm.qemu import PROGRAM

pytestmark = pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="QEMU is not installed")


@pytest.fixture
def qmp_socket(tmp_path: Path) -> Iterator[Path]:
    """The control socket of a QEMU, below a path longer than a socket address holds."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    path = folder / "qmp.sock"
    with sockets.listen(path) as server:
        fd = server.fileno()
        qemu = subprocess.Popen(
            [
                *(PROGRAM, "-machine", "none", "-nodefaults", "-display", "none"),
                *("-chardev", f"socket,id=qmp,fd={fd},server=on,wait=off"),
                *("-mon", "chardev=qmp,mode=control"),
            ],
            pass_fds=(fd,),
        )
    yield path
    qemu.kill()
    qemu.wait()


def test_greeting_and_commands(qmp_socket: Path) -> None:
    with QmpClient(qmp_socket) as qmp:
        assert qmp.version.count(".") == 2
        assert qmp.execute("query-status")["running"] is True
        assert "running" in qmp.monitor("info status")
    with QmpClient(qmp_socket) as qmp:  # the next client gets its turn
        qmp.execute("query-name")


def test_several_commands_in_one_write(qmp_socket: Path) -> None:
    with QmpClient(qmp_socket) as qmp:
        answers = qmp.pipeline([("stop", None), ("query-status", None), ("cont", {})])
        assert answers[1]["running"] is False
        assert [event["event"] for event in qmp.events] == ["STOP", "RESUME"]
        assert qmp.wait_event("RESUME", timeout_s=1)["event"] == "RESUME"
        assert not qmp.events


def test_refusal_names_command_class_and_reason(qmp_socket: Path) -> None:
    with QmpClient(qmp_socket) as qmp:
        with pytest.raises(QmpError, match=r"QEMU refused no-such: .*CommandNotFound") as caught:
            qmp.execute("no-such")
        assert caught.value.error_class == "CommandNotFound"
        qmp.execute("query-status")  # the connection is as good as before


def test_descriptors_are_passed(qmp_socket: Path) -> None:
    with QmpClient(qmp_socket) as qmp:
        fd = os.open("/dev/null", os.O_RDWR)
        added = qmp.execute("add-fd", {"fdset-id": 1}, fds=[fd])
        os.close(fd)
        assert added["fdset-id"] == 1


def test_waiting_has_an_end(qmp_socket: Path) -> None:
    with QmpClient(qmp_socket) as qmp, pytest.raises(Timeout):
        qmp.wait_event("SHUTDOWN", timeout_s=0.05)


def test_a_second_client_is_told(qmp_socket: Path) -> None:
    with QmpClient(qmp_socket), pytest.raises(Busy, match="another process"):
        QmpClient(qmp_socket, timeout_s=0.1)


def test_end_of_qemu(qmp_socket: Path) -> None:
    with QmpClient(qmp_socket) as qmp:
        qmp.execute("quit")
        with pytest.raises(QmpClosed):
            qmp.wait_event("NEVER", timeout_s=10)
    with pytest.raises(QmpClosed, match=r"not running|has ended"):
        QmpClient(qmp_socket)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(QmpClosed, match="not running"):
        QmpClient(tmp_path / "qmp.sock")
