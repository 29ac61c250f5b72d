"""What only qcow2 has to tell of an image."""

from __future__ import annotations

from thinvirt.image.block.qcow2 import header as head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from thinvirt.image.block.qcow2.core import Image


def format_specific(image: Image) -> dict[str, Any]:
    """Return it keyed and in the order as QEMU fills it in."""
    header = image.header
    facts: dict[str, Any] = {"compat": "0.10" if header.version == 2 else "1.1"}
    if header.version >= 3:
        if header.has_data_file and header.data_file_name is not None:
            facts["data-file"] = header.data_file_name.decode("utf-8", "surrogateescape")
        if header.has_data_file:
            facts["data-file-raw"] = header.data_file_is_raw
        facts["extended-l2"] = header.extended_l2
        facts["lazy-refcounts"] = bool(header.compatible_features & head.LAZY_REFCOUNTS)
        facts["corrupt"] = bool(header.incompatible_features & head.CORRUPT)
    facts["refcount-bits"] = 1 << header.refcount_order
    if image.is_encrypted:
        from thinvirt.image.block.qcow2.encryption import encryption_facts

        facts["encrypt"] = encryption_facts(image)
    if header.version >= 3 and header.bitmap_count:
        from thinvirt.image.block.qcow2.bitmaps import describe_bitmaps

        facts["bitmaps"] = describe_bitmaps(image)
    facts["compression-type"] = "zlib" if header.compression_type == head.ZLIB else "zstd"
    return {"type": "qcow2", "data": facts}
