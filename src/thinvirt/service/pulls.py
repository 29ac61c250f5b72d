"""Pulling: from a catalogue name or a URL to a verified template in the store."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

from thinvirt.errors import BaseChanged, ImageError, ThinvirtError, UsageError, VerificationFailed
from thinvirt.progress import Progress
from thinvirt.store import Store, Template
from thinvirt.store.fetch.download import Download
from thinvirt.store.fetch.http import Client, check_url
from thinvirt.store.fetch.unpack import compression_of, unpack
from thinvirt.vm.checksums import (
    Checksum,
    digest_for,
    listed_names,
    newest_match,
    parse_checksum,
    parse_sums,
)
from thinvirt.vm.cloud_images import CloudImage, file_name_of, find
from thinvirt.vm.names import MAX_NAME_LENGTH, check_template_name

_SUFFIXES = re.compile(r"(\.(img|qcow2?|raw|vmdk|vdi|vhdx?|xz|gz|bz2|zst))+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be fetched, before anything is asked of the network.

    Attributes:
        name: of the template to be.
        url: of the image; of its folder if the file's name is yet to be found.
        checksum: the promised digest, if it is known beforehand.
        sums_url: where the publisher's sums are; empty with a checksum, or if nothing is verified.
        entry: the catalogue's, None for a URL.
        facts: what is known of the guest.
    """

    name: str
    url: str
    checksum: Checksum | None
    sums_url: str
    entry: CloudImage | None
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A plan with nothing left open: the image's URL and the digest promised for it."""

    url: str
    checksum: Checksum | None


@dataclass(frozen=True, slots=True)
class Pulled:
    """What came of a pull.

    Attributes:
        template: the template that is there now.
        source: where it is from.
        fetched_bytes: what was fetched or already lay in the downloads; 0 if the store had it.
        looks_bootable: False for a raw image without a boot record: a page that tells of an error?
    """

    template: Template
    source: Source
    fetched_bytes: int
    looks_bootable: bool = True


def plan_pull(
    images: list[CloudImage],
    target: str,
    *,
    architecture: str,
    name: str = "",
    checksum: str = "",
    sums: str = "",
    verify: bool = True,
) -> Plan:
    """Return what `target` means; nothing is asked of the network.

    Args:
        images: the catalogue.
        target: a name or alias in it, or an http or https URL.
        architecture: which of an entry's images.
        name: of the template; empty: the entry's, or made from the URL's file name.
        checksum: ``sha256:HEX`` or ``sha512:HEX``, which then is what counts.
        sums: https URL of a checksum file that has the image's digest.
        verify: False takes a URL without any checksum.

    Raises:
        NotFound: the catalogue has no such image.
        UsageError: a URL with nothing to verify it by, or options that contradict each other.
    """
    if bool(checksum) + bool(sums) + (not verify) > 1:
        raise UsageError(
            "--checksum, --sums and --no-verify exclude each other",
            hint="a digest from somebody you trust is the strongest: --checksum",
        )
    promised = parse_checksum(checksum) if checksum else None
    if sums:
        check_url(sums)
        if urlsplit(sums).scheme != "https":
            raise UsageError(
                f"--sums {sums}: checksums that come without TLS prove nothing",
                hint="name an https URL, or the digest itself: --checksum sha256:HEX",
            )
    if "://" in target:
        return _plan_url(target, name, promised, sums, verify=verify)
    if not verify or sums:
        raise UsageError(
            "--no-verify and --sums are for URLs: the catalogue knows where an image's sums are",
            hint="--checksum pins an image of the catalogue to one digest",
        )
    entry = find(images, target, architecture)
    promised = promised or entry.checksum
    return Plan(
        name=check_template_name(name or entry.name),
        url=entry.url,
        checksum=promised,
        sums_url="" if promised and entry.file else entry.sums_url,
        entry=entry,
        facts=dict(entry.guest_facts()),
    )


def _plan_url(url: str, name: str, promised: Checksum | None, sums: str, *, verify: bool) -> Plan:
    check_url(url)
    if promised is None and not sums and verify:
        raise UsageError(
            f"nothing to verify {url} by: whoever can change it, or the way here, would choose "
            "what your VMs run",
            hint="--checksum sha256:HEX, --sums URL of the publisher's checksum file, or "
            "--no-verify if it is yours",
        )
    return Plan(
        name=check_template_name(name) if name else name_from_url(url),
        url=url,
        checksum=promised,
        sums_url=sums,
        entry=None,
        facts={},
    )


def name_from_url(url: str) -> str:
    """Return a template's name made from a URL's file name.

    Raises:
        UsageError: nothing is left of it.
    """
    stem = _SUFFIXES.sub("", file_name_of(url))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem)[:MAX_NAME_LENGTH].strip("._-")
    if not name:
        raise UsageError(f"{url} has no file name to call the template by", hint="give --name NAME")
    return name


def resolve(client: Client, plan: Plan) -> Source:
    """Ask the publisher for the sums, and for the newest file's name where that is open.

    Raises:
        VerificationFailed: the sums do not have the image.
        NotFound, TemporaryFailure: the sums cannot be had.
    """
    if plan.entry is not None:
        return _resolve_entry(client, plan.entry, plan.checksum)
    if not plan.sums_url:
        return Source(plan.url, plan.checksum)
    name = file_name_of(plan.url)
    sums = parse_sums(client.text(plan.sums_url))
    # A file named after the image can only speak of it, under whatever name.
    kind = "single" if file_name_of(plan.sums_url).startswith(name) else "list"
    if kind == "list" and set(sums.by_name) == {""}:
        kind = "single"
    return Source(plan.url, digest_for(sums, name, kind, sums_url=plan.sums_url))


def _resolve_entry(client: Client, entry: CloudImage, promised: Checksum | None) -> Source:
    if entry.pattern and entry.index:
        names = listed_names(client.text(entry.index))
        entry = entry.with_file(newest_match(entry.pattern, names, where=entry.index))
    if entry.file and promised is not None:
        return Source(entry.url, promised)
    where = entry.sums_url
    sums = parse_sums(client.text(where), entry.sums_kind)
    if entry.pattern:
        name = newest_match(entry.pattern, sums.by_name, where=where)
        entry = replace(entry.with_file(name), base=urljoin(entry.base, sums.folder))
    digest = digest_for(sums, file_name_of(entry.url), entry.sums_kind, sums_url=where)
    return Source(entry.url, promised or digest)


def pull(store: Store, client: Client, plan: Plan, progress: Progress) -> Pulled:
    """Fetch, verify and import what was planned; an image that is there already is not fetched.

    Raises:
        VerificationFailed: the file is not the one promised; it has been removed.
        ImageError: it is no image, or one that may not be opened.
        Busy: another process fetches the same.
        NotFound, TemporaryFailure, NoSpace: it cannot be had; what came of it is kept.
    """
    from thinvirt.service.templates import take_image

    store.require_writable()
    if plan.sums_url:
        progress.step(f"asking {urlsplit(plan.sums_url).hostname} for the checksums")
    source = resolve(client, plan)
    there = _already_there(store, plan, source)
    if there is not None:
        return Pulled(_under_name(store, there, plan, source), source, 0)
    with Download(store.layout, client, source.url, source.checksum) as download:
        fetched = download.fetch(progress)
        source = Source(source.url, fetched.checksum)
        try:
            image = fetched.path
            if compression_of(image):
                unpack(image, download.unpacked, progress)
                image = download.unpacked
            taken = take_image(
                store,
                image,
                name=plan.name,
                source=source.url,
                facts=_facts(plan, source, verified=fetched.verified),
                move=True,
                progress=progress,
            )
        except ImageError:
            download.forget()  # to fetch or import it again would end the same way
            raise
        download.forget()
    return Pulled(taken.template, source, fetched.size, taken.looks_bootable)


def _facts(plan: Plan, source: Source, *, verified: bool) -> dict[str, Any]:
    return plan.facts | {"pulled_checksum": str(source.checksum), "pulled_verified": verified}


def _under_name(store: Store, there: Template, plan: Plan, source: Source) -> Template:
    """Return `there`, or the same image under the name that was asked for: one file, two rows."""
    from thinvirt.store.publication import publish

    if there.name == plan.name:
        return there
    return publish(
        store,
        store.template_image(there),
        name=plan.name,
        digest=there.digest,
        image_format=there.format,
        virtual_size=there.virtual_size,
        source=source.url,
        facts=_facts(plan, source, verified=True),
    )


def _already_there(store: Store, plan: Plan, source: Source) -> Template | None:
    """Return a template made of the very file promised; one of the wanted name, if there is."""
    if source.checksum is None:
        return None
    wanted = source.checksum
    same = [
        template
        for template in store.catalog.templates()
        if (
            template.facts.get("pulled_checksum") == str(wanted)
            or (wanted.algorithm == "sha256" and template.digest == wanted.hexadecimal)
        )
        and _is_sound(store, template)
    ]
    return next((t for t in same if t.name == plan.name), same[0] if same else None)


def _is_sound(store: Store, template: Template) -> bool:
    """Tell whether a template's file is what it was; one that is not is fetched again."""
    from thinvirt.service.templates import check_base

    try:
        check_base(store, template)
    except BaseChanged:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Finding:
    """What the check of one catalogue entry found; `problem` is empty if all is well."""

    image: CloudImage
    url: str
    size: int | None
    problem: str


def check_catalogue(
    client: Client, images: list[CloudImage], progress: Progress
) -> Iterator[Finding]:
    """Ask the publishers whether they still have what the catalogue says; fetch no image.

    Of each entry the sums are fetched and the image's digest looked up in them (a pinned one must
    be the same), and a HEAD request asks for the image.
    """
    progress.step("asking the publishers", len(images), "images")
    for image in images:
        url, size, problem = image.url, None, ""
        try:
            source = _resolve_entry(client, image, None)
            url = source.url
            if image.checksum is not None and source.checksum != image.checksum:
                raise VerificationFailed(
                    f"pinned to {image.checksum}, the publisher says {source.checksum}"
                )
            with client.head(url) as answer:
                size = answer.length
        except ThinvirtError as error:
            problem = str(error)
        progress.advance(1)
        yield Finding(image, url, size, problem)
