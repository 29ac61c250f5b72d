"""The first cluster of an open image: read with QEMU's checks and messages, written anew."""

from __future__ import annotations

import errno
from struct import Struct

from thinvirt.image.block.errors import BlockError, NotSupported, failed, with_reason
from thinvirt.image.block.flags import SECTOR, Open
from thinvirt.image.formats.qcow2 import layout, limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from thinvirt.image.block.node import BlockNode

# Feature bits (qcow2 spec, "Header").
DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = (1 << bit for bit in range(5))
KNOWN_INCOMPATIBLE = (1 << 5) - 1
LAZY_REFCOUNTS = 1 << 0
BITMAPS, RAW_EXTERNAL_DATA = 1 << 0, 1 << 1
KNOWN_AUTOCLEAR = BITMAPS | RAW_EXTERNAL_DATA

CRYPT_NONE, CRYPT_AES, CRYPT_LUKS = 0, 1, 2
ZLIB, ZSTD = 0, 1

_EXTENSION = Struct(">II")
_BITMAPS_DATA = Struct(">IIQQ")
_CRYPTO_DATA = Struct(">QQ")
_NO_FEATURE_NAMES = 4096  # up to this cluster size QEMU leaves the room to the backing name
_MAX_FORMAT_NAME = 16
_SNAPSHOT_ENTRY = 40  # bytes of its fixed part


class _Kind:
    END: Final = 0
    BACKING_FORMAT: Final = 0xE2792ACA
    FEATURE_NAMES: Final = 0x6803F857
    BITMAPS: Final = 0x23852875
    ENCRYPTION: Final = 0x0537BE77
    DATA_FILE: Final = 0x44415441


class ImageHeader:
    """What the first cluster says, as attributes that may be changed and written back.

    Sizes and offsets are bytes of the image file; `virtual_size` is the guest's.
    """

    def __init__(self) -> None:
        self.version = 3
        self.backing_file_offset = self.backing_file_size = 0
        self.cluster_bits = 16
        self.virtual_size = 0
        self.crypt_method = CRYPT_NONE
        self.l1_entries = self.l1_table_offset = 0
        self.refcount_table_offset = self.refcount_table_clusters = 0
        self.snapshot_count = self.snapshots_offset = 0
        self.incompatible_features = self.compatible_features = self.autoclear_features = 0
        self.refcount_order = 4
        self.header_length = layout.V3_LENGTH
        self.compression_type = ZLIB
        self.unknown_fields = b""

        self.backing_name: bytes | None = None
        self.backing_format: bytes | None = None
        self.data_file_name: bytes | None = None
        self.encryption_offset = self.encryption_length = 0
        self.bitmap_count = self.bitmap_directory_size = self.bitmap_directory_offset = 0
        self.unknown_extensions: list[tuple[int, bytes]] = []

    # ---------------------------------------------------------------- reading

    def read_fields(self, file: BlockNode, flags: int) -> None:
        """Read the fixed fields and check them.

        Args:
            file: the image file.
            flags: of `Open`, as the image is opened.

        Raises:
            BlockError: no qcow2, or fields that cannot be.
        """
        try:
            raw = file.read(0, layout.V3_LENGTH)
        except BlockError as error:
            raise with_reason("Could not read qcow2 header", error.errno) from error
        if raw[:4] != layout.MAGIC:
            raise BlockError("Image is not in qcow2 format")
        for (name, _), value in zip(
            layout.V2_FIELDS[1:], layout.V2.unpack_from(raw)[1:], strict=True
        ):
            setattr(self, name, value)
        if self.version not in (2, 3):
            raise NotSupported(f"Unsupported qcow2 version {self.version}")
        if not limits.MIN_CLUSTER_BITS <= self.cluster_bits <= limits.MAX_CLUSTER_BITS:
            raise BlockError(f"Unsupported cluster size: 2^{self.cluster_bits}")
        self.header_length = layout.V2_LENGTH
        if self.version == 3:
            self._read_version_3(raw)
        size = 1 << self.cluster_bits
        if self.header_length > size:
            raise BlockError("qcow2 header exceeds cluster size")
        if self.header_length > layout.V3_LENGTH:
            self.unknown_fields = file.read(layout.V3_LENGTH, self.header_length - layout.V3_LENGTH)
        if self.backing_file_offset > size:
            raise BlockError("Invalid backing file offset")
        self.check_compression_type()
        self._check_features(file, flags)
        self._check_tables(flags)

    def _read_version_3(self, raw: bytes) -> None:
        values = layout.V3.unpack_from(raw, layout.V2_LENGTH)
        for (name, _), value in zip(layout.V3_FIELDS, values, strict=True):
            setattr(self, name, value)
        if self.header_length < layout.V3_MIN_LENGTH:
            raise BlockError("qcow2 header too short")
        if self.header_length > layout.V3_MIN_LENGTH:
            (self.compression_type,) = layout.COMPRESSION.unpack_from(raw, layout.V3_MIN_LENGTH)

    def check_compression_type(self) -> None:
        """Refuse a compression type that is unknown or contradicts its feature bit.

        Raises:
            BlockError: it does.
        """
        if self.compression_type not in (ZLIB, ZSTD):
            raise NotSupported(f"qcow2: unknown compression type: {self.compression_type}")
        marked = bool(self.incompatible_features & COMPRESSION_TYPE)
        if marked and self.compression_type == ZLIB:
            raise BlockError("qcow2: Compression type incompatible feature bit must not be set")
        if not marked and self.compression_type != ZLIB:
            raise BlockError("qcow2: Compression type incompatible feature bit must be set")

    def _check_features(self, file: BlockNode, flags: int) -> None:
        unknown = self.incompatible_features & ~KNOWN_INCOMPATIBLE
        if unknown:
            raise NotSupported(
                f"Unsupported qcow2 feature(s): {self._name_features(file, unknown)}"
            )
        writes = flags & Open.RDWR and not flags & Open.CHECK
        if self.incompatible_features & CORRUPT and writes:
            raise BlockError(
                "qcow2: Image is corrupt; cannot be opened read/write",
                number=errno.EACCES,
                hint="work on a copy: qemu-img check -r all FILE",
            )
        subcluster = self.cluster_size // (32 if self.extended_l2 else 1)
        if subcluster < SECTOR:
            raise BlockError(f"Unsupported subcluster size: {subcluster}")
        if self.refcount_order > limits.MAX_REFCOUNT_ORDER:
            raise BlockError("Reference count entry width too large; may not exceed 64 bits")

    def _name_features(self, file: BlockNode, unknown: int) -> str:
        """Name features by the image's own table, as far as it goes."""
        names = []
        for kind, data in self._extensions(file):
            if kind != _Kind.FEATURE_NAMES:
                continue
            rows = data + bytes(-len(data) % layout.FEATURE_ROW.size)  # the last may be cut short
            for field, bit, name in layout.FEATURE_ROW.iter_unpack(rows):
                if name[:1] == b"\0":
                    break
                if field == layout.INCOMPATIBLE and unknown >> bit & 1:
                    names.append(name.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"))
                    unknown &= ~(1 << bit)
        if unknown:
            names.append(f"Unknown incompatible feature: {unknown:x}")
        return ", ".join(names)

    def _check_tables(self, flags: int) -> None:
        if not self.refcount_table_clusters and not flags & Open.CHECK:
            raise BlockError("Image does not contain a reference count table")
        self.check_table(
            "Reference count table",
            self.refcount_table_offset,
            self.refcount_table_clusters,
            self.cluster_size,
            limits.MAX_REFCOUNT_TABLE_BYTES,
        )
        if not flags & Open.CHECK:
            self.check_table(
                "Snapshot table",
                self.snapshots_offset,
                self.snapshot_count,
                _SNAPSHOT_ENTRY,
                _SNAPSHOT_ENTRY * limits.MAX_SNAPSHOTS,
            )
        self.check_table(
            "Active L1 table", self.l1_table_offset, self.l1_entries, 8, limits.MAX_L1_BYTES
        )
        needed = self.l1_entries_for(self.virtual_size // SECTOR * SECTOR)
        if needed > 0x7FFFFFFF:
            raise BlockError("Image is too big", number=errno.EFBIG)
        if self.l1_entries < needed:
            raise BlockError("L1 table is too small")

    def check_table(
        self, name: str, offset: int, entries: int, entry_size: int, max_bytes: int
    ) -> None:
        """Refuse a table that is too large or not aligned to a cluster.

        Raises:
            BlockError: it is; the errno tells which.
        """
        if entries > max_bytes // entry_size:
            raise BlockError(f"{name} too large", number=errno.EFBIG)
        if (1 << 63) - 1 - entries * entry_size < offset or offset % self.cluster_size:
            raise BlockError(f"{name} offset invalid")

    def _extensions(self, file: BlockNode) -> list[tuple[int, bytes]]:
        """Return the extensions up to the first that does not fit; that one raises."""
        end = self.backing_file_offset or self.cluster_size
        start = self.header_length
        if start >= end:
            return []
        area = file.read(start, min(end, file.size) - start) if file.size > start else b""
        area = area.ljust(min(end - start + 8, len(area) + 8), b"\0")
        found, at = [], 0
        while start + at < end:
            kind, length = _EXTENSION.unpack_from(area.ljust(at + 8, b"\0"), at)
            at += _EXTENSION.size
            if start + at > end or length > end - start - at:
                raise BlockError("Header extension too large")
            if kind == _Kind.END:
                break
            found.append((kind, area[at : at + length].ljust(length, b"\0")))
            at += -(-length // 8) * 8
        return found

    def read_extensions(self, file: BlockNode, warn: Callable[[str], None]) -> bool:
        """Read and check the header extensions.

        Returns:
            Whether the header should be written anew, because it names bitmaps that are void.

        Raises:
            BlockError: an extension that cannot be.
        """
        outdated = False
        for kind, data in self._extensions(file):
            if kind == _Kind.BACKING_FORMAT:
                if len(data) >= _MAX_FORMAT_NAME:
                    raise BlockError(
                        f"ERROR: ext_backing_format: len={len(data)} too large "
                        f"(>={_MAX_FORMAT_NAME})"
                    )
                self.backing_format = data.split(b"\0", 1)[0]
            elif kind == _Kind.ENCRYPTION:
                self._read_encryption(data)
            elif kind == _Kind.BITMAPS:
                outdated |= not self._read_bitmaps(data, warn)
            elif kind == _Kind.DATA_FILE:
                self.data_file_name = data.split(b"\0", 1)[0]
            elif kind != _Kind.FEATURE_NAMES:
                self.unknown_extensions.insert(0, (kind, data))
        return outdated

    def _read_encryption(self, data: bytes) -> None:
        if self.crypt_method != CRYPT_LUKS:
            raise BlockError("CRYPTO header extension only expected with LUKS encryption method")
        if len(data) != _CRYPTO_DATA.size:
            raise BlockError(
                f"CRYPTO header extension size {len(data)}, but expected size {_CRYPTO_DATA.size}"
            )
        self.encryption_offset, self.encryption_length = _CRYPTO_DATA.unpack(data)
        if self.encryption_offset % self.cluster_size:
            raise BlockError(
                f"Encryption header offset '{self.encryption_offset}' is not a multiple of "
                f"cluster size '{self.cluster_size}'"
            )

    def _read_bitmaps(self, data: bytes, warn: Callable[[str], None]) -> bool:
        """Return whether the bitmaps are to be believed."""
        if len(data) != _BITMAPS_DATA.size:
            raise with_reason("bitmaps_ext: Invalid extension length", 0)
        if not self.autoclear_features & BITMAPS:
            if self.version < 3:
                reason = (
                    "This qcow2 v2 image contains bitmaps, but they may have been modified by a "
                    "program without persistent bitmap support; so now they must all be considered "
                    "inconsistent"
                )
            else:
                reason = (
                    "a program lacking bitmap support modified this file, so all bitmaps are now "
                    "considered inconsistent"
                )
            warn(
                f"warning: {reason}\nSome clusters may be leaked, run 'qemu-img check -r' on the "
                "image file to fix."
            )
            return False
        count, reserved, size, offset = _BITMAPS_DATA.unpack(data)
        if reserved:
            raise with_reason("bitmaps_ext: Reserved field is not zero", 0)
        if count > limits.MAX_BITMAPS:
            raise BlockError(
                f"bitmaps_ext: Image has {count} bitmaps, exceeding the QEMU supported maximum of "
                f"{limits.MAX_BITMAPS}"
            )
        if not count:
            raise BlockError("found bitmaps extension with zero bitmaps")
        if offset % self.cluster_size:
            raise BlockError("bitmaps_ext: invalid bitmap directory offset")
        if size > 1024 * limits.MAX_BITMAPS:
            raise BlockError(
                f"bitmaps_ext: bitmap directory size ({size}) exceeds the maximum supported size "
                f"({1024 * limits.MAX_BITMAPS})"
            )
        self.bitmap_count = count
        self.bitmap_directory_size, self.bitmap_directory_offset = size, offset
        return True

    def read_backing_name(self, file: BlockNode) -> None:
        """Read the backing file's name.

        Raises:
            BlockError: it is too long, or cannot be read.
        """
        if not self.backing_file_offset:
            return
        length = self.backing_file_size
        room = self.cluster_size - self.backing_file_offset
        if length > min(limits.MAX_BACKING_NAME, room):
            raise BlockError("Backing file name too long")
        try:
            self.backing_name = file.read(self.backing_file_offset, length).split(b"\0", 1)[0]
        except BlockError as error:
            raise with_reason("Could not read backing file name", error.errno) from error

    # ---------------------------------------------------------------- writing

    def pack(self) -> bytes:
        """Return header, extensions and backing name, without the zeroes up to the cluster's end.

        Raises:
            BlockError: they do not fit into a cluster (``errno.ENOSPC``).
        """
        self.check_compression_type()
        area = b"".join(self._packed_extensions())
        start = layout.V2_LENGTH if self.version == 2 else layout.V3_LENGTH
        start += len(self.unknown_fields)
        self.header_length = layout.V3_LENGTH + len(self.unknown_fields)
        self.backing_file_offset = self.backing_file_size = 0
        name = self.backing_name or b""
        if self.backing_name is not None:
            self.backing_file_offset = start + len(area)
            self.backing_file_size = len(name)
        if start + len(area) + len(name) > self.cluster_size:
            raise failed(errno.ENOSPC)
        fields = [getattr(self, name) for name, _ in layout.V2_FIELDS[1:]]
        raw = layout.V2.pack(layout.MAGIC, *fields)
        if self.version == 3:
            raw += layout.V3.pack(*(getattr(self, name) for name, _ in layout.V3_FIELDS))
            raw += layout.COMPRESSION.pack(self.compression_type)
        return raw + self.unknown_fields + area + name

    def _packed_extensions(self) -> list[bytes]:
        parts = []
        if self.backing_format is not None:
            parts.append(_pack(_Kind.BACKING_FORMAT, self.backing_format))
        if self.has_data_file and self.data_file_name is not None:
            parts.append(_pack(_Kind.DATA_FILE, self.data_file_name))
        if self.encryption_offset:
            data = _CRYPTO_DATA.pack(self.encryption_offset, self.encryption_length)
            parts.append(_pack(_Kind.ENCRYPTION, data))
        if self.version >= 3 and self.cluster_size > _NO_FEATURE_NAMES:
            parts.append(_pack(_Kind.FEATURE_NAMES, layout.pack_feature_names()))
        if self.bitmap_count:
            data = _BITMAPS_DATA.pack(
                self.bitmap_count, 0, self.bitmap_directory_size, self.bitmap_directory_offset
            )
            parts.append(_pack(_Kind.BITMAPS, data))
        parts += [_pack(kind, data) for kind, data in self.unknown_extensions]
        parts.append(_pack(_Kind.END, b""))
        return parts

    # ---------------------------------------------------------------- sizes that follow

    @property
    def cluster_size(self) -> int:
        """The unit of allocation."""
        return 1 << self.cluster_bits

    @property
    def extended_l2(self) -> bool:
        """Whether there are subclusters."""
        return bool(self.incompatible_features & EXTENDED_L2)

    @property
    def has_data_file(self) -> bool:
        """Whether guest data lies in another file."""
        return bool(self.incompatible_features & EXTERNAL_DATA)

    @property
    def data_file_is_raw(self) -> bool:
        """Whether that file must stay a raw image of the guest's disk."""
        return bool(self.autoclear_features & RAW_EXTERNAL_DATA)

    @property
    def l2_bits(self) -> int:
        """Binary logarithm of the number of entries in an L2 table."""
        return self.cluster_bits - (4 if self.extended_l2 else 3)

    def l1_entries_for(self, virtual_size: int) -> int:
        """Return how many L1 entries a disk of that size needs."""
        return -(-virtual_size >> self.cluster_bits + self.l2_bits)


def _pack(kind: int, data: bytes) -> bytes:
    return _EXTENSION.pack(kind, len(data)) + data + bytes(-len(data) % 8)
