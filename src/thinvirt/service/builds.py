"""Templates made from the distribution's packages: fetched, built once, published.

Below the cache directory stand `packages/` (see `thinvirt.build.packages`) and `images/`:
`GUEST-DIGEST.qcow2` with `GUEST-DIGEST.json` beside it, DIGEST being that of everything the image
is made from. Who builds holds `GUEST.lock`; `work-GUEST/` is what a build has in hand.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinvirt.build.packages import Deb, PackageCache
from thinvirt.build.result import BuildResult
from thinvirt.errors import NoSpace, UsageError
from thinvirt.progress import Progress, Silent
from thinvirt.store import Store, Template
from thinvirt.store.layout import cache_home

_SILENT = Silent()


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest that can be built: what it takes and how."""

    name: str
    summary: str
    fetch: Callable[[PackageCache, Progress], list[Deb]]
    inputs_digest: Callable[[list[Deb]], str]
    build: Callable[[Path, Path, PackageCache, Progress], BuildResult]


@dataclass(frozen=True, slots=True)
class Image:
    """A built image in the cache.

    Attributes:
        path: the qcow2 file.
        sha256: its digest, hexadecimal.
        inputs_digest: the digest of what it was made from.
        facts: what is known of the guest, JSON-ready.
        was_cached: it was there already.
    """

    path: Path
    sha256: str
    inputs_digest: str
    facts: Mapping[str, Any]
    was_cached: bool


@dataclass(frozen=True, slots=True)
class Built:
    """A template made of a built image."""

    template: Template
    image: Image
    was_there: bool  # the store had the same image under this name already


def guest(name: str, extra_packages: Sequence[str] = ()) -> Guest:
    """Return the guest called `name`; only its own builder is loaded.

    Args:
        name: "tiny" or "debian".
        extra_packages: Debian packages to install besides; only `debian` can.

    Raises:
        UsageError: there is none, or it takes no more packages, or they are no package names.
    """
    if extra_packages and name == "tiny":
        raise UsageError(
            "the guest 'tiny' has no package manager and takes no more packages",
            hint="thinvirt template build debian --package …",
        )
    if name == "tiny":
        from thinvirt.build import tiny

        return Guest(
            name,
            "Debian's kernel, busybox, SSH and the guest agent in 40 MB",
            lambda cache, progress: tiny.fetch(cache, progress=progress),
            tiny.inputs_digest,
            lambda target, work, cache, progress: tiny.build_tiny(
                target, work=work, cache=cache, progress=progress
            ),
        )
    if name == "debian":
        from thinvirt.build import debian

        debian.check_names(extra_packages)
        return Guest(
            # Beside the plain image in the cache, not in its place.
            f"{name}+packages" if extra_packages else name,
            "Debian 12 with systemd, cloud-init, OpenSSH and the guest agent",
            lambda cache, progress: debian.fetch(cache, extra_packages, progress=progress),
            lambda debs: debian.inputs_digest(debs, extra_packages),
            lambda target, work, cache, progress: debian.build_debian(
                target, work=work, cache=cache, extra_packages=extra_packages, progress=progress
            ),
        )
    raise UsageError(f"there is no guest '{name}' to build", hint=f"one of {', '.join(GUESTS)}")


GUESTS = ("tiny", "debian")


def package_cache(*, mirror: str | None = None, refresh: bool = False) -> PackageCache:
    """Return this user's package cache."""
    return PackageCache(cache_home() / "packages", mirror=mirror, refresh=refresh)


def fetch_packages(
    names: Sequence[str],
    cache: PackageCache,
    *,
    extra_packages: Sequence[str] = (),
    progress: Progress = _SILENT,
) -> dict[str, list[Deb]]:
    """Fetch what the named guests are made of, so that building them needs no network.

    Raises:
        UsageError: no such guest.
        TemporaryFailure: packages are not cached and the archive cannot be reached.
    """
    guests = {name: guest(name, extra_packages) for name in names}
    return {name: each.fetch(cache, progress) for name, each in guests.items()}


def build_image(
    name: str,
    cache: PackageCache,
    *,
    images: Path | None = None,
    extra_packages: Sequence[str] = (),
    rebuild: bool = False,
    progress: Progress = _SILENT,
) -> Image:
    """Return the image of a guest: from the cache if it was built from the same inputs before.

    Args:
        name: the guest.
        cache: where its packages are and come from.
        images: the directory of built images; None: this user's.
        extra_packages: Debian packages to install besides.
        rebuild: build it even so.
        progress: told of the steps.

    Raises:
        UsageError: no such guest.
        ProgramMissing: a program needed is not installed; the hint names its package.
        TemporaryFailure: packages are not cached and the archive cannot be reached.
        NoSpace: the file system is full; nothing half made is left in the cache.
    """
    what = guest(name, extra_packages)
    name = what.name
    folder = images or cache_home() / "images"
    with _space_explained(folder), _locked(folder, name, progress):
        digest = what.inputs_digest(what.fetch(cache, progress))
        path = folder / f"{name}-{digest[:32]}.qcow2"
        if not rebuild and (known := recorded(path)) is not None:
            return known
        work = folder / f"work-{name}"
        work.mkdir(exist_ok=True)
        target = work / "image.qcow2"
        try:
            result = what.build(target, work, cache, progress)
            image = _record(path, target, result)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        _forget_others(folder, name, path)
    return image


def build_template(
    store: Store,
    guest_name: str,
    *,
    cache: PackageCache,
    name: str | None = None,
    extra_packages: Sequence[str] = (),
    rebuild: bool = False,
    progress: Progress = _SILENT,
) -> Built:
    """Build a guest's image, or take it from the cache, and publish it as a template.

    Args:
        store: where the template goes.
        guest_name: "tiny" or "debian".
        cache: where its packages are and come from.
        name: what the template is called; None: as the guest.
        extra_packages: Debian packages to install besides.
        rebuild: build the image even if one of the same inputs is cached.
        progress: told of the steps.

    Raises:
        UsageError: no such guest, or `name` is no template name.
        ProgramMissing, TemporaryFailure, NoSpace: as `build_image`.
    """
    from thinvirt.service.templates import take_image
    from thinvirt.store.publication import is_intact
    from thinvirt.vm.names import check_template_name

    chosen = check_template_name(name or guest_name)
    store.require_writable()
    image = build_image(
        guest_name, cache, extra_packages=extra_packages, rebuild=rebuild, progress=progress
    )
    known = store.catalog.template_by_digest(chosen, image.sha256)
    if known is not None and is_intact(store, known):
        return Built(known, image, was_there=True)
    source = f"built from Debian packages, inputs {image.inputs_digest[:16]}"
    taken = take_image(
        store, image.path, name=chosen, source=source, facts=image.facts, progress=progress
    )
    return Built(taken.template, image, taken.was_there)


def recorded(path: Path) -> Image | None:
    """Return the cached image at `path` if it is there, whole and described."""
    try:
        entry = json.loads(path.with_suffix(".json").read_text())
        if path.stat().st_size != entry["size_bytes"]:
            return None
    except (FileNotFoundError, ValueError):
        return None
    return Image(path, entry["sha256"], entry["inputs_digest"], entry["facts"], was_cached=True)


def _record(path: Path, built: Path, result: BuildResult) -> Image:
    """Publish a built image by rename, its description last: without it the image counts not."""
    from thinvirt.build.programs import sha256_of, write_atomically

    description = path.with_suffix(".json")
    description.unlink(missing_ok=True)
    facts = dict(result.facts)
    sha256 = sha256_of(built)
    entry = {
        "sha256": sha256,
        "size_bytes": built.stat().st_size,
        "inputs_digest": result.inputs_digest,
        "facts": facts,
    }
    built.chmod(0o444)
    built.replace(path)
    write_atomically(description, json.dumps(entry, indent=1))
    return Image(path, sha256, result.inputs_digest, facts, was_cached=False)


def _forget_others(folder: Path, name: str, keep: Path) -> None:
    """Remove images of the guest that were made from older inputs: no build gives them again."""
    for path in folder.glob(f"{name}-*.qcow2"):
        if path != keep:
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()


@contextmanager
def _locked(folder: Path, name: str, progress: Progress) -> Iterator[None]:
    """Hold the lock on a guest's image; whoever builds the same is waited for, then used."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.step(f"waiting for another build of {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _space_explained(folder: Path) -> Iterator[None]:
    """Turn a full file system, met by us or by a program, into the error that says so."""
    import errno

    from thinvirt.build.programs import ProgramFailed

    hint = "make room, or set XDG_CACHE_HOME to a directory on another file system"
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace("no space left to build an image", path=folder, hint=hint) from error
    except ProgramFailed as error:
        if "No space left on device" not in error.output:
            raise
        raise NoSpace("no space left to build an image", path=folder, hint=hint) from error
