"""A VM's place on a bridge of the host: a tap device that QEMU's bridge helper makes.

The helper is set-user-id root and asks ``/etc/qemu/bridge.conf`` whether the bridge is for
everybody. We run it, not QEMU, whose sandbox forbids it to start programs.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thinvirt.errors import Conflict, NotFound, ProgramMissing, QemuFailed, ThinvirtError

HELPERS = (
    Path("/usr/lib/qemu/qemu-bridge-helper"),
    Path("/usr/libexec/qemu-bridge-helper"),
    Path("/usr/libexec/qemu/qemu-bridge-helper"),
)
ACCESS_LIST = Path("/etc/qemu/bridge.conf")
_INTERFACES = Path("/sys/class/net")
_TIMEOUT_S = 10.0
# Where libvirtd keeps its networks: those that are up, and all of them.
_NETWORK_FOLDERS = (Path("/run/libvirt/network"), Path("/etc/libvirt/qemu/networks"))
_BRIDGE = re.compile(r"<bridge\b[^>]*\bname=(['\"])(?P<name>[^'\"<>]+)\1")


@contextmanager
def tap_on(bridge: str) -> Iterator[int]:
    """Give a tap device on a bridge, for QEMU to inherit.

    Raises:
        NotFound: there is no such bridge.
        ProgramMissing: QEMU's bridge helper is not installed.
        Conflict, QemuFailed: the helper may not, or cannot; how to let it is told.
    """
    require_bridge(bridge)
    fd = _ask_helper(_helper(), bridge)
    try:
        yield fd
    finally:
        os.close(fd)


def require_bridge(bridge: str) -> None:
    """Return if this host has a bridge of this name.

    Raises:
        NotFound: it has not; what there is is named.
    """
    if not _exists(bridge) or not _may_be_bridge(bridge):
        there = sorted(path.parent.name for path in _INTERFACES.glob("*/bridge"))
        raise NotFound(
            f"there is no bridge '{bridge}' on this host",
            hint=f"there are: {', '.join(there)}"
            if there
            else f"ip link add {bridge} type bridge; ip link set {bridge} up",
        )


def _exists(interface: str) -> bool:
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def _may_be_bridge(interface: str) -> bool:
    """Tell whether it is one, as far as sysfs shows it: that may be another namespace's."""
    folder = _INTERFACES / interface
    return (folder / "bridge").is_dir() or not folder.is_dir()


def _helper() -> Path:
    for path in HELPERS:
        if path.is_file():
            return path
    raise ProgramMissing(
        "QEMU's bridge helper is not installed", hint="apt-get install qemu-system-common"
    )


def _ask_helper(helper: Path, bridge: str) -> int:
    """Run the helper and return the tap device it sends."""
    from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with theirs:
            process = Popen(
                [helper, "--use-vnet", f"--br={bridge}", f"--fd={theirs.fileno()}"],
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=PIPE,
                pass_fds=(theirs.fileno(),),
                text=True,
                errors="replace",
            )
        with process:
            try:
                _, said = process.communicate(timeout=_TIMEOUT_S)
            except TimeoutExpired:
                process.kill()
                raise QemuFailed(f"{helper} did not answer within {_TIMEOUT_S:g} s") from None
        if process.returncode:
            raise helper_trouble(helper, bridge, said.strip())
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        raise QemuFailed(f"{helper} sent no tap device")
    os.set_inheritable(fds[0], False)
    return fds[0]


def helper_trouble(helper: Path, bridge: str, said: str) -> ThinvirtError:
    """Return the error for a helper that refused, with what lets it.

    Args:
        helper: the program.
        bridge: the bridge it was asked for.
        said: what it printed.
    """
    allow = f"as root: echo 'allow {bridge}' >> {ACCESS_LIST}"
    if "failed to parse default acl file" in said:
        return Conflict(
            f"no user may put VMs on bridges of this host: there is no {ACCESS_LIST}",
            hint=f"as root: mkdir -p {ACCESS_LIST.parent}; {allow.partition(': ')[2]}",
        )
    if "access denied by acl" in said:
        return Conflict(f"{ACCESS_LIST} does not allow bridge '{bridge}'", hint=allow)
    if "Operation not permitted" in said or "Permission denied" in said:
        if not helper.stat().st_mode & 0o4000 and os.geteuid():
            return Conflict(
                f"{helper} is not set-user-id root, so only root puts VMs on bridges",
                hint=f"as root: chmod u+s {helper}; or --network user",
            )
        return QemuFailed(f"a tap device on bridge '{bridge}' is not permitted: {said}")
    return QemuFailed(f"no place on bridge '{bridge}': {said or 'the helper said nothing'}")


def bridge_of_network(name: str) -> str:
    """Return the bridge of a libvirt network.

    Raises:
        NotFound: there is no such network, or it cannot be seen by this user.
        Conflict: it has no bridge.
    """
    text = _network_definition(name)
    found = _BRIDGE.search(text)
    if found is None:
        raise Conflict(
            f"libvirt's network '{name}' has no bridge of its own to put a VM on",
            hint="--network bridge=NAME for a bridge of this host",
        )
    if not _exists(found["name"]):
        raise NotFound(
            f"libvirt's network '{name}' is not up: there is no bridge '{found['name']}'",
            hint=f"virsh -c qemu:///system net-start {name}",
        )
    return found["name"]


def _network_definition(name: str) -> str:
    """Return the XML of a libvirt network: from its files where they can be read, else by virsh."""
    for folder in _NETWORK_FOLDERS:
        try:
            return (folder / f"{name}.xml").read_text(encoding="utf-8")
        except OSError:
            continue  # another user's, or not there: virsh asks the daemon
    from subprocess import DEVNULL, TimeoutExpired, run

    try:
        done = run(
            ["virsh", "-c", "qemu:///system", "net-dumpxml", name],
            stdin=DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            env=os.environ | {"LC_ALL": "C"},
        )
    except FileNotFoundError:
        said = "virsh is not installed"
    except TimeoutExpired:
        said = "libvirt did not answer"
    else:
        if done.returncode == 0:
            return done.stdout
        lines = done.stderr.strip().removeprefix("error: ").splitlines()
        said = lines[0] if lines else "virsh failed"
    raise NotFound(
        f"libvirt's network '{name}' is not there for this user: {said}",
        hint="virsh -c qemu:///system net-list --all; or --network user",
    )
