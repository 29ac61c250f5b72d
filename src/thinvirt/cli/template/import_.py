"""``thinvirt template import``: take an image file as a template."""

import argparse
from pathlib import Path
from typing import Any

from thinvirt.cli.output import note, print_json, progress
from thinvirt.cli.stores import store_of
from thinvirt.units import format_size

_EPILOG = """The format is found by content, never by the file's name. raw and qcow2 are taken as
they are, and sparse parts stay sparse; vmdk, vdi, vhd and vhdx are converted by an installed
qemu-img. Images that name other files, are encrypted or damaged are refused. A name that exists
gets a new version.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("file", metavar="FILE", help="the image")
    parser.add_argument("--name", metavar="NAME", help="the template's name (the file's)")
    parser.add_argument(
        "--osinfo",
        "--os-variant",
        metavar="OS",
        help="the system on it, such as win10: decides the disk bus and card of its clones",
    )
    parser.add_argument(
        "--firmware", choices=("bios", "uefi"), help="what it starts by, if by one of them only"
    )
    parser.add_argument("--json", action="store_true", help="print the template as JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    parser.epilog = _EPILOG


def run(args: argparse.Namespace) -> int:
    """Import it and print what it became."""
    from thinvirt.service.templates import take_image, template_facts

    store = store_of(args, create=True)
    file = Path(args.file).expanduser()
    facts = _guest_facts(args)
    with progress(quiet=args.quiet or args.json) as bars:
        taken = take_image(store, file, name=args.name, facts=facts, progress=bars)
    template = taken.template
    if taken.converted_from:
        note(f"converted from {taken.converted_from} to qcow2 by qemu-img")
    if not taken.looks_bootable:
        note(f"{file} has no boot record: it does not look like a disk that a VM can boot from")
    if taken.restored:
        note(f"the store's image of {template.ref} was lost or changed, and is put back")
    elif taken.was_there:
        note(f"{template.ref} has the same content: nothing was added")
    if args.json:
        clones = store.catalog.clone_counts().get(template.id, 0)
        print_json(template_facts(store, template, clones) | {"was_there": taken.was_there})
    else:
        print(f"{template.ref}: {template.format}, {format_size(template.virtual_size)}")
    return 0


def _guest_facts(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was said of the guest, as its template records it.

    Raises:
        NotFound: there is no such OS.
    """
    facts: dict[str, Any] = {}
    if args.osinfo:
        from thinvirt.service.os_knowledge import OsKnowledge

        info = OsKnowledge().find(args.osinfo)
        facts |= {"os": info.name, "osinfo": info.short_id}
    if args.firmware:
        facts["firmware"] = [args.firmware]
    return facts
