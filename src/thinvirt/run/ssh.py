"""The store's own key pair, and the OpenSSH command that reaches a guest with it."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from thinvirt.errors import ProgramMissing, ThinvirtError
from thinvirt.vm.spec.words import LOOPBACK

KEY_NAME = "id_ed25519"
_PACKAGE_HINT = "apt-get install openssh-client"


def ensure_key(folder: Path) -> Path:
    """Return the private key in `folder`; make the pair if there is none yet.

    Several commands may ask at once: each makes a pair in a folder of its own, and the first whose
    folder takes the name is the one.

    Raises:
        ProgramMissing: ssh-keygen is not installed.
        ThinvirtError: ssh-keygen failed; its words are quoted.
    """
    from subprocess import DEVNULL, run

    key = folder / KEY_NAME
    if key.exists():
        return key
    draft = folder.with_name(f"{folder.name}.{os.getpid()}-{os.urandom(4).hex()}")
    draft.mkdir(mode=0o700)
    try:
        done = run(
            [
                *("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "thinvirt"),
                *("-f", str(draft / KEY_NAME)),
            ],
            stdin=DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise ThinvirtError(f"ssh-keygen failed: {said}", path=folder)
        try:
            draft.rename(folder)
        except OSError:
            if not key.exists():  # else another command was first: its pair is as good
                raise
    except FileNotFoundError:
        raise ProgramMissing("ssh-keygen is not installed", hint=_PACKAGE_HINT) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return key


def public_key(key: Path) -> str:
    """Return the public half of a private key file, as a line of ``authorized_keys``."""
    return key.with_name(f"{key.name}.pub").read_text().strip()


def ssh_command(
    *,
    port: int,
    user: str,
    key: Path,
    known_hosts: Path,
    host_alias: str,
    options: Sequence[str] = (),
    command: Sequence[str] = (),
) -> list[str]:
    """Return the ``ssh`` command line for a guest.

    The guest's host key is taken on trust the first time and must be the same afterwards: it is
    remembered under `host_alias` in a file of that VM alone, because its port changes at every
    start and the next VM at the same port is another machine. The user's own configuration is left
    out: what it says of "all hosts" is not meant for 127.0.0.1.

    Args:
        port: of the loopback.
        user: to log in as.
        key: the store's private key; keys of a running agent are tried too.
        known_hosts: the VM's file of host keys.
        host_alias: what the VM is called in there.
        options: further ``-o`` options of ssh.
        command: what to run; empty for a shell.
    """
    words = [
        *("ssh", "-F", "none", "-p", str(port), "-l", user, "-i", str(key)),
        *("-o", f"UserKnownHostsFile={_quoted(known_hosts)}"),
        *("-o", "GlobalKnownHostsFile=/dev/null"),
        *("-o", f"HostKeyAlias={host_alias}"),
        *("-o", "StrictHostKeyChecking=accept-new"),
        *("-o", "LogLevel=ERROR"),
    ]
    for option in options:
        words += ["-o", option]
    words += [LOOPBACK]
    if command:
        words += ["--", *command]
    return words


def execute(argv: Sequence[str]) -> None:
    """Become that program: nothing of ours is left between the user and ssh.

    Raises:
        ProgramMissing: ssh is not installed.
    """
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 - that is the point
    except FileNotFoundError:
        raise ProgramMissing(f"{argv[0]} is not installed", hint=_PACKAGE_HINT) from None


def _quoted(path: Path) -> str:
    """Return a path as a value in ssh's configuration: "%" begins a token there."""
    return '"' + str(path).replace("%", "%%").replace('"', '\\"') + '"'
