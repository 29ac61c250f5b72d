"""Open the images that a command line names: by file name and format, or by options."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.qemu_img.report import Exit, console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from thinvirt.image.block.options import Options
    from thinvirt.image.block.root import Root

# mode → flags, and whether every write is durable when it returns
_CACHE_MODES = {
    "none": (Open.NOCACHE, False),
    "off": (Open.NOCACHE, False),
    "directsync": (Open.NOCACHE, True),
    "writeback": (0, False),
    "unsafe": (Open.NO_FLUSH, False),
    "writethrough": (0, True),
}


class Cache:
    """A cache mode: `flags` of `Open`, and `writethrough`."""

    __slots__ = ("flags", "writethrough")

    def __init__(self, mode: str) -> None:
        """Read the mode's name.

        Raises:
            KeyError: there is none of that name.
        """
        self.flags, self.writethrough = _CACHE_MODES[mode]


def cache_mode(mode: str, what: str = "cache option") -> Cache:
    """Return a cache mode by its name.

    Args:
        mode: as typed.
        what: it is called in the message.

    Raises:
        Exit: there is none of that name.
    """
    try:
        return Cache(mode)
    except KeyError:
        console.fail(f"Invalid {what}: {mode}")


class Images:
    """The images that one command has open, in one graph; a context manager that closes them.

    Attributes:
        graph: the graph.
        trouble: closing failed to write something, which was said.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Any] = {}
        self.graph = BlockGraph(self.objects, console.notice)
        self.graph.objects = self.objects  # what is made later counts too
        self._open: list[Root] = []

    def __enter__(self) -> Images:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failed = False
        while self._open:
            try:
                self._open.pop().close()
            except BlockError as error:
                # QEMU says nothing, ever; here silence after a success would be a lie.
                if not console.has_failed:
                    console.block_error(error, "Could not close the image: ")
                    failed = True
        if failed and kind is None:
            raise Exit(1)

    def add_object(self, text: str, *, status: int = 1) -> None:
        """Make what ``--object`` says.

        Raises:
            Exit: it cannot be made; `status` is that of the command.
        """
        from thinvirt.image.qemu_img.objects import make_object

        try:
            make_object(self.objects, text)
        except BlockError as error:
            console.block_error(error)
            raise Exit(status) from error

    def open(
        self,
        name: str,
        image_format: str | None,
        flags: int,
        *,
        image_opts: bool = False,
        force_share: bool = False,
        writethrough: bool = False,
        status: int = 1,
    ) -> Root:
        """Open an image that the command line names.

        Args:
            name: a file name or, with `image_opts`, options.
            image_format: None guesses it.
            flags: of `Open`.
            image_opts: `name` is ``key=value,…``.
            force_share: take no locks, whatever others do with it.
            writethrough: every write is durable when it returns.
            status: of the command if it cannot be opened.

        Raises:
            Exit: it cannot be opened, which was said.
        """
        options: Options = {}
        filename: str | None = name
        if image_opts:
            if image_format is not None:
                console.fail("--image-opts and --format are mutually exclusive", status)
            options, filename = self._image_options(name, status), None
        if image_format is not None:
            options["driver"] = image_format
        if force_share:
            if options.get("force-share", "on") != "on":
                console.fail("--force-share/-U conflicts with image options", status)
            options["force-share"] = "on"
        return self.open_options(
            filename, options, flags, shown=name, writethrough=writethrough, status=status
        )

    def open_options(
        self,
        filename: str | None,
        options: Options,
        flags: int,
        *,
        shown: str,
        writethrough: bool = False,
        status: int = 1,
        what: str = "Could not open",
    ) -> Root:
        """Open an image and remember to close it; `shown` names it in the message `what`.

        Raises:
            Exit: it cannot be opened, which was said.
        """
        try:
            root = self.graph.open_root(filename, options, flags, writethrough=writethrough)
        except BlockError as error:
            from thinvirt.image.block.errors import ForeignDriver

            if isinstance(error, ForeignDriver):
                raise
            console.block_error(error, f"{what} '{shown}': ")
            raise Exit(status) from error
        self._open.append(root)
        return root

    def close(self, root: Root) -> None:
        """Close one image now.

        Raises:
            BlockError: not everything could be written.
        """
        self._open.remove(root)
        root.close()

    def _image_options(self, text: str, status: int) -> Options:
        from thinvirt.image.block.options import parse_image_opts

        try:
            return parse_image_opts(text)
        except BlockError as error:
            console.block_error(error)
            raise Exit(status) from error
