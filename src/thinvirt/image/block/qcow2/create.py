"""Make a new image, laid out as QEMU lays it out."""

from __future__ import annotations

from thinvirt.image.block.errors import BlockError, ForeignDriver, prefixed, with_reason
from thinvirt.image.block.flags import SECTOR, Open, Permission, Preallocation
from thinvirt.image.block.new_file import create_file, empty_file_removed, remove_file
from thinvirt.image.block.qcow2 import header as head
from thinvirt.image.block.qcow2.core import Image
from thinvirt.image.block.registry import find_driver
from thinvirt.image.formats.qcow2 import limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from thinvirt.image.block.graph import BlockGraph
    from thinvirt.image.block.qcow2.encryption import NewEncryption
    from thinvirt.image.block.root import Root
    from thinvirt.image.block.schema import Values

_COMPAT = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}
_COMPRESSION = {"zlib": head.ZLIB, "zstd": head.ZSTD}


class Plan:
    """What a new image shall be, checked.

    Args:
        values: of `creation_options.CREATE_OPTIONS`.

    Raises:
        BlockError: it cannot be, in QEMU's words.
    """

    def __init__(self, values: Values) -> None:
        self.size = -(-values.size("size") // SECTOR) * SECTOR
        self.version = self._choice(values, "compat", _COMPAT, 3)
        self._check_driver(values)
        self.extended_l2 = values.flag("extended_l2")
        self.cluster_size = values.size("cluster_size")
        self.preallocation = self._preallocation(values)
        self.backing = values.text("backing_file")
        self.backing_format = values.text("backing_fmt")
        self.lazy_refcounts = values.flag("lazy_refcounts")
        self.refcount_bits = values.size("refcount_bits")
        self.data_file = values.text("data_file")
        self.data_file_raw = values.flag("data_file_raw")
        self.compression = self._choice(values, "compression_type", _COMPRESSION, head.ZLIB)
        self.encryption: NewEncryption | None = None
        self._check_version_3()
        check_cluster_size(self.cluster_size, extended_l2=self.extended_l2)
        self._check_backing()
        self._check_data_file()

    @staticmethod
    def _choice(values: Values, name: str, allowed: dict[str, int], default: int) -> int:
        text = values.text(name)
        if text is None:
            return default
        if text not in allowed:
            key = {"compat": "version", "compression_type": "compression-type"}[name]
            raise BlockError(f"Parameter '{key}' does not accept value '{text}'")
        return allowed[text]

    @staticmethod
    def _check_driver(values: Values) -> None:
        name = values.text("backing_fmt")
        try:
            if name is None or find_driver(name) is not None:
                return
        except ForeignDriver:
            return  # only QEMU's own program can open it
        raise BlockError(f"Parameter 'backing-fmt' does not accept value '{name}'")

    @staticmethod
    def _preallocation(values: Values) -> str:
        text = values.text("preallocation")
        if text is None:
            return Preallocation.OFF
        if text not in Preallocation.ALL:
            raise BlockError(f"Parameter 'preallocation' does not accept value '{text}'")
        return text

    def _check_version_3(self) -> None:
        if self.version < 3 and self.extended_l2:
            raise BlockError(
                "Extended L2 entries are only supported with compatibility level 1.1 and above "
                "(use version=v3 or greater)"
            )

    def _check_backing(self) -> None:
        preallocates = self.preallocation != Preallocation.OFF
        if self.backing is not None and preallocates and not self.extended_l2:
            raise BlockError(
                "Backing file and preallocation can only be used at the same time if extended_l2 "
                "is on"
            )
        if self.backing_format is not None and self.backing is None:
            raise BlockError("Backing format cannot be used without backing file")
        if self.version < 3 and self.lazy_refcounts:
            raise BlockError(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use "
                "version=v3 or greater)"
            )
        bits = self.refcount_bits
        if not 1 <= bits <= 64 or bits & (bits - 1):
            raise BlockError("Refcount width must be a power of two and may not exceed 64 bits")
        if self.version < 3 and bits != 16:
            raise BlockError(
                "Different refcount widths than 16 bits require compatibility level 1.1 or above "
                "(use version=v3 or greater)"
            )

    def _check_data_file(self) -> None:
        if self.data_file_raw and not self.data_file:
            raise BlockError("data-file-raw requires data-file")
        if self.data_file_raw and self.backing is not None:
            raise BlockError("Backing file and data-file-raw cannot be used at the same time")
        if self.data_file_raw and self.preallocation == Preallocation.OFF:
            # Raw means: guest offsets are host offsets, whatever was written.
            self.preallocation = Preallocation.METADATA
        if self.data_file and self.version < 3:
            raise BlockError(
                "External data files are only supported with compatibility level 1.1 and above "
                "(use version=v3 or greater)"
            )
        if self.compression != head.ZLIB and self.version < 3:
            raise BlockError(
                "Non-zlib compression type is only supported with compatibility level 1.1 and "
                "above (use version=v3 or greater)"
            )

    def header(self) -> head.ImageHeader:
        """Return the header of the image while it has neither size nor tables."""
        made = head.ImageHeader()
        made.version = self.version
        made.cluster_bits = self.cluster_size.bit_length() - 1
        made.refcount_table_offset, made.refcount_table_clusters = self.cluster_size, 1
        made.refcount_order = self.refcount_bits.bit_length() - 1
        made.compression_type = self.compression
        made.compatible_features = head.LAZY_REFCOUNTS if self.lazy_refcounts else 0
        made.autoclear_features = head.RAW_EXTERNAL_DATA if self.data_file_raw else 0
        for bit, wanted in (
            (head.EXTERNAL_DATA, self.data_file),
            (head.COMPRESSION_TYPE, self.compression != head.ZLIB),
            (head.EXTENDED_L2, self.extended_l2),
        ):
            made.incompatible_features |= bit if wanted else 0
        return made


def check_cluster_size(size: int, *, extended_l2: bool) -> None:
    """Refuse a cluster size that cannot be.

    Raises:
        BlockError: it cannot.
    """
    smallest, largest = 1 << limits.MIN_CLUSTER_BITS, 1 << limits.MAX_CLUSTER_BITS
    if not smallest <= size <= largest or size & (size - 1):
        raise BlockError(
            f"Cluster size must be a power of two between {smallest} and {largest >> 10}k"
        )
    if extended_l2 and size < limits.MIN_EXTENDED_CLUSTER_SIZE:
        raise BlockError(
            "Extended L2 entries are only supported with cluster sizes of at least "
            f"{limits.MIN_EXTENDED_CLUSTER_SIZE} bytes"
        )


def create(graph: BlockGraph, filename: str, values: Values) -> None:
    """Make an image in a new file, and its data file if it is to have one.

    Args:
        graph: what it is opened in meanwhile.
        filename: with protocol prefix, if any.
        values: of `creation_options.CREATE_OPTIONS`, and those of the protocol.

    Raises:
        BlockError: not possible; nothing is left behind.
    """
    with empty_file_removed(graph, filename):
        encryption = _encryption(graph, values)  # keys may be missing: before any file is made
    made: list[Root] = []
    try:
        made.append(create_file(graph, filename, values))
        data_file = values.text("data_file")
        if data_file is not None:
            made.append(create_file(graph, data_file, values))
        plan = Plan(values)
        plan.encryption = encryption
        create_in(graph, plan, *made)
    except BaseException:
        for root in made:
            remove_file(root)
        raise
    for root in made:
        root.close()


def _encryption(graph: BlockGraph, values: Values) -> NewEncryption | None:
    if not any(name.startswith("encrypt") for name in values.given()):
        return None
    from thinvirt.image.block.qcow2.encryption import new_encryption

    return new_encryption(graph, values)


def create_in(graph: BlockGraph, plan: Plan, file: Root, data_file: Root | None = None) -> None:
    """Make an image in files that are open and empty.

    Raises:
        BlockError: not possible; the files hold an incomplete image.
    """
    files = [file] if data_file is None else [file, data_file]
    for root in files:
        root.node.open_flags |= Open.NO_FLUSH  # an unfinished image is worth no order of writes
    _fill(graph, plan, file, data_file)
    for root in files:
        root.node.open_flags &= ~Open.NO_FLUSH
        root.node.flush()


def _fill(graph: BlockGraph, plan: Plan, file: Root, data_file: Root | None) -> None:
    _write_first(plan, file)
    options = {"driver": "qcow2", "file": file.node.node_name}
    if data_file is not None:
        options["data-file"] = data_file.node.node_name
    for root in filter(None, (file, data_file)):
        root.set_permissions(0, Permission.ALL)
    with graph.open_root(None, options, Open.RDWR | Open.RESIZE | Open.NO_FLUSH) as root:
        image = root.node
        assert isinstance(image, Image)
        _lay_out(image, plan, data_file)
        with prefixed("Could not resize image: "):
            image.truncate(_as_signed(plan.size), preallocation=plan.preallocation)
        if plan.backing is not None:
            _name_backing(image, plan)
        if plan.encryption is not None:
            plan.encryption.set_up(image)


def _write_first(plan: Plan, file: Root) -> None:
    """Write the least that can be opened: a header, and a refcount table with an empty block."""
    size = plan.cluster_size
    node = file.node
    try:
        node.write(0, plan.header().pack().ljust(512, b"\0"))
    except BlockError as error:
        raise with_reason("Could not write qcow2 header", error.errno) from error
    try:
        # All of it, though nearly all is zeroes: with holes here an image looks as if its metadata
        # had been preallocated, and then everybody asks the file for holes.
        node.write(size, (2 * size).to_bytes(8, "big").ljust(2 * size, b"\0"))
    except BlockError as error:
        raise with_reason("Could not write refcount table", error.errno) from error


def _as_signed(size: int) -> int:
    """Return what QEMU's signed 64 bits make of a size: 2^63 and more are negative."""
    return size - (1 << 64) if size >> 63 else size


def _lay_out(image: Image, plan: Plan, data_file: Root | None) -> None:
    try:
        image.refcounts.allocate_header(3 * plan.cluster_size)
    except BlockError as error:
        raise with_reason(
            "Could not allocate clusters for qcow2 header and refcount table", error.errno
        ) from error
    if data_file is not None:
        name = data_file.node.filename
        image.header.data_file_name = name.encode("utf-8", "surrogateescape")
    try:
        image.update_header()
    except BlockError as error:
        raise with_reason("Could not update qcow2 header", error.errno) from error


def _name_backing(image: Image, plan: Plan) -> None:
    try:
        image.change_backing(plan.backing, plan.backing_format)
    except BlockError as error:
        raise with_reason(
            f"Could not assign backing file '{plan.backing}' with format "
            f"'{plan.backing_format or '(null)'}'",
            error.errno,
        ) from error
