"""Templates: taken from a file or a VM, proved unchanged, removed."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinvirt.errors import BaseChanged, Conflict, ImageError, NotFound
from thinvirt.image.block.hostfile import allocated_bytes
from thinvirt.image.ops.copy import copy_sparse, file_sha256
from thinvirt.image.ops.screen import FOREIGN, ImageFacts, screen
from thinvirt.progress import Progress, Silent
from thinvirt.store import Fingerprint, Store, Template, Vm
from thinvirt.store.publication import is_intact, publish
from thinvirt.store.publication import remove_template as remove_from_store
from thinvirt.store.trouble import explained
from thinvirt.vm.names import MAX_NAME_LENGTH, check_template_name

_SILENT = Silent()
_SUFFIXES = (".qcow2", ".img", ".raw", ".vmdk", ".vdi", ".vhd", ".vhdx", ".vpc", ".disk", ".bin")


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an imported file.

    Attributes:
        template: the template.
        was_there: the same bytes were there under this name already, and nothing was added.
        restored: they were, but the store's own file was lost or changed: it is replaced now.
        converted_from: the foreign format it was converted from by qemu-img, or "".
        looks_bootable: False for a raw image without a boot record: perhaps no disk image at all.
    """

    template: Template
    was_there: bool
    restored: bool
    converted_from: str
    looks_bootable: bool


def take_image(
    store: Store,
    file: Path,
    *,
    name: str | None = None,
    source: str | None = None,
    facts: Mapping[str, Any] | None = None,
    move: bool = False,
    progress: Progress = _SILENT,
) -> Imported:
    """Take any image file as a template; its format is found by content, never by its name.

    Args:
        store: where to.
        file: the image; it is left alone unless `move` is set.
        name: the template's name; None: made of the file's name.
        source: where it came from, in words; None: the file's path.
        facts: what is known of its guest operating system (JSON-ready).
        move: take the file itself where that is possible, instead of a copy: it is ours, nobody
            else writes to it. It is gone afterwards, or back in its place if this fails.
        progress: told bytes.

    Raises:
        UsageError: the name cannot be.
        ImageError: the image is damaged, hostile, compressed, or of an unknown kind.
        NoSpace: the file system is full; nothing is left behind.
    """
    store.require_writable()
    chosen = check_template_name(name) if name is not None else name_from_file(file)
    screen(file)  # a quick refusal; what counts is the look at our own copy
    with (
        store.workspace(f"thinvirt template import {file.name}") as workspace,
        ExitStack() as undo,
    ):
        image = workspace / "image"
        digest = _own(store, file, image, undo, move=move, progress=progress)
        found = screen(image)
        foreign = found.format if found.format in FOREIGN else ""
        if foreign:
            image, found = _converted(image, foreign, progress)
            digest = file_sha256(image)
        before = store.catalog.template_by_digest(chosen, digest)
        restored = before is not None and not is_intact(store, before)
        template = publish(
            store,
            image,
            name=chosen,
            digest=digest,
            image_format=found.format,
            virtual_size=found.virtual_size,
            source=source or str(file.absolute()),
            facts=facts or {},
        )
        undo.pop_all()
    return Imported(
        template,
        was_there=before is not None,
        restored=restored,
        converted_from=foreign,
        looks_bootable=bool(found.details.get("boot_record", True)),
    )


def import_image(
    store: Store,
    file: Path,
    *,
    name: str | None = None,
    source: str | None = None,
    facts: Mapping[str, Any] | None = None,
    move: bool = False,
    progress: Progress = _SILENT,
) -> Template:
    """Take any image file as a template: `take_image` for those who only want the template."""
    return take_image(
        store, file, name=name, source=source, facts=facts, move=move, progress=progress
    ).template


def promote(
    store: Store, vm_name: str, *, name: str | None = None, progress: Progress = _SILENT
) -> Template:
    """Make a self-contained template of what a stopped VM's guest has on its disk.

    Args:
        store: theirs.
        vm_name: the VM; it stays as it is.
        name: the template's name; None: the VM's.
        progress: told what is done.

    Raises:
        Conflict: the VM runs.
        Busy: another command is at it.
        BaseChanged: its template is not what it was.
    """
    from thinvirt.image.ops.foreign import flatten
    from thinvirt.run.liveness import is_alive

    vm = store.catalog.find_vm(vm_name)
    chosen = check_template_name(name or vm.name)
    with store.lock_vm(vm, "template promote"):
        if is_alive(store.layout.run_dir(vm.id)):
            raise Conflict(
                f"VM '{vm.name}' is running, and its disk changes meanwhile",
                hint=f"thinvirt stop {vm.name}",
            )
        base, disk = vm.template, _system_disk(store, vm)
        if base is not None:
            check_base(store, base)
        with store.workspace(f"thinvirt template promote {vm.name}") as workspace:
            image = workspace / "flat"
            if disk.format == "raw":
                image = disk.path
            else:
                flatten(disk.path, image, progress=progress)
            return import_image(
                store,
                image,
                name=chosen,
                source=f"VM {vm.name} of {base.ref}" if base is not None else f"VM {vm.name}",
                facts=_facts_of(vm),
                progress=progress,
                move=image != disk.path,
            )


@dataclass(frozen=True, slots=True)
class _Disk:
    """The disk that a VM's system is on."""

    path: Path
    format: str


def _system_disk(store: Store, vm: Vm) -> _Disk:
    """Return the first disk of a VM.

    Raises:
        Conflict: it has none, or its system has still to be installed.
    """
    from thinvirt.service.drives import disk_path

    if vm.template is not None:
        return _Disk(store.overlay(vm), "qcow2")
    spec = vm.spec
    if spec.install is not None:
        raise Conflict(
            f"VM '{vm.name}' has still to be installed", hint=f"thinvirt start {vm.name}"
        )
    for number, disk in enumerate(spec.disks):
        if disk.device == "disk":
            return _Disk(disk_path(store, vm, disk, number), disk.format or "qcow2")
    raise Conflict(f"VM '{vm.name}' has no disk")


def _facts_of(vm: Vm) -> dict[str, Any]:
    """Return what is known of a VM's guest: of its template's, its OS, and what it starts by."""
    spec, base = vm.spec, vm.template
    facts = dict(base.facts) if base is not None else {"os": spec.os} if spec.os else {}
    if spec.os:
        facts["osinfo"] = spec.os
    if spec.firmware == "efi":  # what was installed under UEFI starts by nothing else
        facts |= {"firmware": ["uefi"], "secure_boot": spec.secure_boot}
    return facts


def check_base(store: Store, template: Template) -> None:
    """Return if the template's file is what it was when it was published.

    `stat` is compared, which takes microseconds. Where it differs (the store was moved or
    restored, or somebody wrote) the digest is computed anew; an equal one is accepted and the new
    `stat` recorded, so that this happens once.

    Raises:
        BaseChanged: the content differs, or the file is gone.
    """
    path = store.template_image(template)
    seen = _fingerprint(store, template, path)
    if seen == template.fingerprint:
        return
    if seen.size != template.file_size or file_sha256(path) != template.digest:
        raise BaseChanged(
            f"the image of template {template.ref} has been changed behind our back; "
            "a VM on it would see a damaged disk",
            path=path,
            hint=f"thinvirt template verify {template.ref}; the original is put back by: "
            f"{_reimport(template)}",
        )
    if store.writable:
        store.catalog.set_fingerprint(template.digest, seen)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a full look at one template found; `problem` is empty if all is well."""

    template: Template
    problem: str


def verify(store: Store, refs: Sequence[str], *, progress: Progress = _SILENT) -> Iterator[Verdict]:
    """Compare each template's whole file with its digest, and screen its header.

    Args:
        store: theirs.
        refs: which; none: all.
        progress: told what is read.
    """
    chosen = (
        [store.catalog.find_template(ref) for ref in refs] if refs else store.catalog.templates()
    )
    for template in chosen:
        progress.step(f"reading {template.ref}", template.file_size, "bytes")
        problem = _problem(store, template)
        progress.advance(template.file_size)
        yield Verdict(template, problem)


def remove_templates(store: Store, refs: Sequence[str]) -> list[Template]:
    """Remove templates, and return what they were; none is removed if one of them has clones.

    Args:
        store: theirs.
        refs: ``NAME@N`` is one version; ``NAME`` is the newest.

    Raises:
        Conflict: one has clones; the message names them.
        NotFound: one is not there.
    """
    store.require_writable()
    chosen = {t.id: t for t in (store.catalog.find_template(ref) for ref in refs)}
    counts = store.catalog.clone_counts()
    # Those with clones first: the refusal then comes before anything was removed.
    for template in sorted(chosen.values(), key=lambda t: t.id not in counts):
        remove_from_store(store, template)
    return list(chosen.values())


def template_facts(store: Store, template: Template, clones: int) -> dict[str, Any]:
    """Return all there is to say about a template, JSON-ready."""
    path = store.template_image(template)
    try:
        occupied: int | None = allocated_bytes(path.stat())
    except OSError:
        occupied = None
    return {
        "name": template.name,
        "version": template.version,
        "ref": template.ref,
        "digest": f"sha256:{template.digest}",
        "format": template.format,
        "virtual_size": template.virtual_size,
        "file_size": template.file_size,
        "allocated_bytes": occupied,
        "clones": clones,
        "created": template.created,
        "source": template.source,
        "guest": template.facts,
        "path": str(path),
    }


def name_from_file(file: Path) -> str:
    """Return a template name made of a file's name: its image suffix and odd characters go.

    Raises:
        UsageError: nothing usable is left.
    """
    stem = file.name
    while stem.lower().endswith(_SUFFIXES):
        stem = stem[: stem.rindex(".")]
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)
    return check_template_name(kept.strip("._-")[:MAX_NAME_LENGTH].rstrip("._-"))


def _own(
    store: Store, file: Path, image: Path, undo: ExitStack, *, move: bool, progress: Progress
) -> str:
    """Bring `file` to `image` in a workspace, durably, and return its SHA-256."""
    if not move or file.stat().st_dev != image.parent.stat().st_dev:
        return copy_sparse(file, image, progress=progress).sha256
    with explained(store.layout.home):
        file.rename(image)
        undo.callback(_put_back, image, file)
        with image.open("rb") as stream:
            os.fsync(stream.fileno())
    return file_sha256(image, progress=progress)


def _converted(image: Path, image_format: str, progress: Progress) -> tuple[Path, ImageFacts]:
    """Convert an image of a foreign format beside itself; return the new one and what it is."""
    from thinvirt.image.ops.foreign import convert_foreign

    converted = image.with_name("converted")
    convert_foreign(image, converted, source_format=image_format, progress=progress)
    return converted, screen(converted)


def _put_back(image: Path, file: Path) -> None:
    if image.exists():
        image.rename(file)


def _reimport(template: Template) -> str:
    """Return the command that puts a template's file back; an equal one is told by its digest."""
    return f"thinvirt template import FILE --name {template.name}"


def _problem(store: Store, template: Template) -> str:
    path = store.template_image(template)
    try:
        seen = _fingerprint(store, template, path)
        if file_sha256(path) != template.digest:
            return "the content is not what was published: its SHA-256 differs"
        if screen(path).format != template.format:
            return "the content is not of the recorded format"
    except (ImageError, NotFound) as error:
        return str(error)
    if seen != template.fingerprint and store.writable:
        store.catalog.set_fingerprint(template.digest, seen)
    return ""


def _fingerprint(store: Store, template: Template, path: Path) -> Fingerprint:
    try:
        return Fingerprint.of(path)
    except FileNotFoundError:
        raise BaseChanged(
            f"the image of template {template.ref} is gone",
            path=path,
            hint=f"put it back: {_reimport(template)}",
        ) from None
    except OSError as error:
        from thinvirt.store.trouble import explain_os_error

        raise explain_os_error(error, store.layout.home) from error
