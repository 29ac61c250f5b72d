"""The guest image `debian`: Debian 12 with systemd, cloud-init, OpenSSH and the guest agent.

mmdebstrap installs the distribution's own packages from the cache into a tree, `customize.sh`
removes what must not be the same on every clone, and the tree becomes the root file system of a
disk that starts under SeaBIOS and UEFI. What the image adds to the packages' defaults stands, file
by file, below `guest/debian/root`; docs/guide/debian-guest.md says why.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from thinvirt.build import grub
from thinvirt.build.packages import Deb, PackageCache, write_repository
from thinvirt.build.programs import ProgramFailed, run_program, sha256_of
from thinvirt.build.result import BuildResult
from thinvirt.build.rootless import Way, choose_way, follow_as_owner, remove_tree, run_as_owner
from thinvirt.build.sources import RELEASE
from thinvirt.errors import NoSpace, ThinvirtError, UsageError
from thinvirt.progress import Progress, Silent
from thinvirt.units import format_size

NAME = "debian"
DISK_SIZE = 3 * 1024**3  # bytes; the root file system grows with the clone's disk
LOGIN_USER = "debian"  # cloud-init's default user here, as on Debian's own cloud images

PACKAGES = (
    # what every Debian has, beside the packages marked essential
    "apt", "ca-certificates", "dbus", "e2fsprogs", "iproute2", "iputils-ping", "kmod", "less",
    "libpam-systemd", "mount", "nano", "netbase", "passwd", "procps", "systemd-resolved",
    "systemd-sysv", "tzdata", "udev",
    # the kernel, and what packs its initramfs
    "initramfs-tools", "linux-image-amd64", "lz4", "zstd",
    # what makes it a guest
    "cloud-guest-utils", "cloud-init", "fdisk", "openssh-server", "qemu-guest-agent", "sudo",
)  # fmt: skip

# Never unpacked, also when packages are upgraded: paths, as dpkg's path-exclude takes them.
# Documentation and translations; drivers of devices that no virtual machine has.
_MODULES = "/lib/modules/*/kernel"
EXCLUDED_PATHS = (
    "/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*",
    "/usr/share/lintian/*", "/usr/share/i18n/locales/*",
    *(
        f"{_MODULES}/{folder}/*"
        for folder in (
            "drivers/gpu/drm/amd", "drivers/gpu/drm/ast", "drivers/gpu/drm/gma500",
            "drivers/gpu/drm/i915", "drivers/gpu/drm/mgag200", "drivers/gpu/drm/nouveau",
            "drivers/gpu/drm/radeon", "drivers/gpu/drm/vmwgfx", "drivers/media",
            "drivers/bluetooth", "drivers/net/wireless", "drivers/net/ethernet/mellanox",
            "drivers/infiniband", "drivers/iio", "drivers/isdn", "drivers/staging",
            "drivers/hwmon", "drivers/thermal", "drivers/mtd", "drivers/nfc", "net/bluetooth",
            "net/mac80211", "net/wireless", "net/nfc", "sound",
        )
    ),
)  # fmt: skip
# Needed by what is left: copyright files are the terms the packages come under.
INCLUDED_PATHS = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")

ROOT_LABEL = "debian-root"
_JOURNAL_MIB = 32  # a journal is written all over in time, in every clone's overlay
_SPACE_NEEDED = 2_500_000_000  # bytes below `work`: repository's links, tree, disk, then the image

_TAIL_LINES = 15  # of mmdebstrap's log, quoted when it fails

_SOURCE = Path(__file__).parent
_GUEST = _SOURCE / "guest" / "debian"

# What mmdebstrap says when a step begins, and what we call the step.
_STEPS = {
    "running apt-get update": "reading the package repository",
    "extracting archives": "unpacking the essential packages",
    "installing essential packages": "installing the essential packages",
    "installing remaining packages": "installing the other packages",
    "running --customize-hook": "removing what clones must not share",
}


class BuildFailed(ThinvirtError):
    """The packages could not be installed into the image."""

    kind = "build"


def fetch(
    cache: PackageCache, extra_packages: Sequence[str] = (), *, progress: Progress | None = None
) -> list[Deb]:
    """Return the packages of the image with all they depend on, fetched if they are not cached.

    Raises:
        NotFound: the archive has no such package, or they cannot be installed together.
        TemporaryFailure: they are not cached and the archive cannot be reached.
    """
    names = ["?essential", *PACKAGES, *extra_packages]
    return cache.fetch_closure(names, progress=progress)


def inputs_digest(debs: Sequence[Deb], extra_packages: Sequence[str] = ()) -> str:
    """Return a digest (hexadecimal) of all that the image is made from: packages and recipe.

    Two builds with equal digests give images that differ in time stamps only.
    """
    from hashlib import sha256

    digest = sha256()
    for deb in sorted(debs, key=lambda deb: deb.name):
        digest.update(f"{deb.name} {deb.version} {deb.sha256}\n".encode())
    digest.update(f"extra {' '.join(sorted(extra_packages))}\n".encode())
    for path in _recipe_files():
        digest.update(f"{path.relative_to(_SOURCE)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _recipe_files() -> list[Path]:
    modules = [_SOURCE / name for name in ("debian.py", "grub.py", "rootless.py")]
    return [*modules, *sorted(path for path in _GUEST.rglob("*") if path.is_file())]


def build_debian(
    target: Path,
    *,
    work: Path,
    cache: PackageCache,
    extra_packages: Sequence[str] = (),
    progress: Progress | None = None,
) -> BuildResult:
    """Make the image.

    Args:
        target: the qcow2 file to make.
        work: an existing directory for intermediate files, up to 2.5 GB for some minutes; what
            the build leaves in it if it is killed may be removed with `rootless.remove_tree`.
        cache: where the packages come from; with all of them cached no network is needed.
        extra_packages: names of Debian packages to install besides.
        progress: told of the steps.

    Raises:
        UsageError: an extra package is no package name.
        ProgramMissing: a program that is needed is not installed.
        NotFound, TemporaryFailure: see `fetch`.
        NoSpace: `work` has no room.
        BuildFailed: mmdebstrap failed; the hint quotes the end of its log.
        ProgramFailed: another program failed.
    """
    progress = progress or Silent()
    check_names(extra_packages)
    _check_space(work)
    debs = fetch(cache, extra_packages, progress=progress)
    digest = inputs_digest(debs, extra_packages)
    identity = UUID(digest[:32])
    way = choose_way(work)

    repository = work / "repository"
    disk = work / "disk.raw"
    tree = work / "tree"
    boot = work / "boot"
    with _removed_afterwards(way, repository, tree, _archive(tree), disk, boot):
        progress.step("checking the packages")
        write_repository(debs, repository)
        _install(way, repository, tree, extra_packages, work=work, progress=progress)
        progress.step("making the disk")
        boot.mkdir()
        loaders = grub.make_loaders(boot)
        grub.write_disk(disk, DISK_SIZE, loaders, identity=identity, work=boot)
        _make_root(way, tree, disk, identity)
        progress.step("writing the image")
        run_program("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, target)
    versions = {deb.name: deb.version for deb in debs}
    return BuildResult(target, digest, _facts(versions, extra_packages))


def _facts(versions: dict[str, str], extra_packages: Sequence[str]) -> dict[str, object]:
    kernel = next(name for name in versions if name.startswith("linux-image-6"))
    return {
        "os": "debian12",
        "min_memory_mib": 256,
        "memory_mib": 512,
        "serial_console": True,
        "agent": True,
        "buses": ["virtio", "scsi", "sata", "ide"],
        "seed": "nocloud",
        "release": RELEASE,
        "kernel": kernel.removeprefix("linux-image-"),
        "cloud_init": versions["cloud-init"],
        "login_user": LOGIN_USER,
        "firmware": ["bios", "uefi"],
        "extra_packages": sorted(extra_packages),
        "packages": len(versions),
    }


def check_names(extra_packages: Sequence[str]) -> None:
    """Refuse what is not the plain name of a Debian package.

    Raises:
        UsageError: a name is none; apt would take patterns and removals (`name-`) as well.
    """
    import re

    for name in extra_packages:
        # Debian policy 5.6.1
        if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*[a-z0-9.+]", name):
            raise UsageError(
                f"'{name}' is not the name of a Debian package",
                hint="lower case letters, digits, '+', '-' and '.'; one package per --package",
            )


def _check_space(work: Path) -> None:
    free = shutil.disk_usage(work).free
    if free < _SPACE_NEEDED:
        raise NoSpace(
            f"the build needs {format_size(_SPACE_NEEDED)} below {work} and "
            f"{format_size(free)} are free",
            hint="make room there; the intermediate files are removed afterwards",
        )


@contextmanager
def _removed_afterwards(way: Way, *paths: Path) -> Iterator[None]:
    """Remove intermediate files whatever happens, and those of a build that was killed here."""
    for path in paths:
        remove_tree(way, path)
    try:
        yield
    finally:
        for path in paths:
            remove_tree(way, path)


def _install(
    way: Way,
    repository: Path,
    tree: Path,
    extra_packages: Sequence[str],
    *,
    work: Path,
    progress: Progress,
) -> None:
    """Let mmdebstrap install the packages into `tree` (a tar archive, where it only pretends)."""
    from shlex import quote
    from urllib.parse import quote as url_quote

    dpkg_options = work / "dpkg.cfg"
    dpkg_options.write_text(
        "".join(f"path-exclude={path}\n" for path in EXCLUDED_PATHS)
        + "".join(f"path-include={path}\n" for path in INCLUDED_PATHS)
    )
    command = (
        "mmdebstrap",
        f"--mode={'fakechroot' if way is Way.PRETENCE else 'root'}",
        f"--format={'tar' if way is Way.PRETENCE else 'directory'}",
        "--variant=apt",
        f"--include={','.join((*PACKAGES, *extra_packages))}",
        f"--dpkgopt={dpkg_options}",
        f'--essential-hook=sh {quote(str(_GUEST / "prepare.sh"))} "$1"',
        f'--customize-hook=sh {quote(str(_GUEST / "customize.sh"))} "$1"',
        RELEASE,
        _archive(tree) if way is Way.PRETENCE else tree,
        f"deb [trusted=yes] copy:{url_quote(str(repository))} ./",
    )
    log = work / "mmdebstrap.log"
    step = "starting"
    try:
        lines = follow_as_owner(
            way, *command, writable=work, log=log, env={"TMPDIR": str(work), "HOME": str(work)}
        )
        for line in lines:
            for beginning, title in _STEPS.items():
                if line.startswith(f"I: {beginning}"):
                    step = title
                    progress.step(step)
    except ProgramFailed as error:
        raise explain(error, step, work) from error


def explain(error: ProgramFailed, step: str, work: Path) -> NoSpace | BuildFailed:
    """Return what mmdebstrap's failure was: no space, or what its log says at the end."""
    if "No space left on device" in error.output:
        return NoSpace(
            "the file system filled up while packages were installed",
            path=work,
            hint=f"the build needs {format_size(_SPACE_NEEDED)} there",
        )
    lines = [line for line in error.output.splitlines() if line.strip()]
    complaint = next((line for line in reversed(lines) if line.startswith("E: ")), "E: no reason")
    return BuildFailed(
        f"mmdebstrap failed after '{step}': {complaint.removeprefix('E: ')}",
        hint="the end of its log:\n" + "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:]),
    )


def _make_root(way: Way, tree: Path, disk: Path, identity: UUID) -> None:
    """Make the root file system inside the disk image, with all that is in `tree`.

    Inode tables and journal are initialised here: the kernel would do it after the first start, in
    every clone's overlay. GRUB 2.06 cannot read a file system with metadata_csum_seed.
    """
    options = (
        f"offset={grub.ROOT_START * grub.SECTOR},lazy_itable_init=0,lazy_journal_init=0,"
        f"hash_seed={identity}"
    )
    command = (
        "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "1", "-L", ROOT_LABEL, "-U", str(identity),
        "-O", "^metadata_csum_seed", "-J", f"size={_JOURNAL_MIB}", "-E", options,
    )  # fmt: skip
    size = f"{grub.root_size(DISK_SIZE) // 1024}k"
    if way is Way.PRETENCE:
        # One fakeroot must see both: it alone remembers who owns what.
        script = 'mkdir "$2" && tar --numeric-owner -xpf "$1" -C "$2" && shift 2 && exec "$@"'
        unpack = ("sh", "-c", script, "sh", _archive(tree), tree)
        run_as_owner(way, *unpack, *command, "-d", tree, disk, size)
    else:
        run_as_owner(way, *command, "-d", tree, disk, size)


def _archive(tree: Path) -> Path:
    """Return the tar archive that stands for `tree` where ownership is only pretended."""
    return tree.with_name(f"{tree.name}.tar")
