"""Debian packages, fetched by apt with a state of its own: any user, nothing of the host changed.

apt resolves, downloads and verifies (signed release files, then every checksum); what differs from
an installation is only where it keeps its state and that the set of installed packages is empty.
A request that was answered once is recorded with versions and digests, and answered from the cache
from then on: no network is needed, and the same request gives the same packages until a refresh.

DIRECTORY/
  apt/            configuration, package lists and sources of the private apt
  debs/           the packages
  requests/       one JSON record per answered request
  lock            held by whoever changes any of this
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from thinvirt.build.programs import (
    ProgramFailed,
    find_program,
    run_program,
    sha256_of,
    watch_program,
)
from thinvirt.build.sources import debian_sources
from thinvirt.errors import NotFound, TemporaryFailure, VerificationFailed
from thinvirt.progress import Progress, Silent

ARCHITECTURE = "amd64"

# Read after the host's own configuration, whose proxies and credentials stay in force. Its hooks
# must not run: they clean or refresh what belongs to the host.
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear APT::Architectures;
#clear APT::NeverAutoRemove;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Get::Assume-Yes "true";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Dir::State "{apt}/state";
Dir::State::status "{apt}/status";
Dir::State::extended_states "{apt}/extended_states";
Dir::Cache "{apt}/cache";
Dir::Cache::archives "{debs}";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{apt}/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "{apt}/log";
"""


@dataclass(frozen=True, slots=True)
class Deb:
    """One package file in the cache."""

    name: str
    version: str
    path: Path
    sha256: str  # as the archive's signed index states it, hexadecimal

    def field(self, name: str) -> str:
        """Return a control field, "" if the package has none of that name."""
        return run_program("dpkg-deb", "--field", self.path, name).strip()

    def verify(self) -> Self:
        """Return the package if its file is what was fetched.

        Raises:
            VerificationFailed: the file changed, or is damaged.
        """
        if sha256_of(self.path) != self.sha256:
            raise VerificationFailed(
                f"the cached package {self.path.name} is not what was fetched",
                path=self.path,
                hint=f"rm '{self.path}', then build again",
            )
        return self

    def unpack(self, target: Path) -> None:
        """Unpack the package's files below `target`, whoever runs this owning them."""
        run_program("dpkg-deb", "--extract", self.verify().path, target)


class PackageCache:
    """A directory of fetched packages and the private apt that fills it."""

    def __init__(
        self, directory: Path, *, mirror: str | None = None, refresh: bool = False
    ) -> None:
        """Make a cache; nothing is read or written yet.

        Args:
            directory: where the cache is kept; made when first needed.
            mirror: the URL of a Debian archive to ask instead of the host's own sources.
            refresh: ask the archive again for what was recorded before.
        """
        self.directory = directory.absolute()
        self.mirror = mirror
        self.refresh = refresh
        self._updated = False

    def fetch(self, names: Sequence[str], *, progress: Progress | None = None) -> list[Deb]:
        """Return exactly the packages `names`, without what they depend on, in that order.

        Raises:
            ProgramMissing: apt-get or dpkg-deb is not installed.
            NotFound: the archive has no such package.
            TemporaryFailure: they are not cached and the archive cannot be reached.
        """
        found = {deb.name: deb for deb in self._answer(names, closure=False, progress=progress)}
        return [found[name] for name in names]

    def fetch_closure(
        self,
        names: Sequence[str],
        *,
        recommends: bool = False,
        progress: Progress | None = None,
    ) -> list[Deb]:
        """Return `names` and all they need to be installed into an empty system, by name.

        Args:
            names: package names, or apt patterns such as ``?essential``.
            recommends: take what packages recommend too.
            progress: told of the download.

        Raises:
            ProgramMissing: apt-get or dpkg-deb is not installed.
            NotFound: the archive has no such package, or the set cannot be installed together.
            TemporaryFailure: they are not cached and the archive cannot be reached.
        """
        return self._answer(names, closure=True, recommends=recommends, progress=progress)

    def _answer(
        self,
        names: Sequence[str],
        *,
        closure: bool,
        recommends: bool = False,
        progress: Progress | None = None,
    ) -> list[Deb]:
        from hashlib import sha256

        asked = sorted(set(names))
        question = {"form": 2, "names": asked, "closure": closure, "recommends": recommends}
        key = sha256(json.dumps(question).encode()).hexdigest()[:24]
        record = self.directory / "requests" / f"{key}.json"
        if not self.refresh and (known := self._recorded(record)) is not None:
            return known
        with self._locked():
            # Whoever held the lock before may have asked the same.
            if not self.refresh and (known := self._recorded(record)) is not None:
                return known
            options = ["-o", "APT::Install-Recommends=true"] if recommends else []
            debs = self._download(asked, closure, options, progress or Silent())
            self._write_record(record, question, debs)
        return debs

    def _recorded(self, record: Path) -> list[Deb] | None:
        """Return what a request was answered with, None if unknown or no longer all there."""
        try:
            answer = json.loads(record.read_text())
        except (FileNotFoundError, ValueError):
            return None
        debs = []
        for entry in answer["debs"]:
            path = self.directory / "debs" / entry["file"]
            if not path.is_file() or path.stat().st_size != entry["size_bytes"]:
                return None
            debs.append(Deb(entry["name"], entry["version"], path, entry["sha256"]))
        return debs

    def _write_record(self, record: Path, question: Mapping[str, object], debs: list[Deb]) -> None:
        from thinvirt.build.programs import write_atomically

        rows = [
            {"file": deb.path.name, "size_bytes": deb.path.stat().st_size}
            | {k: v for k, v in asdict(deb).items() if k != "path"}
            for deb in debs
        ]
        record.parent.mkdir(exist_ok=True)
        write_atomically(record, json.dumps({**question, "debs": rows}, indent=1))

    def _download(
        self, names: Sequence[str], closure: bool, options: list[str], progress: Progress
    ) -> list[Deb]:
        if not self._updated:
            self._update(progress)
            self._updated = True
        action = ["install", "--download-only"] if closure else ["download"]
        # apt lists only what it would fetch: asked beside an empty archive, it lists everything.
        empty = self.directory / "apt/empty"
        (empty / "partial").mkdir(parents=True, exist_ok=True)
        beside = ["-o", f"Dir::Cache::archives={empty}", "-o", "Acquire::ForceHash=SHA256"]
        listing = self._apt("-qq", "--print-uris", *beside, *options, *action, *names, cwd=empty)
        offers = list(_parse_uris(listing))
        debs = self.directory / "debs"
        missing = [offer for offer in offers if not offer.is_in(debs)]
        total = sum(offer.size_bytes for offer in missing)
        for offer in missing:
            (debs / offer.file).unlink(missing_ok=True)
        if missing:
            progress.step(f"fetching {len(missing)} packages", total, "bytes")
            self._fetch_files([*options, *action, *names], debs, total, progress)
        return sorted((offer.taken(debs) for offer in offers), key=lambda deb: deb.name)

    def _update(self, progress: Progress) -> None:
        self._configure()
        progress.step("asking the package archive what there is")
        self._apt("--quiet=2", "-o", "APT::Update::Error-Mode=any", "update")

    def _configure(self) -> None:
        """Write the private apt's configuration; it holds nothing that must be kept."""
        apt = self.directory / "apt"
        for folder in ("state/lists/partial", "cache", "sources", "log"):
            (apt / folder).mkdir(parents=True, exist_ok=True)
        (self.directory / "debs/partial").mkdir(parents=True, exist_ok=True)
        for name in ("status", "extended_states"):
            (apt / name).write_bytes(b"")
        (apt / "sources/debian.sources").write_text(debian_sources(self.mirror))
        (apt / "apt.conf").write_text(
            _CONFIGURATION.format(architecture=ARCHITECTURE, apt=apt, debs=self.directory / "debs")
        )

    def _command(self, *arguments: str) -> list[str]:
        return ["apt-get", f"--config-file={self.directory / 'apt/apt.conf'}", *arguments]

    def _apt(self, *arguments: str, cwd: Path | None = None) -> str:
        try:
            return run_program(*self._command(*arguments), cwd=cwd)
        except ProgramFailed as error:
            raise _apt_error(error) from error

    def _fetch_files(self, arguments: list[str], cwd: Path, total: int, progress: Progress) -> None:
        """Let apt download, telling `progress` of the bytes that its percentages stand for."""
        told = 0
        try:
            for line in watch_program(*self._command("--quiet=2", *arguments), cwd=cwd):
                # dlstatus:ITEM:PERCENT:TEXT, apt's README.progress-reporting
                kind, _, rest = line.partition(":")
                percent = rest.split(":")[1:2]
                if kind == "dlstatus" and percent:
                    now = int(float(percent[0]) * total / 100)
                    progress.advance(max(0, now - told))
                    told = max(told, now)
        except ProgramFailed as error:
            raise _apt_error(error) from error
        progress.advance(max(0, total - told))

    def sources_file(self) -> Path:
        """Return a deb822 sources file that names the archives this cache asks."""
        with self._locked():
            self._configure()
        return self.directory / "apt/sources/debian.sources"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the cache's lock; another process that fetches is waited for."""
        import fcntl

        find_program("apt-get")
        find_program("dpkg-deb")
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def write_repository(debs: Sequence[Deb], target: Path) -> None:
    """Make `target` a flat package repository of `debs`: links to the files, and their index.

    It is unsigned; a reader states ``[trusted=yes]``, because every file was verified when fetched
    and is verified against its recorded digest here.
    """
    target.mkdir(parents=True)
    index = []
    for deb in debs:
        deb.verify()
        (target / deb.path.name).symlink_to(deb.path)
        control = run_program("dpkg-deb", "--field", deb.path).rstrip("\n")
        size = deb.path.stat().st_size
        index.append(
            f"{control}\nFilename: ./{deb.path.name}\nSize: {size}\nSHA256: {deb.sha256}\n"
        )
    (target / "Packages").write_text("\n".join(index))


@dataclass(frozen=True, slots=True)
class _Offer:
    """What apt would fetch: a file and what the signed index says of it."""

    file: str
    size_bytes: int
    sha256: str

    def is_in(self, debs: Path) -> bool:
        path = debs / self.file
        return path.is_file() and path.stat().st_size == self.size_bytes

    def taken(self, debs: Path) -> Deb:
        name, version, _ = self.file.split("_")
        path = debs / self.file
        if not self.is_in(debs):
            raise TemporaryFailure(f"apt did not fetch {self.file}", path=path)
        return Deb(name, version.replace("%3a", ":"), path, self.sha256)


def _parse_uris(listing: str) -> Iterator[_Offer]:
    """Yield what each line ``'URI' FILE SIZE SHA256:DIGEST`` of apt-get --print-uris offers."""
    for line in listing.splitlines():
        if line.startswith("'"):
            name, size, digest = line.rpartition("' ")[2].split()
            yield _Offer(name, int(size), digest.removeprefix("SHA256:"))


def _apt_error(error: ProgramFailed) -> NotFound | TemporaryFailure:
    """Return what apt's complaint means: no such package, or no way to the archive now."""
    complaints = [line for line in error.output.splitlines() if line.startswith(("E:", "W:"))]
    first = next((line for line in complaints if line.startswith("E:")), str(error))
    about_packages = ("Unable to locate package", "Can't find a source", "Unable to correct")
    if any(word in error.output for word in about_packages):
        return NotFound(
            f"the package archive cannot give what is needed: {first.removeprefix('E: ')}",
            hint="thinvirt template build --refresh asks the archive again",
        )
    return TemporaryFailure(
        f"fetching packages failed: {first.removeprefix('E: ')}",
        hint="check the network and the sources in /etc/apt, or name an archive with --mirror URL",
    )
