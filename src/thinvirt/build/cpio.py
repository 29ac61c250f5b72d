"""Initramfs archives (cpio "newc"): root owns everything, times are fixed, order is by name.

Documentation/driver-api/early-userspace/buffer-format.rst describes the format.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_TRAILER = "TRAILER!!!"


def pack_tree(tree: Path) -> bytes:
    """Return the archive of all files, links and directories below `tree`."""
    parts = [
        _entry(number, name, mode, content)
        for number, (name, mode, content) in enumerate(_walk(tree), start=1)
    ]
    parts.append(_entry(0, _TRAILER, 0, b""))
    return b"".join(parts)


def _walk(tree: Path) -> Iterator[tuple[str, int, bytes]]:
    for path in sorted(tree.rglob("*")):
        mode = path.lstat().st_mode
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        else:
            content = path.read_bytes() if path.is_file() else b""
        yield str(path.relative_to(tree)), mode, content


def _entry(inode: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = os.fsencode(name) + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device, special device, name's length, checksum
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + encoded) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
