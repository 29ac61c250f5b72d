"""``thinvirt template build``: a template made from Debian's own packages."""

import argparse
import time
from typing import TYPE_CHECKING

from thinvirt.cli.output import print_json, progress
from thinvirt.errors import UsageError
from thinvirt.units import format_duration, format_size

if TYPE_CHECKING:
    from thinvirt.service.builds import Built

EPILOG = """\
guests:
  tiny      Debian's kernel, busybox, SSH and the guest agent: 40 MB, at its login in seconds
  debian    Debian 12 with systemd, cloud-init, OpenSSH and the guest agent

examples:
  thinvirt template build tiny
  thinvirt template build debian --name web-base --package nginx --package python3
  thinvirt template build --fetch-only tiny debian

Packages and built images are kept in ~/.cache/thinvirt ($XDG_CACHE_HOME): the second build of
the same inputs takes no time and no network. The packages come from this host's own Debian 12
sources in /etc/apt, or from --mirror, and are verified by apt."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("guests", metavar="GUEST", nargs="+", help="tiny or debian")
    parser.add_argument("--name", metavar="NAME", help="what to call the template (default: GUEST)")
    parser.add_argument(
        "--package", action="append", default=[], metavar="NAME", dest="packages",
        help="a Debian package to install besides; may be repeated (debian)",
    )  # fmt: skip
    parser.add_argument(
        "--fetch-only", action="store_true", help="only fetch the packages, for builds without net"
    )
    parser.add_argument(
        "--rebuild", action="store_true", help="build anew even if nothing has changed"
    )
    parser.add_argument(
        "--refresh", action="store_true", help="ask the archive for newer packages than those kept"
    )
    parser.add_argument(
        "--mirror", metavar="URL", help="the package archive to ask instead of the host's sources"
    )
    parser.add_argument("--json", action="store_true", help="print facts as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Build, or fetch."""
    if args.name and len(args.guests) > 1:
        raise UsageError("--name names one template", hint="build the guests one by one")
    return _fetch(args) if args.fetch_only else _build(args)


def _fetch(args: argparse.Namespace) -> int:
    from thinvirt.service.builds import fetch_packages, package_cache

    cache = package_cache(mirror=args.mirror, refresh=args.refresh)
    with progress(quiet=args.quiet or args.json) as bar:
        fetched = fetch_packages(args.guests, cache, extra_packages=args.packages, progress=bar)
    sizes = {name: sum(deb.path.stat().st_size for deb in debs) for name, debs in fetched.items()}
    if args.json:
        print_json(
            [
                {"name": name, "packages": len(debs), "size_bytes": sizes[name]}
                for name, debs in fetched.items()
            ]
        )
    else:
        for name, debs in fetched.items():
            print(f"{name}: {len(debs)} packages, {format_size(sizes[name])}")
    return 0


def _build(args: argparse.Namespace) -> int:
    from thinvirt.cli.stores import store_of
    from thinvirt.service.builds import build_template, guest, package_cache

    for name in args.guests:
        guest(name, args.packages)  # complain before anything is built
    cache = package_cache(mirror=args.mirror, refresh=args.refresh)
    rows: list[dict[str, object]] = []
    store = store_of(args, create=True)
    try:
        for name in args.guests:
            began = time.monotonic()
            with progress(quiet=args.quiet or args.json) as bar:
                built = build_template(
                    store,
                    name,
                    cache=cache,
                    name=args.name,
                    extra_packages=args.packages,
                    rebuild=args.rebuild,
                    progress=bar,
                )
            if not args.json:
                print(_sentence(built, time.monotonic() - began))
            rows.append(_facts(built))
    finally:
        store.close()
    if args.json:
        print_json(rows)
    return 0


def _sentence(built: "Built", seconds: float) -> str:
    template = built.template
    if built.was_there:
        how = "already there, made from the same packages"
    elif built.image.was_cached:
        how = "taken from the cache, made from the same packages"
    else:
        how = f"built in {format_duration(seconds)}"
    return f"template {template.ref}: {format_size(template.file_size)}, {how}"


def _facts(built: "Built") -> dict[str, object]:
    template = built.template
    return {
        "name": template.name,
        "version": template.version,
        "digest": template.digest,
        "format": template.format,
        "virtual_size": template.virtual_size,
        "file_size": template.file_size,
        "inputs_digest": built.image.inputs_digest,
        "was_cached": built.image.was_cached,
        "was_there": built.was_there,
        "facts": template.facts,
    }
