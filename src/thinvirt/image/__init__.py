"""Disk images: formats (pure), block I/O, and operations on whole images.

A library that is used alone: it imports nothing of thinvirt but its errors, units and progress.
What programs use is named here and imported when it is first asked for;
`docs/guide/image-library.md` shows how.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost what `thin-img info` saves
if TYPE_CHECKING:
    from thinvirt.image.block.abilities import Bitmap, CheckResult, Measure, Snapshot
    from thinvirt.image.block.errors import BlockError
    from thinvirt.image.library.conversion import convert, copy_into, copy_part
    from thinvirt.image.library.copying import commit, compare, rebase
    from thinvirt.image.library.image import Extent, Image, Layer, open_image
    from thinvirt.image.library.records import (
        add_bitmap,
        apply_snapshot,
        clear_bitmap,
        create_snapshot,
        delete_snapshot,
        enable_bitmap,
        merge_bitmap,
        remove_bitmap,
    )
    from thinvirt.image.library.session import Cancelled, ImageName, ImageWarning
    from thinvirt.image.library.stream import ImageFile
    from thinvirt.image.library.whole import (
        CheckReport,
        amend,
        check,
        create,
        info,
        measure,
        resize,
    )
    from thinvirt.image.ops.compare import Difference
    from thinvirt.image.ops.info import ImageInfo

__all__ = [
    "Bitmap",
    "BlockError",
    "Cancelled",
    "CheckReport",
    "CheckResult",
    "Difference",
    "Extent",
    "Image",
    "ImageFile",
    "ImageInfo",
    "ImageName",
    "ImageWarning",
    "Layer",
    "Measure",
    "Snapshot",
    "add_bitmap",
    "amend",
    "apply_snapshot",
    "check",
    "clear_bitmap",
    "commit",
    "compare",
    "convert",
    "copy_into",
    "copy_part",
    "create",
    "create_snapshot",
    "delete_snapshot",
    "enable_bitmap",
    "info",
    "measure",
    "merge_bitmap",
    "open_image",
    "rebase",
    "remove_bitmap",
    "resize",
]

_HOMES = {
    "block.abilities": ("Bitmap", "CheckResult", "Measure", "Snapshot"),
    "block.errors": ("BlockError",),
    "library.conversion": ("convert", "copy_into", "copy_part"),
    "library.copying": ("commit", "compare", "rebase"),
    "library.image": ("Extent", "Image", "Layer", "open_image"),
    "library.records": (
        "add_bitmap",
        "apply_snapshot",
        "clear_bitmap",
        "create_snapshot",
        "delete_snapshot",
        "enable_bitmap",
        "merge_bitmap",
        "remove_bitmap",
    ),
    "library.session": ("Cancelled", "ImageName", "ImageWarning"),
    "library.stream": ("ImageFile",),
    "ops.compare": ("Difference",),
    "ops.info": ("ImageInfo",),
}  # whatever else there is lives in library.whole

if not TYPE_CHECKING:

    def __getattr__(name):
        """Import what a program asks for, and nothing else (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        home = "library.whole"
        for module, names in _HOMES.items():
            if name in names:
                home = module
        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
