"""How far a guest's boot has come, read from what it prints. Pure: bytes and times in, facts out.

The stages stand in `STAGES` as data: what proves each, and what a guest that stays there usually
waits for. `BootWatch` is fed the serial console (and the firmware's own output) as it comes, in
pieces cut anywhere, and knows the stage, when each was reached, the last lines, and the host name
in the login prompt. Its memory is bounded however much a guest prints.

Two stages of equal rank (cloud-init and network) take turns: distributions run them in either
order, some twice. Otherwise a boot only moves up, until something is printed that can only be the
beginning of a new boot (`Stage.fresh`).
"""

import codecs
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Final


class Source(StrEnum):
    """Where a line was printed."""

    SERIAL = "serial"  # the guest's first serial port
    FIRMWARE = "firmware"  # what SeaBIOS says on its debug port 0x402


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a boot.

    Attributes:
        id: stable, for programs: JSON output carries it.
        title: for people.
        rank: a boot moves to stages of the same or a higher rank only, within one boot.
        waits_for: what a guest that stays in this stage is usually waiting for.
        fresh: regular expressions for lines printed only when this stage begins; seen later in a
            boot, they prove that a new boot has begun.
        evidence: regular expressions for lines that prove the stage was reached.
        firmware_fresh, firmware_evidence: the same, on the firmware's own output.
    """

    id: str
    title: str
    rank: int
    waits_for: str
    fresh: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    firmware_fresh: tuple[str, ...] = ()
    firmware_evidence: tuple[str, ...] = ()


FIRMWARE: Final = Stage(
    "firmware",
    "firmware",
    0,
    "a disk it can boot from: the image has no boot loader for this firmware, "
    "or the guest prints nothing on its serial console",
    fresh=(
        r"^SeaBIOS \(version ",
        r"^BdsDxe: (?:loading|failed to load) Boot",
        r"^UEFI Interactive Shell ",
        r"\] (?:reboot: )?Restarting system\b",
    ),
    firmware_fresh=(r"^SeaBIOS \(version ", r"^SecCoreStartupWithStack", r"^PROGRESS CODE: V02"),
)
BOOT_LOADER: Final = Stage(
    "boot-loader",
    "boot loader",
    1,
    "a key press, a menu's time-out, or files it cannot read from its disk; or it is past that and "
    "a kernel with 'quiet' says nothing yet",
    fresh=(
        r"^GRUB loading",
        r"^Welcome to GRUB!",
        r"^(?:SYS|ISO|EXT|PXE)LINUX \d",
    ),
    evidence=(
        r"GNU GRUB +version",
        r"^ *Booting [`'\"]",
        r"^Loading (?:Linux|vmlinuz|/?(?:boot/)?(?:vmlinuz|bzImage|initr)|initial ramdisk)",
        r"^BdsDxe: starting Boot",
        r"^boot: *$",
        r"^(?:systemd-boot|Limine|LILO) [\dv]",
        r"^grub(?: rescue)?> ",
    ),
    firmware_evidence=(r"^Booting from [0-9a-fA-F]{4}:[0-9a-fA-F]{4}",),
)
KERNEL: Final = Stage(
    "kernel",
    "kernel",
    2,
    "its root file system: a missing driver for the disk's bus, or too little memory",
    fresh=(r"^\[ +0\.000000\] Linux version ", r"^Decompressing Linux", r"^early console in "),
    evidence=(
        r"^\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ",
        r"^Linux version \d",
        r"^EFI stub: ",
        r"^Booting the kernel",
        r"Kernel panic - not syncing",
    ),
)
INIT: Final = Stage(
    "init",
    "init",
    3,
    "a service that does not finish starting, or a file system it cannot mount",
    evidence=(
        r"Run /\S*init\S* as init process",
        r"^(?:Loading, please wait\.\.\.|Begin: )",
        r"systemd\[1\]: ",
        r"^Welcome to (?!GRUB).+!$",
        r"^\[(?:  OK  |FAILED|DEPEND| INFO | WARN | TIME |[ *]{6})\] ",
        r"^ {9}(?:Starting|Mounting|Expecting|Activating) ",
        r"^(?:\[ *\d+\.\d+\] )?dracut",
        r"^Starting (?:systemd-udevd )?version \d",
        r"^ *OpenRC [\d.]+.* is starting up",
        r"^ \* (?:Starting|Mounting|Setting|Loading|Checking|Remounting|Caching|Configuring) ",
        r"^INIT: (?:version|Entering runlevel)",
        r"^init started: BusyBox",
        r"^(?:Alpine Init|info: initramfs: |info: copying initramfs)",
        r"^=== (?:system information|cirros:)",
        r"^Starting (?:syslogd|klogd|acpid|logging)",
        r"^(?:thinvirt-tiny: )?init\b",
    ),
)
CLOUD_INIT: Final = Stage(
    "cloud-init",
    "cloud-init",
    4,
    "a metadata service it has no answer from, or the commands of its user-data",
    evidence=(
        r"cloud-init\[\d+\]: ",
        r"^Cloud-init v\. ",
        r"^(?:\[ *\d+\.\d+\] )?ci-info: ",
        r"(?:Starting|Started|Finished|Reached target) .*\b[Cc]loud-(?:init|config)\b",
        r"^ \* Starting cloud-(?:init|config|final)",
        r"^checking http://169\.254\.169\.254/",
        r"^failed \d+/\d+: up [\d.]+\. request failed",
        r"^=== datasource: ",
        r"^thinvirt-tiny: (?:seed|user-data)\b",
    ),
)
NETWORK: Final = Stage(
    "network",
    "network",
    4,
    "an address: no DHCP server answers, or a service waits for the network to be online",
    evidence=(
        r"Reached target network(?:-online)?\.target|Reached target .*\bNetwork\b",
        r"(?:Starting|Started) .*(?:Network Configuration|Network Service|NetworkManager|"
        r"[Nn]etworking|dhcpcd|network interfaces)",
        r"A start job is running for .*[Nn]etwork",
        r"^udhcpc: ",
        r"^dhcpcd-[\d.]+ starting|^dhclient|DHCPDISCOVER on|DHCPACK of|^bound to \d",
        r"^Starting network",
        r"^=== network info",
        r"Starting (?:dropbear|sshd|OpenSSH|OpenBSD Secure Shell)|^Starting .*\bssh server",
        r"^thinvirt-tiny: network\b",
    ),
)
LOGIN: Final = Stage("login", "login", 5, "somebody to log in: the guest is up")

STAGES: Final = (FIRMWARE, BOOT_LOADER, KERNEL, INIT, CLOUD_INIT, NETWORK, LOGIN)
STAGE_BY_ID: Final = {stage.id: stage for stage in STAGES}

# Not on the road to the prompt: facts that are asked of the guest, not read from what it prints.
SSH: Final = Stage("ssh", "SSH", 6, "its SSH server to send its banner")
AGENT: Final = Stage("agent", "guest agent", 6, "qemu-guest-agent to answer")
FACTS: Final = (SSH, AGENT)

# The prompt of getty, agetty and busybox: the host name first, nothing before it on its line.
_HOST = r"(?:\(none\)|[A-Za-z0-9][A-Za-z0-9._-]{0,252})"
_PROMPT = re.compile(rf"(?:(?P<host>{_HOST}) )?login: ?")
_NOT_HOSTS = frozenset(("last", "failed", "first", "next", "invalid", "bad", "root", "user"))
_AUTOMATIC = re.compile(r"\S+ \(automatic login\)$")
_TYPED = re.compile(r"\S{1,64}$")
# "OpenBSD/amd64 (web-001.my.domain) (tty00)": BSD's getty asks "login:" below it, without a name.
_BSD_ISSUE = re.compile(r"\S+/\S+ \((?P<host>\S+)\) \(tty\S+\)$")
# What others print into a line that getty has begun: the kernel, systemd, cloud-init, OpenRC.
_INTERJECTION = (
    r"\[ *\d+\.\d+\]|\[[ A-Z*]{6}\] |<\d+>|ci-info: |cloud-init\[\d+\]: |Cloud-init v\. |"
    r"systemd\[1\]: | {9}[A-Z][a-z]+ing | \* [A-Z]"
)
_INTERRUPTED = re.compile(rf"(?P<begun>{_HOST}?(?: ?l?o?g?i?n?:? ?)?)(?:{_INTERJECTION})")

MAX_LINE: Final = 4096  # characters of one line that are looked at; a longer one is cut into pieces
PROMPT_STANDS_S: Final = 1.0  # after so long, what follows "login: " does not take it back
SHOWN_LINE: Final = 300  # characters of a line that are kept for showing


@dataclass(frozen=True, slots=True)
class Sighting:
    """When a stage was first seen in this boot, and what proved it."""

    stage: Stage
    at_s: float  # seconds on the caller's clock, usually since the VM was started
    source: Source
    line: str


class _Lines:
    """The lines that any of some patterns finds; those bound to the line's start are tried once."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        bound = [pattern for pattern in patterns if pattern.startswith("^")]
        free = [pattern for pattern in patterns if not pattern.startswith("^")]
        self._bound = re.compile("|".join(bound)) if bound else None
        self._free = re.compile("|".join(free)) if free else None

    def contain(self, line: str) -> bool:
        """Tell whether `line` is one of them."""
        if self._bound is not None and self._bound.match(line):
            return True
        return self._free is not None and self._free.search(line) is not None


@cache
def _proofs(source: Source) -> tuple[tuple[Stage, _Lines, _Lines], ...]:
    """Each stage that `source` can prove, the highest first, with its fresh lines and evidence."""
    if source is Source.FIRMWARE:
        told = [(s, s.firmware_fresh, s.firmware_evidence) for s in STAGES]
    else:
        told = [(s, s.fresh, s.evidence) for s in STAGES]
    proofs = [(s, _Lines(fresh), _Lines(evidence)) for s, fresh, evidence in told]
    return tuple(sorted(proofs, key=lambda proof: -proof[0].rank))


def evidence_in(line: str, source: Source, *, at: Stage) -> tuple[Stage, bool] | None:
    """Return the stage that a line proves for a boot standing `at` a stage, or None.

    The second value tells whether the line proves a new boot. A stage of a lower rank is
    proved only by the lines that begin it.
    """
    for stage, fresh, evidence in _proofs(source):
        if fresh.contain(line):
            return stage, stage.rank < at.rank
        if stage.rank >= at.rank and evidence.contain(line):
            return stage, False
    return None


_SCREEN = re.compile(r"\x1b\[[0-?]*[ -/]*[HfJ]|\x1bc|\x0c")  # moves elsewhere: a new line for us
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, modes
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC, DCS and their like: titles
    r"|\x1b[ -/]+[0-~]|\x1b[0-Z\\^-~]"  # other escapes
    r"|[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x9f]"  # what is left of control characters
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]{0,256}\x1b?|[ -/]*)$")


class LineReader:
    """Turns bytes of a terminal, cut anywhere, into lines of plain text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._raw = ""  # the line begun, with its control sequences

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the lines that `data` completes; a carriage return alone ends a line too."""
        text = self._raw + self._decoder.decode(data)
        if "\x1b" in text or "\x0c" in text:
            text = _SCREEN.sub("\n", text)
        *complete, self._raw = text.split("\n")
        for line in complete:
            for start in range(0, max(1, len(line)), MAX_LINE):
                yield from _overwritten(line[start : start + MAX_LINE])
        while len(self._raw) > MAX_LINE:
            yield from _overwritten(self._raw[:MAX_LINE])
            self._raw = self._raw[MAX_LINE:]

    @property
    def unfinished(self) -> str:
        """The line begun: what stands left of the cursor."""
        parts = _overwritten(_UNFINISHED.sub("", self._raw))
        return parts[-1] if parts else ""


def _overwritten(line: str) -> list[str]:
    """Return what a terminal showed one after the other in one line, as plain text."""
    if line.isprintable():  # the most frequent case, and quick
        return [line]
    parts = [_CONTROL.sub("", part) for part in line.split("\r") if part]
    return [part for part in parts if part] or [""]


@dataclass(slots=True)
class _Prompt:
    """The login prompt as seen so far."""

    carried: str = ""  # the begun line of getty into which others have printed
    typed_host: str = ""  # "HOST login: somebody" stood complete: a prompt if a password is asked
    before: "tuple[Stage, dict[str, Sighting], str | None] | None" = None  # to take it back


@dataclass(slots=True)
class BootWatch:
    """Follows one VM's boot through what it prints.

    Attributes:
        expected_hostname: the name the guest should have; lets a prompt be recognised where
            somebody has typed after it already.
        keep_lines: how many last lines are kept.
        stage: where the boot stands. A VM that has printed nothing is in its firmware.
        reached: for each stage id seen in this boot, when and by what line.
        hostname: the name in the login prompt; None without a prompt or a name in it.
        boots: how many boots have begun, the first included.
        bytes_seen: how much was fed, both sources together.
    """

    expected_hostname: str | None = None
    keep_lines: int = 20
    stage: Stage = FIRMWARE
    reached: dict[str, Sighting] = field(default_factory=dict)
    hostname: str | None = None
    bytes_seen: int = 0
    _boots: dict[Source, int] = field(default_factory=lambda: dict.fromkeys(Source, 0))
    _readers: dict[Source, LineReader] = field(
        default_factory=lambda: {source: LineReader() for source in Source}
    )
    _lines: deque[str] = field(default_factory=deque)
    _prompt: _Prompt = field(default_factory=_Prompt)

    @property
    def boots(self) -> int:
        """How many boots have begun."""
        return 1 + max(self._boots.values())

    @property
    def at_login(self) -> bool:
        """Whether a login prompt was shown in this boot."""
        return self.stage is LOGIN

    def last_lines(self, count: int | None = None) -> list[str]:
        """Return the last lines of the serial console without blank ones, the begun one last."""
        begun = self._readers[Source.SERIAL].unfinished.rstrip()[:SHOWN_LINE]
        lines = [*self._lines, *([begun] if begun else [])]
        return lines[-(count or self.keep_lines) :]

    def feed(self, data: bytes, at_s: float, source: Source = Source.SERIAL) -> bool:
        """Take in what was printed and return whether the stage changed.

        Args:
            data: the next bytes, cut anywhere; any bytes at all.
            at_s: the time they were seen, on the caller's clock.
            source: where they were printed.
        """
        if not data:
            return False
        before = self.stage, self.boots
        self.bytes_seen += len(data)
        if self.stage is LOGIN and source is Source.SERIAL and len(data) > 4 * MAX_LINE:
            data = _worth_reading(data)
        for line in self._readers[source].feed(data):
            self._take_line(line, at_s, source)
        if source is Source.SERIAL:
            self._take_begun_line(at_s)
        return (self.stage, self.boots) != before

    def _take_line(self, line: str, at_s: float, source: Source) -> None:
        if source is Source.SERIAL:
            if line.strip():
                self._lines.append(line.rstrip()[:SHOWN_LINE])
                if len(self._lines) > self.keep_lines:
                    self._lines.popleft()
            self._take_prompt_line(line, at_s)
        found = evidence_in(line, source, at=self.stage)
        if found is None:
            return
        stage, new_boot = found
        if new_boot:
            self._boots[source] += 1
            self.reached = {}
            self.hostname = None
            self._prompt = _Prompt()
        self._reach(stage, at_s, source, line)

    def _reach(self, stage: Stage, at_s: float, source: Source, line: str) -> None:
        self.stage = stage
        if stage.id not in self.reached:
            self.reached[stage.id] = Sighting(stage, at_s, source, line.strip()[:SHOWN_LINE])

    def _take_begun_line(self, at_s: float) -> None:
        """See whether the line at the cursor is a prompt; a later look may take that back."""
        begun = self._prompt.carried + self._readers[Source.SERIAL].unfinished
        if begun.startswith("Password:") and self._prompt.typed_host:
            self._login(self._prompt.typed_host, begun, at_s)
        match = _PROMPT.match(begun)
        if match is None or not self._may_be_host(match["host"]):
            return
        typed = begun[match.end() :].rstrip()
        if not typed or _TYPED.match(typed):
            if self.stage is not LOGIN:
                self._prompt.before = self.stage, dict(self.reached), self.hostname
            self._login(match["host"] or self._bsd_host(), begun, at_s)

    def _take_prompt_line(self, line: str, at_s: float) -> None:
        """See whether a completed line was a prompt, or proves that what looked like one was not.

        Others print into a line that getty has begun ("web-001 lo[   7.1] usb 1-1: …"): the part
        before is carried over to what follows.
        """
        whole, carried = self._prompt.carried + line, self._prompt.carried
        self._prompt.carried = ""
        if other := _INTERRUPTED.match(line):
            whole = self._prompt.carried = carried + other["begun"]
        elif "login:" not in whole and not whole.startswith("Password:"):
            whole = ""
        match = _PROMPT.match(whole)
        before, self._prompt.before = self._prompt.before, None
        typed_host, self._prompt.typed_host = self._prompt.typed_host, ""
        if match is None or not self._may_be_host(match["host"]):
            if whole.startswith("Password:") and typed_host:
                self._login(typed_host, whole, at_s)
            return
        host, rest = match["host"] or "", whole[match.end() :].rstrip()
        if not rest or _AUTOMATIC.match(rest) or (host and host == self.expected_hostname):
            self._login(host or self._bsd_host(), whole, at_s)
        elif _TYPED.match(rest):
            self._prompt.typed_host = host
        elif before is not None and at_s - self.reached[LOGIN.id].at_s < PROMPT_STANDS_S:
            self.stage, self.reached, self.hostname = before  # ordinary text, cut after "login: "

    def _login(self, host: str | None, line: str, at_s: float) -> None:
        if host and host != "(none)":
            self.hostname = host
        self._reach(LOGIN, at_s, Source.SERIAL, line)

    def _bsd_host(self) -> str | None:
        """The host name in the issue text above a bare "login:"."""
        for line in reversed(self._lines):
            if match := _BSD_ISSUE.match(line):
                return match["host"]
        return None

    def _may_be_host(self, host: str | None) -> bool:
        return host is None or host == self.expected_hostname or host.lower() not in _NOT_HOSTS


_NEWS_AFTER_LOGIN = (
    *(b"login:", b"SeaBIOS (version", b"BdsDxe: ", b"Restarting system", b"UEFI Interactive"),
    *(b"Linux version ", b"GRUB", b"LINUX ", b"Decompressing Linux", b"early console"),
)


def _worth_reading(data: bytes) -> bytes:
    """Return a large piece without its middle if nothing in it can move a guest at its login."""
    if any(mark in data for mark in _NEWS_AFTER_LOGIN):
        return data
    return data[:MAX_LINE] + b"\n" + data[-2 * MAX_LINE :]
