"""Making a tree that root owns, without being root.

Three ways, the first that works here is taken:

- root itself, in a mount and process namespace of its own;
- a user namespace whose root is the caller and whose other users are the caller's subordinate ids
  (/etc/subuid, /etc/subgid, the setuid programs of the package uidmap);
- fakeroot and fakechroot, which only pretend: slower, but every user may.

In the first two nothing outlives the command: its mounts and processes vanish with it, even if this
process is killed. The host is not changed in any of them.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from thinvirt.build.programs import ProgramFailed, environment, find_program, run_program
from thinvirt.errors import ProgramMissing

if TYPE_CHECKING:
    from subprocess import Popen

# Kill what runs inside when this process dies, and the whole namespace with it.
_DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
_NAMESPACE = ("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
_USER_NAMESPACE = (*_NAMESPACE, "--user", "--map-root-user", "--map-auto")

# Proof that one may mount and give files to other users: `_apt`, `nobody`, group `ssh`.
_PROBE = 'mount -t tmpfs none "$1" && : >"$1/f" && chown 42:65534 "$1/f"'

# Root could harm the host by a mistake in what it runs; here it can only write below "$1". Mounts
# below / keep their own modes: /dev and /run are needed, and nothing of a build goes there.
_SEAL = 'mount --bind "$1" "$1" && mount -o remount,bind,ro / && cd "$1" && shift && exec "$@"'


class Way(Enum):
    """How to be root of a tree."""

    ROOT = "as root"
    USER_NAMESPACE = "in a user namespace"
    PRETENCE = "with fakeroot and fakechroot"

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words before a command that shall own the tree."""
        if self is Way.ROOT:
            return (*_DIE_WITH_US, *_NAMESPACE)
        if self is Way.USER_NAMESPACE:
            return (*_DIE_WITH_US, *_USER_NAMESPACE)
        return (*_DIE_WITH_US, "fakeroot")


def choose_way(work: Path) -> Way:
    """Return the first way that works here, found by trying it.

    Args:
        work: an existing directory that may be mounted over, in a namespace of its own.

    Raises:
        ProgramMissing: no namespaces here, and fakeroot or fakechroot is not installed.
    """
    namespace_way = Way.ROOT if os.geteuid() == 0 else Way.USER_NAMESPACE
    try:
        run_program(*namespace_way.prefix, "sh", "-c", _PROBE, "sh", work)
    except (ProgramFailed, ProgramMissing) as refusal:
        try:
            for program in ("fakeroot", "fakechroot"):
                find_program(program)
        except ProgramMissing as missing:
            raise ProgramMissing(
                f"a root file system cannot be made here: no namespace ({refusal.message}), "
                f"and {missing.message}",
                hint="apt-get install uidmap fakeroot fakechroot",
            ) from refusal
        return Way.PRETENCE
    return namespace_way


def run_as_owner(way: Way, *command: str | Path) -> str:
    """Run a program as (apparent) root of the tree and return its standard output.

    Raises:
        ProgramFailed: it ended with an error.
    """
    return run_program(*way.prefix, *command)


def remove_tree(way: Way, tree: Path) -> None:
    """Remove a tree whose files may belong to subordinate ids; one that is not there is fine."""
    if tree.exists():
        run_as_owner(way, "rm", "-rf", "--one-file-system", "--", tree)


def follow_as_owner(
    way: Way,
    *command: str | Path,
    writable: Path,
    log: Path,
    env: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run a program as (apparent) root of the tree, yielding each line it prints, on either stream.

    Args:
        way: how; `Way.PRETENCE` leaves it to the program itself.
        command: the program and its arguments.
        writable: where it works; as root it can write nowhere else on that file system.
        log: where the lines are kept too.
        env: variables to add to the environment.

    Raises:
        ProgramFailed: it ended with an error.
    """
    import subprocess

    inner = [find_program(str(command[0])), *map(str, command[1:])]
    prefix = _DIE_WITH_US if way is Way.PRETENCE else way.prefix
    if way is Way.ROOT:
        prefix = (*prefix, "sh", "-c", _SEAL, "sh", str(writable))
    with log.open("w") as record:
        process = subprocess.Popen(
            [find_program(prefix[0]), *prefix[1:], *inner],
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            umask=0o022,
            start_new_session=True,  # Ctrl-C reaches us, and we end it: in that order
        )
        try:
            for line in process.stdout or ():
                record.write(line)
                yield line.rstrip("\n")
            status = process.wait()
        finally:
            if process.poll() is None:
                _end(process)
    if status != 0:
        raise ProgramFailed(str(command[0]), status, log.read_text(errors="replace"))


def _end(process: "Popen[str]") -> None:
    """End a program and what it started; it gets a moment to clean up behind itself."""
    import signal
    import subprocess

    for signal_number, patience_s in ((signal.SIGTERM, 5.0), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            return
