"""How large an image would be, before it is made."""

from __future__ import annotations

from thinvirt.image.block.abilities import BitmapHolder, Measure
from thinvirt.image.block.errors import BlockError, with_reason
from thinvirt.image.block.flags import Preallocation, Status
from thinvirt.image.block.qcow2.allocator import refcount_blocks
from thinvirt.image.block.qcow2.create import check_cluster_size
from thinvirt.image.block.walk import runs_above
from thinvirt.image.formats.qcow2 import limits
from thinvirt.image.formats.qcow2.layout import align_up, divide_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.node import BlockNode
    from thinvirt.image.block.schema import Values

_PRESENT = Status.DATA | Status.ALLOCATED
_LOOKED_AT = _PRESENT | Status.ZERO


def measure(values: Values, source: BlockNode | None) -> Measure:
    """Return what a new image would need; see `Measurable.measure_image`.

    Raises:
        BlockError: options that cannot be, or `source` cannot be read.
    """
    extended = values.flag("extended_l2")
    unit = values.size("cluster_size")
    check_cluster_size(unit, extended_l2=extended)
    version = _version(values.text("compat"))
    bits = values.size("refcount_bits")
    _check_refcount_bits(bits, version)
    mode = values.text("preallocation") or Preallocation.OFF
    if mode not in Preallocation.ALL:
        raise BlockError(f"invalid parameter value: {mode}")
    entry = 16 if extended else 8
    size = align_up(values.size("size"), unit)
    if divide_up(size // unit, unit // entry) * 8 > limits.MAX_L1_BYTES:
        raise BlockError("The image size is too large (try using a larger cluster size)")
    needed = 0
    if source is not None:
        size = align_up(source.size, unit)
        has_backing = values.text("backing_file") is not None
        try:
            needed = size if has_backing else _data_bytes(source, unit)
        except BlockError as error:
            raise with_reason("Unable to get block status", error.errno) from error
    if mode in (Preallocation.FULL, Preallocation.FALLOC):
        needed = size
    full = _full_size(size, unit, bits.bit_length() - 1, entry)
    if values.text("encrypt.format") is not None:
        from thinvirt.image.block.qcow2.encryption import header_bytes

        full += header_bytes(values, unit)
    bitmaps = None
    if version >= 3 and isinstance(source, BitmapHolder) and source.supports_bitmaps:
        bitmaps = _bitmap_bytes(source, source.size, unit)
    return Measure(full - size + needed, full, bitmaps)


def _version(compat: str | None) -> int:
    if compat not in (None, "0.10", "1.1"):
        raise BlockError(f"Invalid compatibility level: '{compat}'")
    return 2 if compat == "0.10" else 3


def _check_refcount_bits(bits: int, version: int) -> None:
    if not 1 <= bits <= 64 or bits & (bits - 1):
        raise BlockError("Refcount width must be a power of two and may not exceed 64 bits")
    if version < 3 and bits != 16:
        raise BlockError(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above (use "
            "compat=1.1 or greater)"
        )


def _data_bytes(source: BlockNode, unit: int) -> int:
    """Return the bytes of clusters that hold anything."""
    needed, counted = 0, 0
    for offset, length, flags, _, _, _ in runs_above(source, None, 0, source.size):
        if flags & _LOOKED_AT != _PRESENT:
            continue
        start = max(offset // unit * unit, counted)
        counted = max(align_up(offset + length, unit), counted)
        needed += max(counted - start, 0)
    return needed


def _full_size(size: int, unit: int, order: int, entry: int) -> int:
    """Return the bytes of an image that is written full."""
    l2_entries = align_up(size // unit, unit // entry)
    l1_entries = align_up(l2_entries * entry // unit, unit // 8)
    tables = unit + l2_entries * entry + l1_entries * 8
    table, blocks = refcount_blocks((tables + size) // unit, unit, order, generous=False)
    return tables + (table + blocks) * unit + size


def _bitmap_bytes(source: BitmapHolder, size: int, unit: int) -> int:
    """Return the bytes of copies of all persistent bitmaps and of their directory."""
    total = directory = 0
    for bitmap in source.list_bitmaps():
        if bitmap.inconsistent:
            continue
        data = divide_up(divide_up(size, bitmap.granularity), 8)
        clusters = divide_up(data, unit)
        total += clusters * unit + align_up(clusters * 8, unit)
        directory += align_up(24 + len(bitmap.name.encode()), 8)
    return total + align_up(directory, unit)
