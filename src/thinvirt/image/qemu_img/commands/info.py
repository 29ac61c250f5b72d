"""``info``: facts of an image, or of a whole backing chain."""

from __future__ import annotations

from thinvirt.image.block.flags import Open
from thinvirt.image.ops.info import ImageInfo
from thinvirt.image.qemu_img.commandline import Words, is_json
from thinvirt.image.qemu_img.getopt import (
    FORCE_SHARE,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    OUTPUT,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Images
from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from thinvirt.image.block.abilities import Snapshot

COMMAND = Command(
    "info",
    "Show facts of an image.",
    "FILE",
    (
        HELP,
        Option("format", "-f --format", "FORMAT", "format of the image, instead of guessing it"),
        OUTPUT,
        Option("chain", "--backing-chain", "", "of all images below it, too"),
        OBJECT,
        IMAGE_OPTS,
        FORCE_SHARE,
    ),
)


def run(words: list[str]) -> int:
    """Run the command."""
    scan = Words(COMMAND, words)
    with Images() as images:
        given = scan.given(images)
        filename = scan.one_operand()
        as_json = is_json(given.get("output"))
        infos = _collect(images, filename, given)
    if not as_json:
        console.write("\n".join(map(_human, infos)))
    else:
        from thinvirt.image.block.qemu_json import dumps

        facts = [_facts(info) for info in infos]
        console.line(dumps(facts if "chain" in given else facts[0], pretty=True))
    return 0


def _collect(images: Images, filename: str, given: dict[str, str]) -> list[ImageInfo]:
    """Return the facts of the image, or of the chain."""
    infos: list[ImageInfo] = []
    seen: set[str] = set()
    image_format, image_opts = given.get("format"), "image-opts" in given
    while True:
        if filename in seen:
            console.fail(f"Backing file '{filename}' creates an infinite loop.")
        seen.add(filename)
        root = images.open(
            filename,
            image_format,
            Open.NO_BACKING | Open.NO_IO,
            image_opts=image_opts,
            force_share="force-share" in given,
        )
        info = ImageInfo(root.node)
        infos.append(info)
        images.close(root)
        if "chain" not in given or not info.backing_filename:
            return infos
        if info.full_backing_filename is None:
            console.fail(
                "Could not determine absolute backing filename, but backing filename "
                f"'{info.backing_filename}' present"
            )
        filename = info.full_backing_filename
        image_format, image_opts = info.backing_format or None, False


def _human(info: ImageInfo) -> str:
    from thinvirt.image.qemu_img.output import size_text, snapshot_table, value_lines

    on_disk = "unavailable" if info.actual_size is None else size_text(info.actual_size)
    parts = [
        f"image: {info.filename}\n"
        f"file format: {info.format}\n"
        f"virtual size: {size_text(info.virtual_size)} ({info.virtual_size} bytes)\n"
        f"disk size: {on_disk}\n"
    ]
    if info.encrypted:
        parts.append("encrypted: yes\n")
    if info.cluster_size:
        parts.append(f"cluster_size: {info.cluster_size}\n")
    if info.dirty:
        parts.append("cleanly shut down: no\n")
    if info.backing_filename:
        parts.append(f"backing file: {info.backing_filename}")
        if info.full_backing_filename is None:
            parts.append(" (cannot determine actual path)")
        elif info.full_backing_filename != info.backing_filename:
            parts.append(f" (actual path: {info.full_backing_filename})")
        parts.append("\n")
        if info.backing_format:
            parts.append(f"backing file format: {info.backing_format}\n")
    if info.snapshots:
        parts.append(snapshot_table(info.snapshots))
    if info.specific is not None:
        parts.append("Format specific information:\n")
        parts += value_lines(info.specific["data"], 1)
    return "".join(parts)


def _facts(info: ImageInfo) -> dict[str, Any]:
    """Return the facts for JSON, put in in the order of QEMU's schema."""
    facts: dict[str, Any] = {"filename": info.filename, "format": info.format}
    if info.dirty is not None:
        facts["dirty-flag"] = info.dirty
    if info.actual_size is not None:
        facts["actual-size"] = info.actual_size
    facts["virtual-size"] = info.virtual_size
    if info.cluster_size:
        facts["cluster-size"] = info.cluster_size
    if info.encrypted:
        facts["encrypted"] = True
    if info.backing_filename:
        facts["backing-filename"] = info.backing_filename
        if info.full_backing_filename is not None:
            facts["full-backing-filename"] = info.full_backing_filename
        if info.backing_format:
            facts["backing-filename-format"] = info.backing_format
    if info.snapshots:
        facts["snapshots"] = [_snapshot(snapshot) for snapshot in info.snapshots]
    if info.specific is not None:
        facts["format-specific"] = dict(info.specific)
    return facts


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "id": snapshot.id,
        "name": snapshot.name,
        "vm-state-size": snapshot.vm_state_size,
        "date-sec": snapshot.date_ns // 10**9,
        "date-nsec": snapshot.date_ns % 10**9,
        "vm-clock-sec": snapshot.vm_clock_ns // 10**9,
        "vm-clock-nsec": snapshot.vm_clock_ns % 10**9,
    }
    if snapshot.icount is not None:
        facts["icount"] = snapshot.icount
    return facts
