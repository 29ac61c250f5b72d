"""What content says; names say nothing."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest

from thinvirt.image.formats.probe import probe_format


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("disk.vmdk"))
    return buffer.getvalue()


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("disk.img", b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"QFI\xfb\0\0\0\1" + bytes(64), "qcow"),
        (b"QFI\xfb\0\0\0\2" + bytes(64), "qcow2"),
        (b"QFI\xfb\0\0\0\x63" + bytes(64), "qcow2"),
        (b"QFI\xfb", "raw"),  # no version, as QEMU reads it: none of its formats
        (b"KDMV" + bytes(100), "vmdk"),
        (b"# Disk DescriptorFile\nversion=1\n", "vmdk"),
        (b"\n# a comment\n\nversion=1\nCID=0\n", "vmdk"),
        (b"# a script\necho version=1\n", "raw"),
        (b"LUKS\xba\xbe\0\1", "luks"),
        (b"vhdxfile", "vhdx"),
        (bytes(64) + b"\x7f\x10\xda\xbe", "vdi"),
        (bytes(32769) + b"CD001", "iso"),
        (gzip.compress(b"x"), "gzip"),
        (lzma.compress(b"x"), "xz"),
        (bz2.compress(b"x"), "bzip2"),
        (b"\x28\xb5\x2f\xfd\0", "zstd"),
        (tar_bytes(), "tar"),
        (zip_bytes(), "zip"),
        (b"", "raw"),
        (b"Q", "raw"),
        (bytes(510) + b"\x55\xaa", "raw"),
    ],
)
def test_formats(head: bytes, expected: str) -> None:
    assert probe_format(head, file_size=len(head), tail=head[-512:]) == expected


def test_a_fixed_vhd_has_its_mark_at_the_end() -> None:
    tail = b"conectix" + bytes(504)
    assert probe_format(bytes(1024), file_size=1 << 20, tail=tail) == "vpc"
    assert probe_format(bytes(1024), file_size=1 << 20) == "raw"
