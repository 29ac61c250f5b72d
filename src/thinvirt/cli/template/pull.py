"""``thinvirt template pull``: a public cloud image, verified, as a template."""

import argparse
import os
import sys
from math import inf
from typing import TYPE_CHECKING, Any

from thinvirt.cli.output import note, print_json, progress, table
from thinvirt.cli.stores import store_of
from thinvirt.errors import UsageError
from thinvirt.units import format_size

if TYPE_CHECKING:
    from thinvirt.service.pulls import Plan
    from thinvirt.store.fetch.http import Client
    from thinvirt.vm.cloud_images import CloudImage

EPILOG = """\
examples:
  thinvirt template pull --list
  thinvirt template pull debian-12
  thinvirt template pull fedora --arch aarch64 --name fedora-arm
  thinvirt template pull https://example.org/disk.qcow2 --sums https://example.org/SHA256SUMS
  thinvirt template pull http://10.0.0.1/disk.img --checksum sha256:HEX

An interrupted download stays in the store, and the same command goes on with it.
Certificates: the system's, or SSL_CERT_FILE. Proxies: https_proxy, http_proxy, no_proxy.
Your own images: ~/.config/thinvirt/cloud-images.toml and /etc/thinvirt/cloud-images.toml."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "image", metavar="NAME|URL", nargs="?", help="a name of the catalogue, or an image's URL"
    )
    parser.add_argument("--list", action="store_true", help="show the catalogue")
    parser.add_argument("--name", metavar="NAME", default="", help="what to call the template")
    parser.add_argument(
        "--arch",
        metavar="ARCH",
        choices=("x86_64", "aarch64"),
        help="x86_64 or aarch64 (default: this machine's)",
    )
    proof = parser.add_argument_group("what a URL is verified by")
    proof.add_argument(
        "--checksum",
        metavar="ALGORITHM:HEX",
        default="",
        help="the digest it must have, sha256: or sha512:; pins an image of the catalogue too",
    )
    proof.add_argument(
        "--sums", metavar="URL", default="", help="the publisher's checksum file (https)"
    )
    proof.add_argument("--no-verify", action="store_true", help="take a URL's content as it comes")
    network = parser.add_argument_group("network")
    network.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="a connection this long without a byte is dead (default: 60)",
    )
    network.add_argument(
        "--tries",
        metavar="N",
        type=int,
        default=6,
        help="give up after so many failures in a row (default: 6)",
    )
    network.add_argument(
        "--check-catalogue",
        action="store_true",
        help="ask the publishers whether the catalogue still holds; fetches no image",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be fetched; ask nobody"
    )
    parser.add_argument(
        "--print-command",
        metavar="FORM",
        choices=("curl",),
        help="print the same as commands of curl and sha256sum (FORM: curl); fetches the sums only",
    )
    parser.add_argument("--json", action="store_true", help="print facts as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Pull, or tell about the catalogue."""
    from thinvirt.store.image_catalogue import load_catalogue

    if not 0 < args.timeout < inf or args.tries < 1:
        raise UsageError("--timeout must be above zero and --tries at least 1")
    images = load_catalogue()
    if args.list:
        return _list(_chosen(images, args), as_json=args.json)
    if args.check_catalogue:
        return _check(_chosen(images, args), args)
    if not args.image:
        raise UsageError("which image?", hint="thinvirt template pull --list shows the catalogue")
    from thinvirt.service.pulls import plan_pull

    plan = plan_pull(
        images,
        args.image,
        architecture=args.arch or _architecture(),
        name=args.name,
        checksum=args.checksum,
        sums=args.sums,
        verify=not args.no_verify,
    )
    if args.dry_run:
        return _tell_plan(plan, as_json=args.json)
    if args.print_command:
        return _print_commands(plan, _client(args))
    return _pull(plan, args)


def _architecture() -> str:
    machine = os.uname().machine
    return machine if machine in ("x86_64", "aarch64") else "x86_64"


def _client(args: argparse.Namespace) -> "Client":
    from thinvirt.store.fetch.http import Client, Timing

    return Client(Timing(stall_s=args.timeout, tries=args.tries))


def _chosen(images: "list[CloudImage]", args: argparse.Namespace) -> "list[CloudImage]":
    """Return what --list and --check-catalogue are about: one name, one architecture, or all."""
    if args.image:
        from thinvirt.vm.cloud_images import find

        return [find(images, args.image, args.arch or _architecture())]
    return [image for image in images if args.arch in (None, image.architecture)]


def _list(images: "list[CloudImage]", *, as_json: bool) -> int:
    if as_json:
        print_json([_image_facts(image) for image in images])
        return 0
    names: dict[str, list[CloudImage]] = {}
    for image in images:
        names.setdefault(image.name, []).append(image)
    rows = [
        (
            name,
            f"{several[0].os} {several[0].release}",
            " ".join(image.architecture for image in several),
            several[0].login_user,
            f"{several[0].min_memory_mib} MiB",
            " ".join(several[0].aliases),
        )
        for name, several in names.items()
    ]
    header = ("NAME", "SYSTEM", "ARCHITECTURES", "LOGIN", "MEMORY", "ALIASES")
    for line in table(header, rows, right="llllr"):
        print(line)
    return 0


def _image_facts(image: "CloudImage") -> dict[str, Any]:
    return {
        "name": image.name,
        "aliases": list(image.aliases),
        "os": image.os,
        "release": image.release,
        "architecture": image.architecture,
        "url": image.url,
        "file_pattern": image.pattern,
        "sums_url": image.sums_url if image.file or "{file}" not in image.sums else "",
        "checksum": str(image.checksum or ""),
        "login_user": image.login_user,
        "min_memory_mib": image.min_memory_mib,
        "min_cpu": image.min_cpu,
        "bus": image.bus,
        "notes": list(image.notes),
        "declared_in": str(image.declared_in),
    }


def _check(images: "list[CloudImage]", args: argparse.Namespace) -> int:
    from thinvirt.service.pulls import check_catalogue

    with progress(quiet=args.quiet) as bar:
        findings = list(check_catalogue(_client(args), images, bar))
    if args.json:
        print_json(
            [
                {
                    "name": finding.image.name,
                    "architecture": finding.image.architecture,
                    "url": finding.url,
                    "size_bytes": finding.size,
                    "ok": not finding.problem,
                    "problem": finding.problem,
                }
                for finding in findings
            ]
        )
    else:
        rows = [
            (
                finding.image.name,
                finding.image.architecture,
                format_size(finding.size) if finding.size is not None else "",
                finding.problem or "ok",
            )
            for finding in findings
        ]
        for line in table(("NAME", "ARCHITECTURE", "SIZE", "FOUND"), rows, right="llr"):
            print(line)
    return 1 if any(finding.problem for finding in findings) else 0


def _tell_plan(plan: "Plan", *, as_json: bool) -> int:
    facts = {
        "name": plan.name,
        "url": plan.url,
        "file_pattern": plan.entry.pattern if plan.entry else "",
        "checksum": str(plan.checksum or ""),
        "sums_url": _sums_of(plan),
        "facts": plan.facts,
    }
    if as_json:
        print_json(facts)
        return 0
    print(f"would make template {plan.name} of {plan.url}{facts['file_pattern']}")
    if plan.checksum:
        print(f"verified by {plan.checksum}")
    elif plan.sums_url:
        print(f"verified by {facts['sums_url']}")
    else:
        print("verified by nothing")
    return 0


def _sums_of(plan: "Plan") -> str:
    """Return the sums' URL, with the pattern in it where the file's name is yet to be found."""
    if plan.entry and plan.entry.pattern and "{file}" in plan.entry.sums:
        return plan.entry.base + plan.entry.sums.replace("{file}", plan.entry.pattern)
    return plan.sums_url


def _print_commands(plan: "Plan", client: "Client") -> int:
    from shlex import quote

    from thinvirt.service.pulls import resolve
    from thinvirt.vm.cloud_images import file_name_of

    source = resolve(client, plan)
    file = file_name_of(source.url) or plan.name
    print(f"curl --fail --location --continue-at - --output {quote(file)} {quote(source.url)} &&")
    if source.checksum:
        line = f"{source.checksum.hexadecimal}  {file}"
        print(f"echo {quote(line)} | {source.checksum.algorithm}sum --check &&")
    print(f"thinvirt template import {quote(file)} --name {quote(plan.name)}")
    return 0


def _pull(plan: "Plan", args: argparse.Namespace) -> int:
    from thinvirt.service.pulls import pull
    from thinvirt.store.fetch.download import fetched_so_far

    if plan.checksum is None and not plan.sums_url:
        note(f"--no-verify: nothing vouches for {plan.url}")
    store = store_of(args, create=True)
    try:
        with progress(quiet=args.quiet) as bar:
            pulled = pull(store, _client(args), plan, bar)
    except KeyboardInterrupt:
        kept = fetched_so_far(store.layout, plan.url)
        what = f"{format_size(kept)} are kept" if kept else "what has come is kept"
        print(file=sys.stderr)
        note(f"{what}: the same command goes on from there")
        raise
    finally:
        store.close()
    template = pulled.template
    if not pulled.looks_bootable:
        note(f"{template.ref} has no boot record: it does not look like a disk to boot from")
    if args.json:
        print_json(
            {
                "name": template.name,
                "version": template.version,
                "digest": template.digest,
                "format": template.format,
                "virtual_size": template.virtual_size,
                "url": pulled.source.url,
                "checksum": str(pulled.source.checksum or ""),
                "verified": plan.checksum is not None or bool(plan.sums_url),
                "fetched_bytes": pulled.fetched_bytes,
                "facts": template.facts,
            }
        )
        return 0
    if pulled.fetched_bytes:
        print(f"template {template.ref}: {format_size(pulled.fetched_bytes)} fetched")
    else:
        print(f"template {template.ref}: already here, nothing fetched")
    for remark in plan.entry.notes if plan.entry else ():
        note(remark)
    return 0
