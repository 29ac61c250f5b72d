"""Ports of screens, their passwords, and what is told of them."""

import socket
import stat
from pathlib import Path

import pytest

from thinvirt.errors import Conflict, UsageError
from thinvirt.run.qemu_trouble import ScreenPortTaken, explain
from thinvirt.run.screen import free_port, write_password
from thinvirt.vm.screen import screen_remarks
from thinvirt.vm.spec import GraphicsSpec, VmSpec
from thinvirt.vm.spec.words import LOOPBACK


def test_a_taken_port_is_passed_over() -> None:
    first = free_port(LOOPBACK)
    with socket.create_server((LOOPBACK, first)):
        assert free_port(LOOPBACK) > first


@pytest.mark.parametrize("address", ["203.0.113.7", "no such host"])
def test_an_address_of_somebody_else(address: str) -> None:
    with pytest.raises(UsageError, match=address):
        free_port(address)


def test_a_password_is_private_and_never_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "victim"
    target.write_text("kept")
    path = tmp_path / "password"
    path.symlink_to(target)
    write_password(path, "sésame")
    assert target.read_text() == "kept"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == "sésame".encode()


SPICE_SAID = """qemu-system-x86_64: warning: Spice: reds.cpp:2585:reds_init_socket: binding failed
qemu-system-x86_64: warning: Spice: reds.cpp:3442:do_spice_init: Failed to open SPICE sockets
qemu-system-x86_64: failed to initialize spice server
"""


def test_why_spice_did_not_start() -> None:
    """Its library tells neither the port's holder nor a wrong address; we look."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        spec = VmSpec(graphics=GraphicsSpec("spice", LOOPBACK, port))
        error = explain(SPICE_SAID, 1, spec)
    assert isinstance(error, ScreenPortTaken)
    assert isinstance(error, Conflict)
    assert f"port {port} for SPICE is taken by process" in str(error)
    wrong = explain(SPICE_SAID, 1, VmSpec(graphics=GraphicsSpec("spice", "203.0.113.7")))
    assert isinstance(wrong, UsageError)
    assert "203.0.113.7" in str(wrong)


@pytest.mark.parametrize(
    ("graphics", "told"),
    [
        (GraphicsSpec("vnc", "0.0.0.0"), "without a password"),
        (GraphicsSpec("vnc", "::"), "without a password"),
        (GraphicsSpec("spice", ""), "without a password"),
        (GraphicsSpec("vnc", "0.0.0.0", None, "sesame"), "8 characters"),
        (GraphicsSpec("spice", "0.0.0.0", None, "sesame"), "encrypted"),
    ],
)
def test_what_is_open_to_all_is_told(graphics: GraphicsSpec, told: str) -> None:
    (remark,) = screen_remarks(graphics)
    assert told in remark
    assert "ssh -L" in remark


@pytest.mark.parametrize(
    "graphics", [GraphicsSpec(), GraphicsSpec("none", "0.0.0.0"), GraphicsSpec("spice", "::1")]
)
def test_what_is_not_open_is_not_worth_a_word(graphics: GraphicsSpec) -> None:
    assert not list(screen_remarks(graphics))
