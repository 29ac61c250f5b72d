"""Where installation trees and discs keep the kernel and the initial RAM disk of their installer.

A tree says so itself in its ``.treeinfo`` (Fedora and its kin); for others the places are known.
"""

from collections.abc import Callable, Iterator
from typing import Final

TREEINFO_NAMES: Final = (".treeinfo", "treeinfo")
# Debian: its CDs, its network installer as mirrors and the package have it; Ubuntu: live and older
# server discs; Fedora, RHEL and kin; SUSE; Arch; Alpine; and whatever boots by ISOLINUX.
PLACES: Final[tuple[tuple[str, str], ...]] = (
    ("install.amd/vmlinuz", "install.amd/initrd.gz"),
    *(
        (f"{above}{name}-installer/amd64/linux", f"{above}{name}-installer/amd64/initrd.gz")
        for name in ("debian", "ubuntu")
        for above in ("", "images/netboot/", "current/images/netboot/", "install/netboot/")
    ),
    ("casper/vmlinuz", "casper/initrd"),
    ("casper/vmlinuz", "casper/initrd.lz"),
    ("casper/vmlinuz", "casper/initrd.gz"),
    ("casper/vmlinuz.efi", "casper/initrd.lz"),
    ("install/vmlinuz", "install/initrd.gz"),
    ("live/vmlinuz", "live/initrd.img"),
    ("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"),
    ("boot/x86_64/loader/linux", "boot/x86_64/loader/initrd"),
    ("arch/boot/x86_64/vmlinuz-linux", "arch/boot/x86_64/initramfs-linux.img"),
    ("boot/vmlinuz-virt", "boot/initramfs-virt"),
    ("boot/vmlinuz-lts", "boot/initramfs-lts"),
    ("isolinux/vmlinuz", "isolinux/initrd.img"),
    ("isolinux/linux", "isolinux/initrd"),
    ("linux", "initrd.gz"),
)


def boot_files(has: Callable[[str], bool], treeinfo: str = "") -> tuple[str, str] | None:
    """Return the paths of kernel and initial RAM disk inside a tree; None if it has none.

    Args:
        has: tells whether the tree has a file.
        treeinfo: the text of its ``.treeinfo``, "" if it has none.
    """
    said = _said(treeinfo) if treeinfo else ()
    for kernel, initrd in (*said, *PLACES):
        if has(kernel) and has(initrd):
            return kernel, initrd
    return None


def _said(treeinfo: str) -> Iterator[tuple[str, str]]:
    """Yield what a ``.treeinfo`` names: for this machine's architecture, and paths that stay in."""
    import configparser  # only for trees that have one

    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(treeinfo)
    except configparser.Error:
        return
    for section in ("images-x86_64", "images-amd64"):
        if not parser.has_section(section):
            continue
        kernel = parser.get(section, "kernel", fallback="")
        initrd = parser.get(section, "initrd", fallback="")
        if kernel and initrd and is_inside(kernel) and is_inside(initrd):
            yield kernel, initrd


def is_inside(path: str) -> bool:
    """Tell whether a path names something below the folder it is read from."""
    return not path.startswith("/") and ".." not in path.split("/")
