"""Why QEMU did not start, told from what it printed."""

import re

from thinvirt.errors import (
    Busy,
    Conflict,
    ProgramMissing,
    QemuFailed,
    TemporaryFailure,
    ThinvirtError,
    UsageError,
)
from thinvirt.run.ports import holder_of_port
from thinvirt.vm.spec import GraphicsSpec, VmSpec
from thinvirt.vm.spec.words import VNC_BASE_PORT

_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ", re.MULTILINE)
_PROGRAM = re.compile(r"^(?:\S*/)?qemu-system-\S+: ", re.MULTILINE)
_FORWARD = re.compile(r"Could not set up host forwarding rule '(?P<rule>[^']*)'")
_CHATTER = re.compile(r"VNC server running on .*|.*module ui-ui-\w+ not found.*")
_LINES_QUOTED = 6


class ScreenPortTaken(Conflict):
    """The port of the screen is taken."""


def explain(
    said: str, status: int | None, spec: VmSpec, error: QemuFailed | None = None
) -> ThinvirtError:
    """Return the error for a QEMU that did not start.

    Args:
        said: what it printed.
        status: its exit status, negative for a signal; None if it did not end.
        spec: what it was asked for.
        error: what its control socket told, if anything.
    """
    words = quote(said)
    known = _known_trouble(said, words, spec)
    if known is not None:
        return known
    if words:
        return QemuFailed(f"QEMU did not start: {words}")
    if status is not None and status < 0:
        return QemuFailed(
            f"QEMU was killed by signal {-status} while it started",
            hint="dmesg tells if the kernel ran out of memory",
        )
    return error or QemuFailed(f"QEMU ended with status {status} and said nothing")


def _known_trouble(said: str, words: str, spec: VmSpec) -> ThinvirtError | None:
    """Return the error for a complaint that has a class, or a remedy, of its own."""
    forward = _FORWARD.search(said)
    if forward is not None:
        return _port_taken(forward["rule"])
    screen = _screen_trouble(said, words, spec)
    if screen is not None:
        return screen
    if "failed to initialize kvm" in words:
        return QemuFailed(
            f"QEMU did not start: {words}",
            hint="without THINVIRT_ACCEL=kvm what works on this host is found out",
        )
    if "Failed to get" in words and "lock" in words:
        return Busy(
            "another process has the VM's disk open",
            hint="was QEMU or qemu-img started on it by hand? fuser names the process",
        )
    if "Cannot allocate memory" in words or "cannot set up guest memory" in words:
        return TemporaryFailure(
            "this host has not enough free memory for the VM", hint=f"QEMU says: {words}"
        )
    return None


def _screen_trouble(said: str, words: str, spec: VmSpec) -> ThinvirtError | None:
    graphics = spec.graphics
    if "Failed to find an available port" in said or ("-vnc" in words and "in use" in words):
        return _screen_port_taken(graphics)
    if "failed to initialize spice server" in words or "Cannot assign requested" in words:
        return screen_refused(graphics, words)
    if "spice" in words and ("is not a valid option" in words or "invalid option" in words):
        return ProgramMissing(
            "this QEMU has no SPICE", hint="apt-get install qemu-system-modules-spice; or VNC"
        )
    return None


def screen_refused(graphics: GraphicsSpec, words: str) -> ThinvirtError:
    """Return why an address and port could not be had, which SPICE's library does not say."""
    from thinvirt.run.screen import free_port

    try:
        free_port(graphics.listen)
    except UsageError as error:
        return error
    except Conflict:
        pass
    if "SPICE sockets" in words or "in use" in words:
        return _screen_port_taken(graphics)
    return QemuFailed(f"QEMU did not start: {words}")


def _screen_port_taken(graphics: GraphicsSpec) -> ScreenPortTaken:
    name = graphics.kind.upper()
    port = graphics.port
    if port is None:
        return ScreenPortTaken(f"no port for {name} is free from {VNC_BASE_PORT} on")
    return ScreenPortTaken(
        f"port {port} for {name} is taken{holder_of_port(port)}",
        hint="free it, or make the VM without a port of its own choice",
    )


def quote(said: str) -> str:
    """Return QEMU's complaints on one line, without time stamps, its own name, and chatter."""
    text = _PROGRAM.sub("", _STAMP.sub("", said))
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not _CHATTER.fullmatch(line)]
    return "; ".join(lines[-_LINES_QUOTED:])


def _port_taken(rule: str) -> Conflict:
    """Return the error for a forwarding rule, ``tcp:127.0.0.1:8080-:80``."""
    head = rule.partition("-")[0]
    protocol, _, rest = head.partition(":")
    address, _, port = rest.rpartition(":")
    return Conflict(
        f"port {port}/{protocol} of {address or 'this host'} is taken"
        f"{holder_of_port(int(port), protocol)}",
        hint="free it, or make the VM with another host port: --forward HOST:GUEST"
        if int(port) >= 1024
        else "ports below 1024 are for root: make the VM with another: --forward HOST:GUEST",
    )
