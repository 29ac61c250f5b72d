"""The options of an image that is open."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError
from thinvirt.image.block.flags import Open
from thinvirt.image.block.options import take_prefixed
from thinvirt.image.block.qcow2 import header as head
from thinvirt.image.block.qcow2.core import Freed, Structure
from thinvirt.image.block.schema import Option, OptionList, OptionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.options import Options
    from thinvirt.image.block.qcow2.core import Image
    from thinvirt.image.block.schema import Values

_BOOL, _STRING, _SIZE, _NUMBER = (
    OptionType.BOOL,
    OptionType.STRING,
    OptionType.SIZE,
    OptionType.NUMBER,
)

_LEVELS = {
    "none": Structure.NOTHING,
    "constant": Structure.CONSTANT,
    "cached": Structure.CACHED,
    "all": Structure.ALL,
}
_CHECKS = (
    ("main-header", Structure.HEADER, "into the main qcow2 header"),
    ("active-l1", Structure.ACTIVE_L1, "into the active L1 table"),
    ("active-l2", Structure.ACTIVE_L2, "into an active L2 table"),
    ("refcount-table", Structure.REFCOUNT_TABLE, "into the refcount table"),
    ("refcount-block", Structure.REFCOUNT_BLOCK, "into a refcount block"),
    ("snapshot-table", Structure.SNAPSHOT_TABLE, "into the snapshot table"),
    ("inactive-l1", Structure.INACTIVE_L1, "into an inactive L1 table"),
    ("inactive-l2", Structure.INACTIVE_L2, "into an inactive L2 table"),
    ("bitmap-directory", Structure.BITMAP_DIRECTORY, "into the bitmap directory"),
)
_LEVEL_HELP = "which writes are checked against metadata (none, constant, cached, all)"

RUNTIME_OPTIONS = OptionList(
    "qcow2",
    (
        Option("lazy-refcounts", _BOOL, "Postpone refcount updates"),
        Option("pass-discard-request", _BOOL, "pass a guest's discards on to the layer below"),
        Option("pass-discard-snapshot", _BOOL, "discard what a deleted snapshot alone had"),
        Option("pass-discard-other", _BOOL, "discard what is freed otherwise"),
        Option("overlap-check", _STRING, _LEVEL_HELP),
        Option("overlap-check.template", _STRING, _LEVEL_HELP),
        *(
            Option(f"overlap-check.{name}", _BOOL, f"check writes {text}")
            for name, _, text in _CHECKS
        ),
        Option("cache-size", _SIZE, "most memory for L2 tables and refcount blocks"),
        Option("l2-cache-size", _SIZE, "most memory for L2 tables"),
        Option("l2-cache-entry-size", _SIZE, "size of an entry of that cache"),
        Option("refcount-cache-size", _SIZE, "most memory for refcount blocks"),
        Option("cache-clean-interval", _NUMBER, "accepted, not used"),
        Option("encrypt.format", _STRING, "Encrypt the image, format choices: 'aes', 'luks'"),
        Option("encrypt.key-secret", _STRING, "ID of the secret with key or passphrase"),
    ),
)

_DEFAULT_L2_CACHE = 32 << 20
_DEFAULT_REFCOUNT_CACHE = 4 << 20  # more than QEMU's four blocks: it makes random layouts bearable
_MIN_L2_TABLES, _MIN_REFCOUNT_BLOCKS = 2, 4


class RunTime:
    """The run-time options in effect.

    Attributes:
        lazy_refcounts: refcounts are written late, and the image is marked dirty meanwhile.
        overlap_check: of `Structure`.
        passed_on: of `Freed`: what is told to the file below.
        l2_tables, refcount_blocks: how many are kept in memory.
    """

    def __init__(self, values: Values, image: Image) -> None:
        self.l2_tables, self.refcount_blocks = _cache_sizes(values, image)
        if values.size("cache-clean-interval") >= 1 << 32:
            raise BlockError("Cache clean interval too big")
        header = image.header
        self.lazy_refcounts = values.flag(
            "lazy-refcounts", default=bool(header.compatible_features & head.LAZY_REFCOUNTS)
        )
        if self.lazy_refcounts and header.version < 3:
            raise BlockError(
                "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level"
            )
        self.overlap_check = _overlap_check(values)
        passed = {Freed.ALWAYS}
        for freed, name, default in (
            (Freed.REQUEST, "request", bool(image.open_flags & Open.UNMAP)),
            (Freed.SNAPSHOT, "snapshot", True),
            (Freed.OTHER, "other", False),
        ):
            if values.flag(f"pass-discard-{name}", default=default):
                passed.add(freed)
        self.passed_on = frozenset(passed)

    @classmethod
    def of(cls, options: Options, image: Image) -> RunTime:
        """Take the run-time options out of a node's options.

        Raises:
            BlockError: a value cannot be.
        """
        encryption = take_prefixed(options, "encrypt.")
        values = RUNTIME_OPTIONS.absorb(options)
        _check_encryption(encryption.get("format"), image.header.crypt_method)
        image.encryption_options = encryption
        return cls(values, image)


def _check_encryption(given: object, method: int) -> None:
    if method not in (head.CRYPT_NONE, head.CRYPT_AES, head.CRYPT_LUKS):
        raise BlockError(f"Unsupported encryption method {method}")
    if given is None:
        return
    if method == head.CRYPT_NONE:
        raise BlockError(f"No encryption in image header, but options specified format '{given}'")
    found = "aes" if method == head.CRYPT_AES else "luks"
    if given != found:
        raise BlockError(
            f"Header reported '{found}' encryption format but options specify '{given}'"
        )


def _overlap_check(values: Values) -> int:
    level, template = values.text("overlap-check"), values.text("overlap-check.template")
    if level and template and level != template:
        raise BlockError(
            f"Conflicting values for qcow2 options 'overlap-check' ('{level}') and "
            f"'overlap-check.template' ('{template}')"
        )
    level = level or template or "cached"
    if level not in _LEVELS:
        raise BlockError(
            f"Unsupported value '{level}' for qcow2 option 'overlap-check'. Allowed are any of the "
            "following: none, constant, cached, all"
        )
    found = 0
    for name, bit, _ in _CHECKS:
        if values.flag(f"overlap-check.{name}", default=bool(_LEVELS[level] & bit)):
            found |= bit
    return found


def _cache_sizes(values: Values, image: Image) -> tuple[int, int]:
    """Return how many L2 tables and refcount blocks are kept, of cache sizes as QEMU reads them."""
    size = image.cluster_size
    largest = -(-image.header.virtual_size // size) * (16 if image.extended else 8)
    largest = -(-largest // size) * size
    wanted = values.size("l2-cache-size", _DEFAULT_L2_CACHE)
    blocks = values.size("refcount-cache-size", 0)
    tables = min(largest, wanted)
    if "cache-size" in values:
        tables, blocks = _shares(values, (tables, blocks), largest, size)
    _check_entry_size(values, size)
    if not blocks:
        blocks = _DEFAULT_REFCOUNT_CACHE
    return max(tables // size, _MIN_L2_TABLES), max(blocks // size, _MIN_REFCOUNT_BLOCKS)


def _shares(values: Values, given: tuple[int, int], largest: int, size: int) -> tuple[int, int]:
    """Divide a combined cache size."""
    both = values.size("cache-size")
    tables, blocks = given
    has_tables, has_blocks = "l2-cache-size" in values, "refcount-cache-size" in values
    if has_tables and has_blocks:
        raise BlockError(
            "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time"
        )
    if has_tables and values.size("l2-cache-size") > both:
        raise BlockError("l2-cache-size may not exceed cache-size")
    if blocks > both:
        raise BlockError("refcount-cache-size may not exceed cache-size")
    if has_tables:
        return tables, both - tables
    if has_blocks:
        return both - blocks, blocks
    least = _MIN_REFCOUNT_BLOCKS * size
    if both >= largest + least:
        return largest, both - largest
    blocks = min(both, least)
    return both - blocks, blocks


def _check_entry_size(values: Values, size: int) -> None:
    entry = values.size("l2-cache-entry-size", size)
    if not 512 <= entry <= size or entry & (entry - 1):
        raise BlockError(
            f"L2 cache entry size must be a power of two between 512 and the cluster size ({size})"
        )
