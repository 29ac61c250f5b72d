"""Name, open and close images for the functions of the library, and say where an error happened."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from thinvirt.errors import ThinvirtError, UsageError
from thinvirt.image.block.errors import BlockError, with_reason
from thinvirt.image.block.flags import SECTOR, Open
from thinvirt.image.block.graph import BlockGraph
from thinvirt.image.block.names import has_protocol
from thinvirt.image.block.options import flatten, get_str
from thinvirt.image.block.qemu_json import dumps
from thinvirt.image.block.status import skip_filters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.root import Root

# A path (never anything but a host file), a name as QEMU understands it ("nbd://…", "json:{…}"
# too), or a tree of options such as {"driver": "qcow2", "file": {…}}.
ImageName: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
Secrets: TypeAlias = Mapping[str, str | bytes]  # by the id that options refer to
Progress: TypeAlias = Callable[[int, int], None]  # told done and total; may raise, which cancels
OptionValues: TypeAlias = Mapping[str, str | int | bool]

_CACHE_MODES = {  # flags, and whether every write is durable when it returns
    "writeback": (0, False),
    "writethrough": (0, True),
    "none": (Open.NOCACHE, False),
    "directsync": (Open.NOCACHE, True),
    "unsafe": (Open.NO_FLUSH, False),
}


class ImageWarning(UserWarning):
    """Something about an image that its user should know, and that stops nothing."""


class Cancelled(ThinvirtError):
    """For progress callbacks to raise; the library never raises it by itself."""

    kind = "cancelled"

    def __init__(self, message: str = "cancelled") -> None:
        super().__init__(message)


def file_name(name: ImageName) -> tuple[str | None, dict[str, Any]]:
    """Return a name and options for `BlockGraph.open_root`.

    Raises:
        UsageError: it names nothing.
    """
    if isinstance(name, Mapping):
        return None, dict(name)
    if isinstance(name, str):
        text = name
    else:
        text = os.fspath(name)
        if not isinstance(text, str):
            raise UsageError("a path of bytes names no image here", hint="use os.fsdecode")
        if has_protocol(text):
            text = "./" + text  # a path is a path, whatever it looks like
    if not text:
        raise UsageError("an empty name names no image")
    return text, {}


def shown(name: ImageName) -> str:
    """Return what names the image in messages."""
    text, options = file_name(name)
    return text if text is not None else "json:" + dumps(options)


def host_path(name: ImageName) -> Path | None:
    """Return the host file that a name stands for, None if it is not simply one."""
    text, options = file_name(name)
    if text is None:
        flat = flatten(options)
        text = get_str(flat, "file.filename") or get_str(flat, "filename")
    if text is None or has_protocol(text):
        return None
    return Path(text)


@contextmanager
def located(name: ImageName) -> Iterator[None]:
    """Say of every error from the block which image it is about, where that is not said yet."""
    try:
        yield
    except ThinvirtError as error:
        if error.path is None:
            error.path = host_path(name)
        raise


def request_failed(text: str, cause: BlockError, name: ImageName, offset: int | None) -> BlockError:
    """Return the error of a request, with the image and the place."""
    error = with_reason(f"{text} '{shown(name)}'", cause.errno)
    error.hint = cause.hint
    error.path = host_path(name)
    error.offset = offset // SECTOR * SECTOR if offset is not None else None
    return error


def top_node(root: Root) -> BlockNode:
    """Return the image itself, filters left out."""
    top = skip_filters(root.node)
    assert top is not None
    return top


def option_text(options: OptionValues | None) -> str | None:
    """Return options as ``-o`` takes them."""
    if not options:
        return None
    return ",".join(
        f"{name}={_option_value(value).replace(',', ',,')}" for name, value in options.items()
    )


def _option_value(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


class Session(ExitStack):
    """Images opened together; leaving the context closes them, the last one first.

    Args:
        secrets: passwords and keys.
    """

    def __init__(self, secrets: Secrets | None = None) -> None:
        super().__init__()
        objects = {
            ("secret", name): value.encode() if isinstance(value, str) else bytes(value)
            for name, value in (secrets or {}).items()
        }
        self.graph = BlockGraph(objects, _warn)

    def open(
        self,
        name: ImageName,
        image_format: str | None = None,
        flags: int = 0,
        *,
        cache: str = "writeback",
        force_share: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> Root:
        """Open an image, to be closed with the session.

        Args:
            name: of it.
            image_format: None guesses it.
            flags: of `Open`.
            cache: how durable writes are.
            force_share: take no locks, whatever others do with it.
            options: more of them.

        Raises:
            UsageError: no such cache mode.
            BlockError: it cannot be opened.
        """
        if cache not in _CACHE_MODES:
            raise UsageError(f"no cache mode '{cache}': there are {', '.join(_CACHE_MODES)}")
        cache_flags, writethrough = _CACHE_MODES[cache]
        text, tree = file_name(name)
        tree.update(options or {})
        if image_format is not None:
            tree["driver"] = image_format
        if force_share:
            tree["force-share"] = True
        prefix = f"Could not open '{shown(name)}': "
        with located(name):
            try:
                root = self.graph.open_root(
                    text, tree, flags | cache_flags, writethrough=writethrough
                )
            except BlockError as error:
                if not error.message.startswith(prefix):  # the file may have said so itself
                    error.prepend(prefix)
                raise

        def close(
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            with located(name):  # closing writes too
                root.__exit__(kind, error, trace)

        self.push(close)
        return root


def _warn(text: str) -> None:
    warnings.warn(text, ImageWarning, stacklevel=2)
