"""A libvirt of the tests' own: its daemon, state, configuration and network are nobody else's.

It lives in namespaces (mounts, network, processes) that end with it, so nothing is left behind
whatever happens to the test.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""
_START = """\
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount --bind "$1/etc" /etc/libvirt
for name in lib cache log; do
    mkdir -p "$1/$name" "/var/$name/libvirt"
    mount --bind "$1/$name" "/var/$name/libvirt"
done
ip link set lo up
/usr/sbin/libvirtd -f "$1/etc/libvirtd.conf" -p "$1/pid" &
wait
"""  # the shell stays: as init of its namespace it takes the dead, which libvirtd would not
_NETWORK = "<network><name>default</name><bridge name='virbr0'/></network>"
_PROGRAMS = ("libvirtd", "virsh", "unshare", "ip", "virt-install", "xmllint")
START_LIMIT_S = 120.0
_AT_ONCE = 100  # commands in one word of virsh's command line


class Missing(Exception):
    """This machine cannot run a libvirt of its own."""


class Libvirt:
    """A running daemon."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]") -> None:
        self.folder = folder
        self.process = process
        self.uri = f"qemu+unix:///system?socket={folder}/sock/libvirt-sock"

    def virsh(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run one virsh command."""
        command = ["virsh", "-q", "-c", self.uri, *words]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def many(self, commands: Sequence[str]) -> list[tuple[str, str]]:
        """Run many commands in one virsh, and return output and errors of each."""
        found: list[tuple[str, str]] = []
        for first in range(0, len(commands), _AT_ONCE):
            some = commands[first : first + _AT_ONCE]
            done = self.virsh("; ".join(_marked(some)), check=False)
            outs, errs = done.stdout, done.stderr
            for n in range(len(some)):
                out, mark, outs = outs.partition(f"MARK-{n}.")
                err, _, errs = errs.partition(f"error: MARK-{n}.")
                assert mark, f"virsh ended early: {done.stderr[-300:]}"
                found.append((out.strip(), err.strip()))
        return found

    @property
    def init(self) -> int:
        """Return the first process of the namespaces, as seen from outside: for `nsenter`."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])


def _marked(commands: Sequence[str]) -> Iterator[str]:
    for number, command in enumerate(commands):
        yield command
        yield f"echo MARK-{number}."
        yield f"echo --err MARK-{number}."


@contextmanager
def private_libvirt(folder: Path) -> Iterator[Libvirt]:
    """Run a libvirt with its state in `folder`, which needs a short path: it holds sockets.

    Raises:
        Missing: a program for it is not installed, or the user may not make namespaces.
    """
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]
    if missing:
        raise Missing(f"not installed: {', '.join(missing)}")
    etc = folder / "etc"
    etc.mkdir(parents=True)
    (etc / "qemu.conf").write_text(_QEMU_CONF)
    (etc / "libvirtd.conf").write_text(
        f'unix_sock_dir = "{folder}/sock"\nauth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\n'
    )
    (folder / "sock").mkdir()
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    log = (folder / "daemon.log").open("w")
    process = subprocess.Popen(
        ["unshare", *as_root, "--mount", "--net", "--uts", "--pid", "--fork", "--kill-child",
         "--mount-proc", "sh", "-c", _START, "sh", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )  # fmt: skip
    libvirt = Libvirt(folder, process)
    try:
        _wait(libvirt)
        (folder / "network.xml").write_text(_NETWORK)
        libvirt.virsh("net-define", str(folder / "network.xml"))
        yield libvirt
    finally:
        process.send_signal(signal.SIGKILL)  # --kill-child: all of its processes go with it
        process.wait()
        log.close()


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _wait(libvirt: Libvirt) -> None:
    limit = time.monotonic() + START_LIMIT_S
    while libvirt.virsh("version", check=False).returncode:
        if libvirt.process.poll() is not None or time.monotonic() > limit:
            raise Missing(f"libvirtd: {(libvirt.folder / 'daemon.log').read_text()[-800:]}")
        time.sleep(0.1)
