"""Waiting for VMs: folders as QEMU keeps them, logs as guests write them, no QEMU needed."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from thinvirt.run import liveness, sockets
from thinvirt.run.folder import VmFolder
from thinvirt.run.liveness import RunState
from thinvirt.service.waiting import WaitResult, wait_folders


@dataclass
class FakeQemu:
    """What a running QEMU shows of itself: a held lock, facts, and logs that grow."""

    folder: VmFolder
    alive_fd: int = -1
    started_at: float = field(default_factory=time.time)

    def start(self, *, ssh_port: int | None = None) -> "FakeQemu":
        self.folder.run.mkdir(parents=True)
        self.folder.log.mkdir(parents=True, exist_ok=True)
        self.alive_fd = liveness.hold(self.folder.run)
        self.started_at = time.time()
        state = RunState(pid=1, start_ticks=1, started_at=self.started_at, ssh_port=ssh_port)
        liveness.write_state(self.folder.run, state)
        self.folder.console_log.write_bytes(b"")
        return self

    def say(self, text: str) -> None:
        with self.folder.console_log.open("ab") as log:
            log.write(text.encode())

    def die(self, words: str = "") -> None:
        if self.alive_fd >= 0:
            self.folder.qemu_log.write_text(words)
            os.close(self.alive_fd)
            self.alive_fd = -1


@pytest.fixture
def vms(tmp_path: Path) -> Iterator[list[FakeQemu]]:
    made = [
        FakeQemu(VmFolder(tmp_path / "run" / str(number), tmp_path / "log" / str(number)))
        for number in range(1, 4)
    ]
    yield made
    for vm in made:
        vm.die()


def named(vms: list[FakeQemu]) -> list[tuple[str, VmFolder]]:
    return [(f"web-{vm.folder.run.name:0>3}", vm.folder) for vm in vms]


class Script:
    """Does one thing after the other while the wait goes on, at the changes it reports."""

    def __init__(self, *steps: tuple[str, "object"]) -> None:
        self.steps = list(steps)
        self.seen: list[WaitResult] = []

    def __call__(self, result: WaitResult) -> None:
        self.seen.append(result)
        if self.steps and self.steps[0][0] == result.stage:
            act = self.steps.pop(0)[1]
            assert callable(act)
            act()


def test_each_vm_is_followed_to_its_prompt(vms: list[FakeQemu]) -> None:
    vm = vms[0].start()
    script = Script(
        ("firmware", lambda: vm.say("[    0.000000] Linux version 6.1\r\n")),
        ("kernel", lambda: vm.say("[    1.000000] Run /init as init process\r\nweb-0")),
        ("init", lambda: vm.say("01 login: ")),
    )
    (result,) = wait_folders(named([vm]), timeout_s=10, on_change=script)
    assert result.reached
    assert (result.stage, result.hostname, result.reason) == ("login", "web-001", "")
    assert list(result.stages) == ["kernel", "init", "login"]
    assert [seen.stage for seen in script.seen][:4] == ["firmware", "kernel", "init", "login"]
    assert result.to_facts()["name"] == "web-001"


def test_a_vm_that_came_long_ago_is_done_at_once_with_the_time_of_its_log(
    vms: list[FakeQemu],
) -> None:
    vm = vms[0].start()
    vm.say("web-001 login: ")
    os.utime(vm.folder.console_log, (vm.started_at + 5, vm.started_at + 5))
    state = RunState(pid=1, start_ticks=1, started_at=vm.started_at - 3600)
    liveness.write_state(vm.folder.run, state)
    os.utime(vm.folder.console_log, (state.started_at + 7.3, state.started_at + 7.3))
    began = time.monotonic()
    (result,) = wait_folders(named([vm]), timeout_s=60)
    assert result.reached
    assert result.elapsed_s == pytest.approx(7.3, abs=0.01)
    assert time.monotonic() - began < 30


def test_the_stuck_the_dead_and_the_stopped_are_told_with_their_reason(
    vms: list[FakeQemu],
) -> None:
    stuck, dead, stopped = vms
    stuck.start()
    stuck.say("[    0.000000] Linux version 6.1\r\nfailed 3/20: up 7.1. request failed\r\n")
    dead.start()
    script = Script(("firmware", lambda: dead.die("line one\nqemu: could not open disk\n")))
    results = wait_folders(named([dead, stuck, stopped]), timeout_s=1.0, on_change=script)
    assert [result.reached for result in results] == [False, False, False]
    assert results[0].reason == "it has ended; QEMU said: qemu: could not open disk"
    assert (results[1].stage, results[1].reason) == ("cloud-init", "not within 1 s")
    assert results[1].last_lines[-1] == "failed 3/20: up 7.1. request failed"
    assert results[2].reason == "it is not running"


def test_a_guest_that_powers_off_ends_its_wait(vms: list[FakeQemu]) -> None:
    vm = vms[0].start()
    script = Script(("firmware", vm.die))
    (result,) = wait_folders(named([vm]), timeout_s=30, on_change=script)
    assert (result.reached, result.reason) == (False, "it has powered off")


def test_a_vm_started_anew_is_followed_anew(vms: list[FakeQemu]) -> None:
    vm = vms[0].start()
    vm.say("[    0.000000] Linux version 6.1\r\n" + "x" * 1000)

    def restart() -> None:
        vm.folder.console_log.write_bytes(b"SeaBIOS (version 1.16)\r\n")
        state = RunState(pid=2, start_ticks=2, started_at=time.time())
        liveness.write_state(vm.folder.run, state)

    script = Script(("kernel", restart), ("firmware", lambda: vm.say("web-001 login: ")))
    (result,) = wait_folders(named([vm]), timeout_s=20, on_change=script)
    assert result.reached
    assert list(result.stages) == ["firmware", "login"]


def test_another_name_is_told_and_is_no_failure(vms: list[FakeQemu]) -> None:
    vm = vms[0].start()
    vm.say("cirros login: ")
    (result,) = wait_folders(named([vm]), timeout_s=10)
    assert (result.reached, result.other_name) == (True, "cirros")


def test_a_reboot_that_the_firmware_told_last_counts(vms: list[FakeQemu]) -> None:
    vm = vms[0].start()
    vm.say("web-001 login: ")
    os.utime(vm.folder.console_log, (vm.started_at, vm.started_at))
    vm.folder.firmware_log.write_text("SeaBIOS (version 1)\nSeaBIOS (version 1)\n")
    (result,) = wait_folders(named([vm]), timeout_s=0.5)
    assert (result.reached, result.stage) == (False, "firmware")


def test_the_first_of_two_waits_ends_by_an_exception_of_who_watches(vms: list[FakeQemu]) -> None:
    vm = vms[0].start()

    def interrupt(_: WaitResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_folders(named([vm]), timeout_s=10, on_change=interrupt)


def serve(server: socket.socket, *greetings: bytes) -> threading.Thread:
    """Answer one connection after the other with these words."""

    def work() -> None:
        for greeting in greetings:
            client, _ = server.accept()
            with client:
                client.sendall(greeting)
                client.recv(1)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_ssh_is_there_when_its_banner_comes(vms: list[FakeQemu]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        vm = vms[0].start(ssh_port=server.getsockname()[1])

        # The first connection is closed without a word, as QEMU does while no guest listens.
        def work() -> None:
            server.accept()[0].close()
            client, _ = server.accept()
            client.sendall(b"SSH-2.0-dropbear\r\n")
            client.close()

        threading.Thread(target=work, daemon=True).start()
        (result,) = wait_folders(named([vm]), until="ssh", timeout_s=20)
    assert result.reached


def test_ssh_without_a_user_network_cannot_come(vms: list[FakeQemu]) -> None:
    (result,) = wait_folders(named([vms[0].start()]), until="ssh", timeout_s=20)
    assert result.reason == "it has no user network that leads to its SSH port"


def test_a_connection_alone_is_no_ssh(vms: list[FakeQemu]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        vm = vms[0].start(ssh_port=server.getsockname()[1])
        serve(server, b"hello\r\n")
        (result,) = wait_folders(named([vm]), until="ssh", timeout_s=0.7)
    assert not result.reached


def test_the_agent_is_there_when_it_answers_our_question(vms: list[FakeQemu]) -> None:
    vm = vms[0].start()
    with sockets.listen(vm.folder.agent_socket) as server:

        def work() -> None:
            client, _ = server.accept()
            with client:
                question = client.recv(4096)
                number = question.rpartition(b'"id": ')[2].rstrip(b"}\n")
                client.sendall(b'\xff{"return": 1}\n')  # to somebody who left
                client.sendall(b'\xff{"return": ' + number + b"}\n")
                client.recv(1)

        threading.Thread(target=work, daemon=True).start()
        (result,) = wait_folders(named([vm]), until="agent", timeout_s=20)
    assert result.reached


def test_a_thousand_vms_cost_no_descriptors(tmp_path: Path, vms: list[FakeQemu]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    during: list[int] = []
    folders = [(f"n{i}", VmFolder(tmp_path / "r" / str(i), tmp_path / "l")) for i in range(1000)]

    def count(_: WaitResult) -> None:
        during.append(len(os.listdir("/proc/self/fd")))

    results = wait_folders([*folders, *named([vms[0].start()])], timeout_s=0, on_change=count)
    assert len(results) == 1001
    assert max(during) <= before + 3
