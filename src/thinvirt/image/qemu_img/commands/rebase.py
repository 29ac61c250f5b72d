"""``rebase``: put an image onto another backing file."""

from __future__ import annotations

import errno

from thinvirt.image.block.errors import BlockError, ForeignDriver
from thinvirt.image.block.flags import Open
from thinvirt.image.block.names import backing_filename, refresh_filename
from thinvirt.image.block.status import skip_filters
from thinvirt.image.ops.chain import find_backing
from thinvirt.image.ops.create import find_format
from thinvirt.image.ops.rebase import change_backing, keep_content
from thinvirt.image.qemu_img.commandline import Words
from thinvirt.image.qemu_img.getopt import (
    CACHE,
    FORCE_SHARE,
    FORMAT,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    PROGRESS,
    QUIET,
    SOURCE_CACHE,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Images, cache_mode
from thinvirt.image.qemu_img.progress import Meter
from thinvirt.image.qemu_img.report import Exit, console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.root import Root

COMMAND = Command(
    "rebase",
    "Put an image onto another backing file; it goes on showing the same.",
    "FILE",
    (
        HELP,
        FORMAT,
        Option("backing", "-b", "FILE", "the new backing file; an empty name for none"),
        Option("backing-format", "-F", "FORMAT", "format of the new backing file"),
        Option("unsafe", "-u", "", "only change the name: the content is the same"),
        CACHE,
        SOURCE_CACHE,
        PROGRESS,
        QUIET,
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
        if "unsafe" not in given and "backing" not in given:
            console.usage("Must specify backing file (-b) or use unsafe mode (-u)")
        with Meter(shown="progress" in given and "quiet" not in given, step=2) as meter:
            meter.percent(0)
            rebase = _Rebase(images, given, filename, meter)
            return rebase.run()


class _Rebase:
    """One run of the command."""

    def __init__(self, images: Images, given: dict[str, str], filename: str, meter: Meter) -> None:
        self.images = images
        self.given = given
        self.meter = meter
        self.unsafe = "unsafe" in given
        self.backing = given.get("backing")
        self.format = given.get("backing-format")
        cache = cache_mode(given.get("cache", "writeback"))
        self.source_flags = cache_mode(
            given.get("source-cache", "writeback"), "source cache option"
        ).flags
        self.image = images.open(
            filename,
            given.get("format"),
            Open.RDWR | cache.flags | (Open.NO_BACKING if self.unsafe else 0),
            image_opts="image-opts" in given,
            writethrough=cache.writethrough,
        )

    def run(self) -> int:
        """Rebase and return the exit status."""
        if self.format is not None:
            self._check_format(self.format)
        if not self.unsafe:
            try:
                self._keep_content()
            except ForeignDriver:
                raise
            except BlockError as error:
                console.block_error(error)
                return 1
        status = self._change()
        self.meter.percent(100)
        return status

    def _check_format(self, name: str) -> None:
        try:
            find_format(name)
        except ForeignDriver:
            return  # it exists; who opens it will see
        except BlockError:
            console.fail(f"Invalid format name: '{name}'")

    def _keep_content(self) -> None:
        own = skip_filters(self.image.node)
        assert own is not None
        below: BlockNode | None = None
        new: BlockNode | None = None
        if self.backing:
            path = self._resolve(self.backing)
            new = below = find_backing(self.image.node, path)
            if below is None:
                new = self._open_new(path).node
        keep_content(
            self.image,
            own.filtered if own.filtered is not None else own.backing,
            new,
            new_is_below=below is not None,
            watch=self.meter.watch,
        )

    def _resolve(self, backing: str) -> str:
        """Return the name of the new backing file as seen from here."""
        node = self.image.node
        refresh_filename(node)
        try:
            path = backing_filename(node.exact_filename or node.filename, backing)
        except BlockError as error:
            console.block_error(error, "Could not resolve backing filename: ")
            raise Exit(1) from error
        assert path is not None
        return path

    def _open_new(self, path: str) -> Root:
        options: Options = {}
        if self.format is not None:
            options["driver"] = self.format
        if "force-share" in self.given:
            options["force-share"] = True
        assert self.backing is not None
        return self.images.open_options(
            path,
            options,
            self.source_flags,
            shown=self.backing,
            what="Could not open new backing file",
        )

    def _change(self) -> int:
        try:
            if self.backing:
                change_backing(self.image.node, self.backing, self.format)
            else:
                change_backing(self.image.node, None, None)
        except BlockError as error:
            shown = "(null)" if self.backing is None else self.backing
            text = f"Could not change the backing file to '{shown}': "
            if error.errno == errno.ENOSPC:
                text += "No space left in the file header"
            elif error.errno == errno.EINVAL and self.backing is not None and self.format is None:
                text += "backing format must be specified"
            else:
                text += error.reason
            console.error(text)
            return 1
        return 0
