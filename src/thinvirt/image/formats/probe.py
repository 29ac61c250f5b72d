"""Which format is this, by content? A file's name says nothing: the tutorial's qcow2 is an .img."""

HEAD_BYTES = 1 << 16  # what `probe_format` can make use of
TAIL_BYTES = 512  # a fixed VHD has its only mark at the end

# Magic numbers at the very start of a file. The longer ones first where one begins another.
_AT_START = (
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"conectix", "vpc"),
    (b"vhdxfile", "vhdx"),
    (b"QED\0", "qed"),
    (b"LUKS\xba\xbe", "luks"),
    (b"WithoutFreeSpace", "parallels"),
    (b"WithouFreSpacExt", "parallels"),
    (b"Bochs Virtual HD Image", "bochs"),
    (b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
)
_FURTHER_IN = (
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (257, b"ustar", "tar"),
    (16 * 2048 + 1, b"CD001", "iso"),  # the identifier of the first volume descriptor
)
_AT_END = ((b"conectix", "vpc"), (b"koly", "dmg"))

COMPRESSED = frozenset({"gzip", "xz", "zstd", "bzip2", "lz4"})  # one file, packed
ARCHIVES = frozenset({"zip", "7z", "tar"})  # several files in one (an OVA is a tar)


def probe_format(head: bytes, *, file_size: int, tail: bytes = b"") -> str:
    """Return the format of a file: an image's, an archive's, or "raw" for everything else.

    Args:
        head: its first bytes, `HEAD_BYTES` of them if there are as many.
        file_size: bytes.
        tail: its last `TAIL_BYTES`; without them a fixed VHD and a DMG pass for raw.

    Returns:
        "qcow2", "qcow", "vmdk", "vdi", "vpc", "vhdx", "qed", "luks", "parallels", "bochs", "cloop",
        "dmg", "iso", one of `COMPRESSED` or `ARCHIVES`, or "raw".
    """
    if head[:4] == b"QFI\xfb" and any(head[4:8]):
        # Version 1 is another format; versions that do not exist yet are for qcow2 to refuse.
        return "qcow" if head[4:8] == b"\0\0\0\1" else "qcow2"
    for magic, name in _AT_START:
        if head.startswith(magic):
            return name
    for at, magic, name in _FURTHER_IN:
        if head[at : at + len(magic)] == magic:
            return name
    if _is_vmdk_descriptor(head):
        return "vmdk"
    if file_size >= TAIL_BYTES:
        return next((name for magic, name in _AT_END if tail.startswith(magic)), "raw")
    return "raw"


def _is_vmdk_descriptor(head: bytes) -> bool:
    """A VMDK can be a text: comments and blanks, then ``version=``, as QEMU recognises it."""
    for line in head[:4096].split(b"\n"):
        text = line.strip()
        if text.startswith(b"# Disk DescriptorFile"):
            return True
        if text and not text.startswith(b"#"):
            return text.lower().startswith((b"version=1", b"version=2", b"version=3"))
    return False
