"""Operations on one image: make it, look at it, change its structure. One function each.

Arguments that occur everywhere: `name` is what `open_image` takes; `format` None guesses; `secrets`
are passwords by id; `progress` is told how much is done of how much, and cancels by raising.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from thinvirt.errors import UsageError
from thinvirt.image.block.abilities import CheckResult, Repair
from thinvirt.image.block.errors import NotSupported
from thinvirt.image.block.flags import Open, Preallocation
from thinvirt.image.library.session import (
    ImageName,
    OptionValues,
    Progress,
    Secrets,
    Session,
    file_name,
    host_path,
    located,
    option_text,
)
from thinvirt.image.library.target import new_name
from thinvirt.image.ops import amend as ops_amend
from thinvirt.image.ops.check import check_image
from thinvirt.image.ops.create import create_image
from thinvirt.image.ops.info import ImageInfo
from thinvirt.image.ops.measure import measure_image, measure_values
from thinvirt.image.ops.resize import WouldShrink, resize_image

if TYPE_CHECKING:
    import os

    from thinvirt.image.block.abilities import Measure

_REPAIRS = {
    "nothing": Repair.NOTHING,
    "leaks": Repair.LEAKS,
    "all": Repair.LEAKS | Repair.ERRORS,
}


class CheckReport(NamedTuple):
    """What a check found: counts, and each finding in a line of its own."""

    counts: CheckResult
    findings: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong any more. Leaks are wrong too, though they harm no data."""
        counts = self.counts
        return not (counts.corruptions or counts.leaks or counts.check_errors)


def create(
    name: str | os.PathLike[str],
    size: int | None = None,
    *,
    format: str = "qcow2",  # noqa: A002
    backing: str | os.PathLike[str] | None = None,
    backing_format: str | None = None,
    options: OptionValues | None = None,
    overwrite: bool = False,
    secrets: Secrets | None = None,
) -> None:
    """Make an empty image.

    Args:
        name: of the new image.
        size: bytes; None takes that of the backing file.
        format: of the new image.
        backing: what shows where nothing was written, as the image shall say it: relative to
            `name`.
        backing_format: needed with `backing`.
        options: of the format, such as ``{"cluster_size": 65536, "lazy_refcounts": True}``.
        overwrite: replace a file that is there.
        secrets: that the options refer to.

    Raises:
        Conflict: there is such a file, or others use it.
        NotFound: the backing file is not there.
        ImageError: such an image cannot be made.
    """
    text = new_name(name, overwrite=overwrite)
    if size is not None and size < 0:
        raise UsageError(f"a size of {size} bytes cannot be", path=host_path(name))
    with located(name), Session(secrets) as session:
        create_image(
            session.graph,
            text,
            format,
            size=size,
            options=option_text(options),
            backing=None if backing is None else file_name(backing)[0],
            backing_format=backing_format,
        )


def info(
    name: ImageName,
    *,
    format: str | None = None,  # noqa: A002
    force_share: bool = True,
    secrets: Secrets | None = None,
) -> ImageInfo:
    """Return what an image's header says of it; its content is not read, no key is needed.

    Args:
        name: of the image.
        format: of it.
        force_share: look even while a guest writes to it.
        secrets: rarely of use here.

    Raises:
        ImageError: it cannot be opened.
    """
    with Session(secrets) as session:
        flags = Open.NO_BACKING | Open.NO_IO
        return ImageInfo(session.open(name, format, flags, force_share=force_share).node)


def measure(
    source: ImageName | int,
    *,
    format: str = "qcow2",  # noqa: A002
    options: OptionValues | None = None,
    source_format: str | None = None,
    secrets: Secrets | None = None,
) -> Measure:
    """Return how many bytes of the host a new image would need.

    Args:
        source: the image that would be converted, or the size of an empty one in bytes.
        format: of the new image.
        options: of the new image.
        source_format: of `source`.
        secrets: see `open_image`.

    Raises:
        ImageError: the format cannot tell, or `source` cannot be read.
    """
    size = source if isinstance(source, int) else None
    values = measure_values(format, option_text(options), size)
    if isinstance(source, int):
        return measure_image(format, values, None)
    with Session(secrets) as session:
        node = session.open(source, source_format).node
        with located(source):
            return measure_image(format, values, node)


def check(
    name: ImageName,
    *,
    format: str | None = None,  # noqa: A002
    repair: str = "nothing",
    force_share: bool = False,
    secrets: Secrets | None = None,
) -> CheckReport:
    """Check the structures of an image against each other.

    Args:
        name: of the image.
        format: of it.
        repair: "nothing", "leaks" (gives back what nobody uses) or "all".
        force_share: take no locks; findings in an image that is written to may be none.
        secrets: see `open_image`.

    Returns:
        What is wrong: after a repair, what still is, and how much was repaired.

    Raises:
        UsageError: no such repair.
        NotSupported: the format has nothing to check.
        ImageError: it cannot be checked at all.
    """
    if repair not in _REPAIRS:
        raise UsageError(f"no repair '{repair}': there are {', '.join(_REPAIRS)}")
    how = _REPAIRS[repair]
    findings: list[str] = []
    with Session(secrets) as session:
        flags = Open.CHECK | (Open.RDWR if how else 0)
        node = session.open(name, format, flags, force_share=force_share).node
        with located(name):
            try:
                first = counts = check_image(node, repair=how, tell=findings.append)
            except NotSupported as error:
                raise NotSupported(f"images of format {node.driver} cannot be checked") from error
            if first.leaks_fixed or first.corruptions_fixed:
                counts = check_image(node, tell=findings.append)
                counts.leaks_fixed = first.leaks_fixed
                counts.corruptions_fixed = first.corruptions_fixed
    return CheckReport(counts, tuple(findings))


def resize(
    name: ImageName,
    size: int,
    *,
    format: str | None = None,  # noqa: A002
    shrink: bool = False,
    preallocation: str = Preallocation.OFF,
    secrets: Secrets | None = None,
) -> None:
    """Give an image another size.

    Args:
        name: of the image.
        size: bytes.
        format: of it.
        shrink: a smaller size is meant: what lies past it is lost.
        preallocation: "off", "metadata", "falloc" or "full", for what is added.
        secrets: see `open_image`.

    Raises:
        UsageError: it would shrink.
        ImageError: not possible.
    """
    with Session(secrets) as session:
        root = session.open(name, format, Open.RDWR | Open.RESIZE)
        with located(name):
            try:
                resize_image(root, size, preallocation=preallocation, shrink=shrink)
            except WouldShrink as error:
                text = f"the image has {root.size} bytes: {size} would cut off what lies past them"
                raise UsageError(text, hint="shrink=True does") from error


def amend(
    name: ImageName,
    options: OptionValues,
    *,
    format: str | None = None,  # noqa: A002
    force: bool = False,
    progress: Progress | None = None,
    secrets: Secrets | None = None,
) -> None:
    """Change options that an image was created with, such as ``{"lazy_refcounts": True}``.

    Args:
        name: of the image.
        options: what to change.
        format: of it.
        force: do what could make the image unreadable for good (keys).
        progress: told how far it is.
        secrets: see `open_image`.

    Raises:
        ImageError: not possible.
    """
    if not options:
        raise UsageError("no options to change", path=host_path(name))
    with Session(secrets) as session:
        node = session.open(name, format, Open.RDWR).node
        with located(name):
            values = ops_amend.amend_values(node, option_text(options) or "")
            ops_amend.amend_image(node, values, force=force, watch=progress)
