"""Running the programs a build needs: found or named with their package, quoted when they fail."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from thinvirt.errors import ProgramMissing, ThinvirtError

# Ordinary users' PATH often lacks these, and most of what is in them needs no privilege.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"

# The Debian package of each program, for the error that names it (script/debian-packages).
_PACKAGES = {
    "apt-get": "apt",
    "as": "binutils",
    "cpio": "cpio",
    "debugfs": "e2fsprogs",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "e2fsck": "e2fsprogs",
    "fakeroot": "fakeroot",
    "grub-mkimage": "grub-common",
    "ld": "binutils",
    "lz4": "lz4",
    "mcopy": "mtools",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmdebstrap": "mmdebstrap",
    "modprobe": "kmod",
    "objcopy": "binutils",
    "qemu-img": "qemu-utils",
    "readelf": "binutils",
    "sfdisk": "fdisk",
    "syslinux": "syslinux",
    "tar": "tar",
    "unshare": "util-linux",
    "xz": "xz-utils",
    "zstd": "zstd",
}


class ProgramFailed(ThinvirtError):
    """A program that a build runs ended with an error; the message quotes its last words."""

    kind = "build"

    def __init__(self, program: str, status: int, output: str) -> None:
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
        super().__init__(f"{program} failed with status {status}: {last.strip()}")
        self.program = program
        self.output = output


def find_program(name: str) -> str:
    """Return the path of a program.

    Raises:
        ProgramMissing: it is not installed; the hint is the command that installs it.
    """
    import shutil

    path = os.pathsep.join((os.environ.get("PATH", ""), _SYSTEM_PATH))
    found = shutil.which(name, path=path)
    if found is None:
        package = _PACKAGES.get(name, name)
        raise ProgramMissing(
            f"the program {name} is not installed",
            hint=f"apt-get install {package}",
        )
    return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment programs run in: plain messages, fixed times, a full PATH."""
    path = os.pathsep.join(filter(None, (os.environ.get("PATH", ""), _SYSTEM_PATH)))
    env = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return {**env, **(extra or {})}


def run_program(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    with_stderr: bool = False,
) -> str:
    """Run a program to its end and return what it printed on standard output.

    Args:
        command: the program and its arguments.
        cwd: the directory it runs in.
        env: variables to add to the environment.
        stdin: what it reads; nothing by default.
        with_stderr: return what it printed on standard error too, behind the rest.

    Raises:
        ProgramMissing: it is not installed.
        ProgramFailed: it ended with an error.
    """
    import subprocess

    name, *arguments = map(str, command)
    done = subprocess.run(
        [find_program(name), *arguments],
        cwd=cwd,
        env=environment(env),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    complaints = done.stderr.decode(errors="replace")
    if done.returncode != 0:
        raise ProgramFailed(name, done.returncode, output + complaints)
    return output + complaints if with_stderr else output


def watch_program(*command: str | Path, cwd: Path | None = None) -> Iterator[str]:
    """Run apt-get, yielding the lines of its status descriptor; ended if the caller leaves.

    Raises:
        ProgramMissing: it is not installed.
        ProgramFailed: it ended with an error.
    """
    import subprocess
    from tempfile import TemporaryFile

    name, *arguments = map(str, command)
    reader, writer = os.pipe()
    with open(reader, errors="replace") as status, TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                [find_program(name), "-o", f"APT::Status-Fd={writer}", *arguments],
                cwd=cwd,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writer],
            )
        finally:
            os.close(writer)
        try:
            for line in status:
                yield line.rstrip("\n")
            returned = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if returned != 0:
            log.seek(0)
            raise ProgramFailed(name, returned, log.read().decode(errors="replace"))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
