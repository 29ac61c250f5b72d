"""``convert``: copy images into a new one, in whatever format."""

from __future__ import annotations

import os

from thinvirt.image.block.abilities import Effort
from thinvirt.image.block.errors import BlockError, ForeignDriver
from thinvirt.image.block.flags import SECTOR, Open
from thinvirt.image.ops.convert import (
    MAX_BUFFER,
    MINIMUM_HOLE,
    PARALLEL,
    Conversion,
    ConvertFailed,
)
from thinvirt.image.ops.pace import pacer
from thinvirt.image.qemu_img.commandline import Words, add_options, asks_help, number_of
from thinvirt.image.qemu_img.getopt import (
    CACHE,
    FORCE_SHARE,
    HELP,
    IMAGE_OPTS,
    OBJECT,
    OPTIONS,
    PROGRESS,
    QUIET,
    SOURCE_CACHE,
    Command,
    Option,
)
from thinvirt.image.qemu_img.opening import Cache, Images, cache_mode
from thinvirt.image.qemu_img.progress import Meter
from thinvirt.image.qemu_img.report import Exit, console
from thinvirt.image.qemu_img.target import NewTarget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.root import Root

COMMAND = Command(
    "convert",
    "Copy an image, or several one after the other, into a new one.",
    "FILE… TARGET",
    (
        HELP,
        Option("format", "-f", "FORMAT", "format of the images that are read"),
        Option("output-format", "-O", "FORMAT", "format of the target (raw)"),
        OPTIONS,
        Option("backing", "-B", "FILE", "backing file of the target; what it shows is not copied"),
        Option("backing-format", "-F", "FORMAT", "format of the backing file"),
        Option("compress", "-c", "", "compress the target"),
        Option("copy-range", "-C", "", "share blocks where the file system can"),
        Option("snapshot", "-l", "SNAPSHOT", "of a snapshot of the image"),
        Option("sparse", "-S", "SIZE", "zeroes in a row that become a hole (4k), 0 for none"),
        Option("no-create", "-n", "", "the target exists already"),
        Option("zero", "--target-is-zero", "", "and reads as zeroes all over"),
        Option("target-opts", "--target-image-opts", "", "and is named by options"),
        Option("parallel", "-m", "NUMBER", "threads at most (8), never more than processors"),
        Option("out-of-order", "-W", "", "write in any order (raw target)"),
        Option("rate", "-r", "RATE", "bytes a second at most"),
        Option("salvage", "--salvage", "", "read around errors"),
        Option("bitmaps", "--bitmaps", "", "copy persistent bitmaps too"),
        Option("skip-broken", "--skip-broken-bitmaps", "", "but those that are inconsistent"),
        CACHE,
        SOURCE_CACHE,
        PROGRESS,
        QUIET,
        OBJECT,
        IMAGE_OPTS,
        FORCE_SHARE,
    ),
)

_MAX_PARALLEL = 16
_EFFORT = "THIN_IMG_COMPRESSION"  # an option would change which options qemu-img has


def run(words: list[str]) -> int:
    """Run the command."""
    scan = Words(COMMAND, words)
    with Images() as images:
        request = _Request(images)
        for key, value in scan:
            request.take(key, value)
        request.check()
        return _Conversion(images, request, scan.operands).run()


class _Request:
    """What the options ask for."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.given: dict[str, str] = {}
        self.options: str | None = None
        self.minimum_hole = MINIMUM_HOLE
        self.rate = 0
        self.parallel = PARALLEL
        self.load: Callable[[BlockNode], None] | None = None

    def has(self, key: str) -> bool:
        """Return whether an option was given."""
        return key in self.given

    def take(self, key: str, value: str) -> None:
        """Note an option."""
        if key == "object":
            self.images.add_object(value)
        elif key == "options":
            self.options = add_options(self.options, value)
        elif key == "rate":
            self.rate = number_of("rate limit", value)
        elif key == "sparse":
            self.minimum_hole = _sparse_size(value)
        elif key == "parallel":
            self.parallel = _parallel(value)
        elif key == "snapshot":
            from thinvirt.image.qemu_img.snapshot_option import snapshot_loader

            self.load = snapshot_loader(value)
        self.given[key] = value

    @property
    def effort(self) -> str:
        """How hard to try to make a compressed image small."""
        effort = os.environ.get(_EFFORT, "") or Effort.FAST
        if effort not in Effort.ALL:
            console.fail(f"{_EFFORT} is one of {', '.join(Effort.ALL)}, not '{effort}'")
        return effort

    def check(self) -> None:
        """Refuse what does not fit together."""
        has = self.has
        for is_wrong, text in (
            (
                has("skip-broken") and not has("bitmaps"),
                "Use of --skip-broken-bitmaps requires --bitmaps",
            ),
            (
                has("compress") and has("copy-range"),
                "Cannot enable copy offloading when -c is used",
            ),
            (has("sparse") and has("copy-range"), "Cannot enable copy offloading when -S is used"),
            (has("copy-range") and has("salvage"), "Cannot use copy offloading in salvaging mode"),
            (
                has("target-opts") and not has("no-create"),
                "--target-image-opts requires use of -n flag",
            ),
            (
                has("no-create") and self.options is not None,
                "-o has no effect when skipping image creation",
            ),
            (has("zero") and not has("no-create"), "--target-is-zero requires use of -n flag"),
        ):
            if is_wrong:
                console.fail(text)


def _sparse_size(text: str) -> int:
    size = number_of("buffer size for sparse output", text)
    if size % SECTOR or size > MAX_BUFFER:
        console.fail(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of "
            f"{SECTOR} up to {MAX_BUFFER}. Select 0 to disable sparse detection (fully allocates "
            "output)."
        )
    return size


def _parallel(text: str) -> int:
    from thinvirt.image.block.schema import parse_number

    try:
        number = parse_number("m", text)
    except BlockError:
        number = 0
    if not 1 <= number <= _MAX_PARALLEL:
        console.fail(
            "Invalid number of coroutines. Allowed number of coroutines is between 1 and "
            f"{_MAX_PARALLEL}"
        )
    return number


class _Conversion:
    """One run of the command, step by step."""

    def __init__(self, images: Images, request: _Request, operands: list[str]) -> None:
        self.images = images
        self.request = request
        self.has = request.has
        self.names = operands[:-1]
        self.target_name = operands[-1] if self.names else None
        self.target_format = request.given.get("output-format")
        if self.target_format is None and not self.has("target-opts"):
            self.target_format = "raw"
        self.backing = request.given.get("backing")

    def run(self) -> int:
        """Convert and return the exit status."""
        if asks_help(self.request.options):
            return self._help()
        if not self.names:
            console.fail("Must specify image file name")
        source_cache = cache_mode(
            self.request.given.get("source-cache", "writeback"), "source cache option"
        )
        with Meter(shown=self.has("progress") and not self.has("quiet"), step=1) as meter:
            meter.percent(0)
            sources = self._open_sources(source_cache)
            self._load_snapshot(sources)
            self._convert(sources, meter)
            meter.percent(100)
        return 0

    def _open_sources(self, cache: Cache) -> list[Root]:
        try:
            return [
                self.images.open(
                    name,
                    self.request.given.get("format"),
                    Open.NO_SHARE | cache.flags,
                    image_opts=self.has("image-opts"),
                    force_share=self.has("force-share"),
                    writethrough=cache.writethrough,
                )
                for name in self.names
            ]
        except ForeignDriver:
            if not self.has("no-create"):
                self._new_target(0)  # what nobody can make need not be handed to anybody
            raise

    def _help(self) -> int:
        if self.target_format is None:
            console.fail("Option help requires a format be specified")
        from thinvirt.image.qemu_img.option_help import show_creation_options

        return show_creation_options(self.target_format, self.target_name)

    def _load_snapshot(self, sources: list[Root]) -> None:
        if self.request.load is None:
            return
        if len(sources) > 1 and not self.request.given["snapshot"].startswith("snapshot."):
            console.fail("No support for concatenating multiple snapshot")
        from thinvirt.image.qemu_img.snapshot_option import load_snapshot

        load_snapshot(self.request.load, sources[0].node)

    def _convert(self, sources: list[Root], meter: Meter) -> None:
        size = sum(source.size for source in sources)
        new = None if self.has("no-create") else self._new_target(size)
        self._check_backing(sources, new)
        if self.has("compress") and new is not None:
            self._check_compression(new)
        if self.has("bitmaps"):
            self._check_bitmaps(sources)
        if new is not None:
            new.create(self.images.graph, f"error while converting {new.image_format}")
        target = self._open_target(new)
        self._check_target(target, size)
        try:
            conversion = Conversion(
                sources,
                target,
                is_new=new is not None,
                reads_zero=self.has("zero"),
                has_backing=self.backing is not None,
                minimum_hole=self.request.minimum_hole,
                compressed=self.has("compress"),
                copy_range=self.has("copy-range"),
                salvage=self.has("salvage"),
                warn=None if self.has("quiet") else console.warning,
                watch=meter.watch,
                # Salvaging shows beforehand which metadata cannot be read, as qemu-img does.
                count_first=self.has("progress") or self.has("salvage"),
                pace=pacer(self.request.rate),
                parallel=self.request.parallel,
                out_of_order=self.has("out-of-order"),
                effort=self.request.effort,
            )
            conversion.run()
        except ConvertFailed as error:
            console.request_error(str(error), error.cause)
            raise Exit(1) from error
        except BlockError as error:
            console.block_error(error)
            raise Exit(1) from error
        if self.has("bitmaps"):
            self._copy_bitmaps(sources[0], target)

    def _new_target(self, size: int) -> NewTarget:
        assert self.target_format is not None
        assert self.target_name is not None
        new = NewTarget(self.target_format, self.target_name)
        new.set_options(self.request.options, size)
        new.set_backing(self.backing, self.request.given.get("backing-format"))
        return new

    def _check_backing(self, sources: list[Root], new: NewTarget | None) -> None:
        named = new.values.text("backing_file") if new is not None else None
        if named is not None:
            self.backing = named
        if self.backing is None:
            return
        if self.has("zero"):
            console.fail(
                "Cannot use --target-is-zero when the destination image has a backing file"
            )
        if len(sources) > 1:
            console.fail(
                "Having a backing file for the target makes no sense when concatenating multiple "
                "input images"
            )
        if named is not None and new is not None and new.values.text("backing_fmt") is None:
            console.fail("Use of backing file requires explicit backing format")

    def _check_compression(self, new: NewTarget) -> None:
        if not new.driver.can_compress:
            console.fail("Compression not supported for this file format")
        values = new.values
        if values.get("encryption", False) or values.text("encrypt.format"):
            console.fail("Compression and encryption not supported at the same time")
        if (values.text("preallocation") or "off") != "off":
            console.fail("Compression and preallocation not supported at the same time")

    def _check_bitmaps(self, sources: list[Root]) -> None:
        from thinvirt.image.ops.bitmap import check_copyable

        if len(sources) > 1:
            console.fail("Copying bitmaps only possible with single source")
        try:
            check_copyable(sources[0].node, skip_broken=self.has("skip-broken"))
        except BlockError as error:
            console.block_error(error)
            if "inconsistent" in error.message:
                console.message(
                    "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it\n"
                )
            raise Exit(1) from error

    def _open_target(self, new: NewTarget | None) -> Root:
        assert self.target_name is not None
        cache = cache_mode(self.request.given.get("cache", "unsafe"))
        flags = Open.RDWR | cache.flags
        if self.request.minimum_hole:
            flags |= Open.UNMAP
        if cache.flags & Open.NOCACHE:
            flags |= Open.RESIZE  # its size may have to be rounded up
        if new is None:
            return self.images.open(
                self.target_name,
                self.target_format,
                flags,
                image_opts=self.has("target-opts"),
                writethrough=cache.writethrough,
            )
        return self.images.open_options(
            self.target_name,
            {**new.secrets(), "driver": new.image_format},
            flags,
            shown=self.target_name,
            writethrough=cache.writethrough,
        )

    def _check_target(self, target: Root, size: int) -> None:
        if self.has("bitmaps"):
            from thinvirt.image.ops.bitmap import bitmap_holder

            if bitmap_holder(target.node) is None:
                console.fail(f"Format driver '{target.node.driver}' does not support bitmaps")
        if self.has("compress") and not target.node.supports_compressed_writes():
            console.fail("Compression not supported for this file format")
        if self.has("no-create") and target.size < size:
            console.fail("output file is smaller than input file")

    def _copy_bitmaps(self, source: Root, target: Root) -> None:
        from thinvirt.image.ops.bitmap import copy_bitmaps

        try:
            copy_bitmaps(source.node, target.node, console.warning)
        except BlockError as error:
            console.block_error(error)
            raise Exit(1) from error
