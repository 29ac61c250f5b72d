"""Linux kernels taken apart and repacked so that they start quickly under emulation.

Debian's kernel is a bzImage: real-mode set-up code, then a protected-mode part that unpacks an XZ
payload. Unpacking XZ takes seconds where every instruction is emulated. `repack` keeps the set-up
code and gives it a protected-mode part of our own (guest/kernel_stub.S): LZ4 blocks and a decoder
of a hundred instructions. The kernel then runs at the address it was linked for, without address
randomisation (as with ``nokaslr``).

Documentation/arch/x86/boot.rst describes the header, "The Linux/x86 Boot Protocol".
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from thinvirt.build.programs import run_program
from thinvirt.errors import ThinvirtError

SECTOR = 512
_STUB = Path(__file__).parent / "guest" / "kernel_stub.S"
_LOAD_ADDRESS = 0x100000  # where every boot loader puts the protected-mode part
_TABLES_SIZE = 6 * 4096
_LEGACY_FRAME = 0x184C2102  # lz4 -l: this number, then blocks preceded by their length
_ELF_PT_LOAD = 1


class KernelNotUnderstood(ThinvirtError):
    """A kernel image is not of the form that can be repacked."""

    kind = "build-kernel"


@dataclass(frozen=True, slots=True)
class SetupHeader:
    """Where things are in a bzImage, from its set-up header (offsets from the file's start)."""

    SETUP_SECTS: ClassVar = 0x1F1
    SYSSIZE: ClassVar = 0x1F4
    MAGIC: ClassVar = 0x202
    VERSION: ClassVar = 0x206
    RELOCATABLE: ClassVar = 0x234
    XLOADFLAGS: ClassVar = 0x236
    PAYLOAD: ClassVar = 0x248
    HANDOVER: ClassVar = 0x264

    setup_bytes: int
    payload_offset: int
    payload_bytes: int

    @classmethod
    def read(cls, image: bytes) -> "SetupHeader":
        """Return the header of a bzImage.

        Raises:
            KernelNotUnderstood: it is none, or older than protocol 2.12 (Linux 3.8).
        """
        if len(image) < 0x268 or image[cls.MAGIC : cls.MAGIC + 4] != b"HdrS":
            raise KernelNotUnderstood("the kernel is no bzImage")
        (version,) = struct.unpack_from("<H", image, cls.VERSION)
        if version < 0x20C:
            raise KernelNotUnderstood(f"the kernel's boot protocol {version:#x} is too old")
        setup_bytes = (image[cls.SETUP_SECTS] + 1) * SECTOR
        offset, length = struct.unpack_from("<II", image, cls.PAYLOAD)
        return cls(setup_bytes, setup_bytes + offset, length)


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """A kernel as it lies in memory before it runs: zero from the end of `data` to `end`."""

    data: bytes
    start: int
    end: int
    entry: int


def repack(image: bytes, work: Path) -> bytes:
    """Return a bzImage of the same kernel that unpacks quickly.

    Args:
        image: the distribution's bzImage, with an XZ payload.
        work: an existing directory for temporary files.

    Raises:
        KernelNotUnderstood: the image is of another form, or does not fit below its own address.
        ProgramMissing: lz4, as or ld is not installed.
    """
    header = SetupHeader.read(image)
    memory = memory_image(unpack_payload(image, header))
    payload = lz4_blocks(memory.data, work)
    protected = _assemble(memory, payload, work)
    setup = bytearray(image[: header.setup_bytes])
    setup[0:2] = b"\0\0"  # no longer an EFI program: its entry was in the part replaced
    protected += bytes(-len(protected) % 16)
    struct.pack_into("<I", setup, SetupHeader.SYSSIZE, len(protected) // 16)
    setup[SetupHeader.RELOCATABLE] = 0
    struct.pack_into("<H", setup, SetupHeader.XLOADFLAGS, 0)
    struct.pack_into("<II", setup, SetupHeader.PAYLOAD, 0, 0)
    struct.pack_into("<I", setup, SetupHeader.HANDOVER, 0)
    return bytes(setup) + protected


def unpack_payload(image: bytes, header: SetupHeader) -> bytes:
    """Return the ELF file inside a bzImage.

    Raises:
        KernelNotUnderstood: it is not packed with XZ, or damaged.
    """
    import lzma

    payload = image[header.payload_offset : header.payload_offset + header.payload_bytes]
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    except lzma.LZMAError as error:
        raise KernelNotUnderstood(f"the kernel's payload is not XZ: {error}") from error


def memory_image(elf: bytes) -> MemoryImage:
    """Return what the loadable segments of a 64-bit kernel ELF file put into memory.

    Raises:
        KernelNotUnderstood: it is no such file.
    """
    if elf[:6] != b"\x7fELF\x02\x01":
        raise KernelNotUnderstood("the kernel's payload is no 64-bit ELF file")
    (entry, table) = struct.unpack_from("<QQ", elf, 24)
    (entry_size, count) = struct.unpack_from("<HH", elf, 54)
    segments = []
    for at in range(table, table + entry_size * count, entry_size):
        kind, _flags, offset, _virtual, physical, file_bytes, memory_bytes = struct.unpack_from(
            "<IIQQQQQ", elf, at
        )
        if kind == _ELF_PT_LOAD:
            segments.append((physical, elf[offset : offset + file_bytes], memory_bytes))
    if not segments:
        raise KernelNotUnderstood("the kernel's ELF file has nothing to load")
    start = min(physical for physical, _, _ in segments)
    end = max(physical + memory_bytes for physical, _, memory_bytes in segments)
    if end - start > 1 << 30:
        raise KernelNotUnderstood("the kernel's segments lie too far apart")
    data = bytearray(end - start)
    for physical, content, _ in segments:
        data[physical - start : physical - start + len(content)] = content
    return MemoryImage(bytes(data).rstrip(b"\0"), start, (end + 7) & ~7, entry)


def lz4_blocks(data: bytes, work: Path) -> bytes:
    """Return `data` as LZ4 blocks, each preceded by its length, the last followed by zero."""
    plain, packed = work / "kernel.plain", work / "kernel.lz4"
    plain.write_bytes(data)
    run_program("lz4", "-q", "-f", "-l", "-12", plain, packed)
    frame = packed.read_bytes()
    plain.unlink()
    packed.unlink()
    if struct.unpack_from("<I", frame)[0] != _LEGACY_FRAME:
        raise KernelNotUnderstood("lz4 wrote another format than the one asked for")
    return frame[4:] + bytes(4)


def _assemble(memory: MemoryImage, payload: bytes, work: Path) -> bytes:
    """Return the protected-mode part: the stub and, behind it, the blocks."""
    code, linked = work / "stub.o", work / "stub.bin"
    run_program("as", "--64", "-o", code, _STUB)
    stub_space = 1024
    payload_at = _LOAD_ADDRESS + stub_space
    tables = (payload_at + len(payload) + 4095) & ~4095
    if tables + _TABLES_SIZE > memory.start:
        raise KernelNotUnderstood("the kernel, packed with LZ4, does not fit below its own address")
    symbols = {
        "LOAD_START": memory.start,
        "LOAD_END": memory.end,
        "ENTRY": memory.entry,
        "PAYLOAD": payload_at,
        "TABLES": tables,
    }
    run_program(
        "ld", "-m", "elf_x86_64", "-Ttext", hex(_LOAD_ADDRESS), "--oformat", "binary",
        *(f"--defsym={name}={value:#x}" for name, value in symbols.items()),
        "-o", linked, code,
    )  # fmt: skip
    stub = linked.read_bytes()
    assert len(stub) <= stub_space, "the stub outgrew the space kept for it"
    return stub.ljust(stub_space, b"\0") + payload
