"""``check``: are the structures of an image sound? It can repair them."""

from __future__ import annotations

from thinvirt.image.block.abilities import CheckResult, Repair
from thinvirt.image.block.errors import BlockError, NotSupported
from thinvirt.image.block.flags import Open
from thinvirt.image.ops.check import check_image
from thinvirt.image.qemu_img.commandline import Words, is_json
from thinvirt.image.qemu_img.getopt import (
    FORCE_SHARE,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    OUTPUT,
    QUIET,
    SOURCE_CACHE,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Images, cache_mode
from thinvirt.image.qemu_img.report import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode

COMMAND = Command(
    "check",
    "Check an image: status 0 sound, 1 not checked, 2 corrupt, 3 leaks only, 63 nothing to check.",
    "FILE",
    (
        HELP,
        Option("format", "-f --format", "FORMAT", "format of the image, instead of guessing it"),
        Option("repair", "-r --repair", "leaks|all", "repair leaks, or all that is found"),
        SOURCE_CACHE,
        OUTPUT,
        QUIET,
        OBJECT,
        IMAGE_OPTS,
        FORCE_SHARE,
    ),
)

_CORRUPT, _LEAKS, _UNSUPPORTED = 2, 3, 63
_REPAIRS = {"leaks": Repair.LEAKS, "all": Repair.LEAKS | Repair.ERRORS}


def run(words: list[str]) -> int:
    """Run the command."""
    given: dict[str, str] = {}
    scan = Words(COMMAND, words)
    with Images() as images:
        for key, value in scan:
            if key == "object":
                images.add_object(value)
            elif key == "repair" and value not in _REPAIRS:
                console.usage(f"Unknown option value for -r (expecting 'leaks' or 'all'): {value}")
            given[key] = value
        filename = scan.one_operand()
        as_json = is_json(given.get("output"))
        cache = cache_mode(given.get("source-cache", "writeback"), "source cache option")
        repair = _REPAIRS.get(given.get("repair", ""), Repair.NOTHING)
        image = images.open(
            filename,
            given.get("format"),
            Open.CHECK | cache.flags | (Open.RDWR if repair else 0),
            image_opts="image-opts" in given,
            force_share="force-share" in given,
            writethrough=cache.writethrough,
        )
        show = _Show(filename, quiet="quiet" in given, as_json=as_json)
        try:
            return show.check(image.node, repair)
        except NotSupported:
            console.error("This image format does not support checks")
            return _UNSUPPORTED


def _tell(finding: str) -> None:
    if finding.startswith("error: "):
        console.notice(finding)
    else:
        console.finding(finding)


class _Show:
    """Checks an image and tells of it."""

    def __init__(self, filename: str, *, quiet: bool, as_json: bool) -> None:
        self.filename = filename
        self.quiet = quiet
        self.as_json = as_json

    def check(self, node: BlockNode, repair: int) -> int:
        """Check, repair, check again; return the exit status."""
        try:
            result = check_image(node, repair=repair, tell=_tell)
            if result.leaks_fixed or result.corruptions_fixed:
                first = result
                self._tell_repairs(first)
                result = check_image(node, tell=_tell)
                result.leaks_fixed = first.leaks_fixed
                result.corruptions_fixed = first.corruptions_fixed
        except NotSupported:
            raise
        except BlockError as error:
            console.error(f"Check failed: {error.reason}")
            return 1
        if not self.quiet:
            console.write(self._json(node, result) if self.as_json else _human(result))
        if result.check_errors:
            console.error("Check failed")
            return 1
        if result.corruptions:
            return _CORRUPT
        return _LEAKS if result.leaks else 0

    def _tell_repairs(self, result: CheckResult) -> None:
        if not self.as_json and not self.quiet:
            console.write(
                "The following inconsistencies were found and repaired:\n\n"
                f"    {result.leaks_fixed} leaked clusters\n"
                f"    {result.corruptions_fixed} corruptions\n\n"
                "Double checking the fixed image now...\n"
            )

    def _json(self, node: BlockNode, result: CheckResult) -> str:
        from thinvirt.image.block.qemu_json import dumps

        facts: dict[str, str | int] = {
            "filename": self.filename,
            "format": node.driver,
            "check-errors": result.check_errors,
        }
        for name in (
            "image_end_offset",
            "corruptions",
            "leaks",
            "corruptions_fixed",
            "leaks_fixed",
            "total_clusters",
            "allocated_clusters",
            "fragmented_clusters",
            "compressed_clusters",
        ):
            value = getattr(result, name)
            if value:
                facts[name.replace("_", "-")] = value
        return dumps(facts, pretty=True) + "\n"


def _human(result: CheckResult) -> str:
    parts = []
    if not (result.corruptions or result.leaks or result.check_errors):
        parts.append("No errors were found on the image.\n")
    if result.corruptions:
        parts.append(
            f"\n{result.corruptions} errors were found on the image.\n"
            "Data may be corrupted, or further writes to the image may corrupt it.\n"
        )
    if result.leaks:
        parts.append(
            f"\n{result.leaks} leaked clusters were found on the image.\n"
            "This means waste of disk space, but no harm to data.\n"
        )
    if result.check_errors:
        parts.append(f"\n{result.check_errors} internal errors have occurred during the check.\n")
    allocated = result.allocated_clusters
    if result.total_clusters and allocated:
        parts.append(
            f"{allocated}/{result.total_clusters} = "
            f"{allocated * 100 / result.total_clusters:.2f}% allocated, "
            f"{result.fragmented_clusters * 100 / allocated:.2f}% fragmented, "
            f"{result.compressed_clusters * 100 / allocated:.2f}% compressed clusters\n"
        )
    if result.image_end_offset:
        parts.append(f"Image end offset: {result.image_end_offset}\n")
    return "".join(parts)
